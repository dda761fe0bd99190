package plainfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(at("file"), []byte("1234"), 0o600),
		os.WriteFile(at("large"), []byte("12345"), 0o600),
		os.WriteFile(at("empty"), nil, 0o600),
		os.Symlink("file", at("link")),
		os.Symlink("nothing", at("dangling")),
		os.Mkdir(at("directory"), 0o700),
		syscall.Mkfifo(at("fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"file": "1234", "link": "1234", "empty": ""} {
		if got, err := Read(at(name), 4); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, want := range map[string]string{
		"large": "large is larger than 4 bytes", "directory": "directory is a directory; expected a file", "fifo": "fifo is not a regular file",
	} {
		if _, err := Read(at(name), 4); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"dangling", "nothing"} {
		if _, err := Read(at(name), 4); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Read(os.DevNull, 4); err == nil {
		t.Error("a device was read")
	}
}
