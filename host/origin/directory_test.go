package origin_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

func TestDirectoryOffersRegularFilesOnly(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(outside, []byte("secret"), 0o640),
		os.WriteFile(in("real"), []byte("image"), 0o640),
		os.Mkdir(in("sub"), 0o750),
		os.WriteFile(in("sub/deep"), []byte("deep"), 0o640),
		os.Symlink("real", in("latest")),
		os.Symlink(outside, in("escape")),
		os.Symlink("../"+filepath.Base(filepath.Dir(outside))+"/secret", in("up")),
		os.Symlink("loop", in("loop")),
		syscall.Mkfifo(in("fifo"), 0o640),
	); err != nil {
		t.Fatal(err)
	}
	o := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir})
	for name, want := range map[string]error{
		"sub":       origin.ErrNotFound,
		"fifo":      origin.ErrNotFound,
		"loop":      origin.ErrNotFound,
		"real/deep": origin.ErrNotFound,
		"escape":    origin.ErrNotFound,
		"up":        origin.ErrNotFound,
	} {
		if _, err := o.Stat(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("Stat(%s) = %v, want %v", name, err, want)
		}
		if _, _, err := fetch(o, origin.Request{Name: name, Length: -1}); !errors.Is(err, want) {
			t.Errorf("Open(%s) = %v, want %v", name, err, want)
		}
	}
	expect(t, o, origin.Request{Name: "latest", Length: -1}, []byte("image"))
	expect(t, o, origin.Request{Name: "sub/deep", Length: -1}, []byte("deep"))
}

// A directory that is not mounted has lost no image.
func TestMissingDirectoryIsUnavailable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mount")
	o := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir})
	if _, err := o.Stat(t.Context(), "a"); !errors.Is(err, origin.ErrUnavailable) || errors.Is(err, origin.ErrNotFound) {
		t.Errorf("Stat = %v, want ErrUnavailable", err)
	}
	if err := errors.Join(os.Mkdir(dir, 0o750), os.WriteFile(filepath.Join(dir, "a"), []byte("image"), 0o640)); err != nil {
		t.Fatal(err)
	}
	expect(t, o, origin.Request{Name: "a", Length: -1}, []byte("image"))
}

// A file that is written to while it is read never ends cleanly.
func TestFileChangesWhileRead(t *testing.T) {
	data := random(1, 100_000)
	for what, change := range map[string]func(name string) error{
		"grows":        func(name string) error { return os.Truncate(name, 200_000) },
		"shrinks":      func(name string) error { return os.Truncate(name, 50_000) },
		"is emptied":   func(name string) error { return os.Truncate(name, 0) },
		"is rewritten": func(name string) error { return os.WriteFile(name, random(2, 100_000), 0o640) },
		"is touched":   func(name string) error { return os.Chtimes(name, time.Time{}, time.Unix(1, 0)) },
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, "a")
		if err := os.WriteFile(name, data, 0o640); err != nil {
			t.Fatal(err)
		}
		_, body, err := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir}).Open(t.Context(), origin.Request{Name: "a", Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if err := change(name); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := io.ReadAll(body); !errors.Is(err, origin.ErrChanged) {
				t.Errorf("a file %s: %v, want ErrChanged", what, err)
			}
		}
		body.Close()
	}
}

// A file that is replaced by a rename is read to its end as it was.
func TestFileReplacedWhileRead(t *testing.T) {
	dir, data := t.TempDir(), random(1, 100_000)
	name := filepath.Join(dir, "a")
	if err := os.WriteFile(name, data, 0o640); err != nil {
		t.Fatal(err)
	}
	_, body, err := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir}).Open(t.Context(), origin.Request{Name: "a", Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if err := errors.Join(os.WriteFile(name+".new", random(2, 10), 0o640), os.Rename(name+".new", name)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); err != nil || string(got) != string(data) {
		t.Errorf("%d bytes, %v, want the file as it was", len(got), err)
	}
}
