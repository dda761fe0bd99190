package config

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := Listener{Name: "admin", TokenFile: file}
	if _, err := l.Tokens(); err == nil {
		t.Error("no error without the file")
	}
	write("# the operators\nabc \n\r\n  def")
	got, err := l.Tokens()
	if err != nil || !slices.Equal(got, []string{"abc", "def"}) {
		t.Errorf("tokens %q, %v", got, err)
	}
	write("# nobody\n")
	if _, err := l.Tokens(); err == nil {
		t.Error("no error for a file without tokens")
	}
	if got, err := (Listener{}).Tokens(); got != nil || err != nil {
		t.Errorf("without a token file: %q, %v", got, err)
	}
}
