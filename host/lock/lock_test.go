package lock

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/sdk"
)

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWriteAndRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plugins.lock.json")
	l := Lock{Plugins: []Plugin{{"lru", sdk.KindPolicy, "1.0.0", "bb", ""}, {"sqlite", sdk.KindDriver, "2.0.0", "aa", "acme.pem"}}}
	if err := l.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	want := Lock{Version: 1, Plugins: []Plugin{{"sqlite", sdk.KindDriver, "2.0.0", "aa", "acme.pem"}, {"lru", sdk.KindPolicy, "1.0.0", "bb", ""}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Read() = %+v, %v, want %+v", got, err, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("the files are %v, %v", files, err)
	}
	if err := l.Write(filepath.Join(dir, "none", "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestDamagedLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plugins.lock.json")
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "create it with imgcache-host plugin lock") {
		t.Errorf("none: %v", err)
	}
	for text, want := range map[string]string{
		"":                              "EOF",
		"[]":                            "cannot unmarshal",
		`{"version":1,"pluginz":[]}`:    `unknown field "pluginz"`,
		`{"version":2,"plugins":[]}`:    "it has the version 2, this program reads 1",
		`{"version":1,"plugins":[]} {}`: "after its end",
	} {
		write(t, path, []byte(text))
		if _, err := Read(path); !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestNoLock has something else in the place of the file.
func TestNoLock(t *testing.T) {
	for want, place := range map[string]func(path string) error{
		"is not a regular file": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"is a directory":        func(path string) error { return os.Mkdir(path, 0o700) },
		"is larger than 1 MiB":  func(path string) error { return os.WriteFile(path, make([]byte, maxLock+1), 0o600) },
		"exceeded max depth":    func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("["), maxLock), 0o600) },
		"there is no lock file": func(path string) error { return os.Symlink("nothing", path) },
	} {
		path := filepath.Join(t.TempDir(), "plugins.lock.json")
		if err := place(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestSince(t *testing.T) {
	p := func(name, sum string) Plugin { return Plugin{Name: name, Kind: sdk.KindPolicy, SHA256: sum} }
	old := Lock{Plugins: []Plugin{p("a", "1"), p("b", "1"), p("c", "1")}}
	got := Lock{Plugins: []Plugin{p("b", "1"), p("c", "2"), p("d", "1")}}.Since(old)
	want := []Change{{p("b", "1"), "unchanged"}, {p("c", "2"), "changed"}, {p("d", "1"), "added"}, {p("a", "1"), "removed"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
