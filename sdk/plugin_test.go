package sdk

import (
	"regexp"
	"strings"
	"testing"
)

func TestValidNameIsThePattern(t *testing.T) {
	pattern := regexp.MustCompile(`^(?:` + NamePattern + `)$`)
	for _, name := range []string{
		"", "a", "lru", "s3fifo", "3fifo", "-a", "_a", "a-b_c", "A", "aB", "a.b", "a b", "ä", "a\n",
		strings.Repeat("a", 64), strings.Repeat("a", 65),
	} {
		if got, want := ValidName(name), pattern.MatchString(name); got != want {
			t.Errorf("ValidName(%q) = %v, want %v", name, got, want)
		}
	}
}
