package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpgrade opens a directory of the first format with a program that knows
// two more, is interrupted on the way, and then opens it with an older one.
func TestUpgrade(t *testing.T) {
	dir := t.TempDir()
	if err := newStore(Config{Dir: dir}, nil).openAndClose(); err != nil {
		t.Fatal(err)
	}
	var steps []string
	broken := errors.New("no space")
	step := func(name string, fail *bool) upgrade {
		return func(fsys FS) error {
			steps = append(steps, name)
			if *fail {
				return broken
			}
			return writeSmall(fsys, "upgrade", privateDir+"/"+name, name)
		}
	}
	never, second := false, true
	newer := []upgrade{step("one", &never), step("two", &second)}
	if err := newStore(Config{Dir: dir}, newer).openAndClose(); !errors.Is(err, broken) || !strings.Contains(err.Error(), "upgrade from format 2") {
		t.Errorf("interrupted upgrade: %v", err)
	}
	second = false
	if err := newStore(Config{Dir: dir}, newer).openAndClose(); err != nil {
		t.Error(err)
	}
	if err := newStore(Config{Dir: dir}, newer).openAndClose(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(steps, " "); got != "one two two" {
		t.Errorf("steps %s, want each until it succeeds, and no more", got)
	}
	b, err := os.ReadFile(filepath.Join(dir, formatFile))
	if string(b) != "3\n" || err != nil {
		t.Errorf("the format is %q, %v", b, err)
	}
	var older *NewerError
	if err := newStore(Config{Dir: dir}, nil).openAndClose(); !errors.As(err, &older) || *older != (NewerError{Format: 3, Known: 1}) {
		t.Errorf("the older program opens it: %v", err)
	}
	for _, name := range []string{"one", "two"} {
		if _, err := os.Stat(filepath.Join(dir, privateDir, name)); err != nil {
			t.Error(err)
		}
	}
}

func (s *Store) openAndClose() error { return errors.Join(s.Open(), s.Close()) }
