package sdk

import (
	"errors"
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

func TestSpeaks(t *testing.T) {
	for _, c := range []struct {
		first, last, version int
		want                 string // in the error; empty: it speaks it
	}{
		{0, 0, 1, ""},
		{0, 3, 2, ""},
		{2, 0, 2, ""},
		{0, 0, 2, "too old: it speaks version 1 of the plugin protocol, this host version 2"},
		{0, 2, 3, "too old: it speaks version 1 to 2 "},
		{2, 3, 1, "too new: it speaks version 2 to 3 "},
	} {
		err := Manifest{MinProtocol: c.first, MaxProtocol: c.last}.Speaks(c.version)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestProtocolsOfAManifest(t *testing.T) {
	m := Manifest{Name: "a", Kind: KindDriver}
	for _, c := range []struct {
		first, last int
		ok          bool
	}{{0, 0, true}, {1, 1, true}, {2, 0, true}, {0, 2, true}, {2, 1, false}, {-1, 1, false}, {1, -1, false}} {
		m.MinProtocol, m.MaxProtocol = c.first, c.last
		if err := m.Validate(); (err == nil) != c.ok {
			t.Errorf("%d to %d: %v", c.first, c.last, err)
		}
	}
}
