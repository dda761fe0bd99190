package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Both ways of opening refuse the same names.
func TestOpenFileRegularOnly(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(outside, []byte("secret"), 0o640),
		os.WriteFile(in("file"), []byte("file"), 0o640),
		os.Mkdir(in("dir"), 0o750),
		os.WriteFile(in("dir/deep"), []byte("deep"), 0o640),
		os.Symlink("file", in("link")),
		os.Symlink(outside, in("escape")),
		os.Symlink("loop", in("loop")),
		os.Symlink("dir", in("linkdir")),
		syscall.Mkfifo(in("fifo"), 0o640),
	); err != nil {
		t.Fatal(err)
	}
	for _, old := range []bool{false, true} {
		fsys, err := OpenFS(dir)
		if err != nil {
			t.Fatal(err)
		}
		fsys.(*osFS).noOpenat2.Store(old)
		for _, name := range []string{"dir", "link", "escape", "loop", "fifo", "absent", "file/deep", "../" + filepath.Base(dir) + "/file"} {
			for _, flag := range []int{os.O_RDONLY, os.O_RDWR} {
				f, err := fsys.OpenFile("test", name, flag, 0)
				if err == nil {
					f.Close()
					t.Errorf("old way %v: OpenFile(%s, %#x) succeeds", old, name, flag)
				} else if !errors.Is(err, fs.ErrNotExist) && filepath.IsLocal(name) && name != "file/deep" {
					t.Errorf("old way %v: OpenFile(%s, %#x) = %v, want fs.ErrNotExist", old, name, flag, err)
				}
			}
		}
		for name, want := range map[string]string{"file": "file", "dir/deep": "deep"} {
			f, err := fsys.OpenFile("test", name, os.O_RDONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(f); string(b) != want || err != nil {
				t.Errorf("old way %v: %s holds %q, %v", old, name, b, err)
			}
			f.Close()
		}
		if _, err := fsys.OpenFile("test", "link", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640); !errors.Is(err, fs.ErrExist) {
			t.Errorf("old way %v: a link is made anew: %v", old, err)
		}
		if err := fsys.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o022))
	dir := filepath.Join(t.TempDir(), "cache")
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st, err := s.Stage("a")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Release()
	if _, _, err := st.Commit(Meta{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		".": 0o750 | fs.ModeDir, "queue": 0o750 | fs.ModeDir, ".imgcache": 0o750 | fs.ModeDir, "a": 0o640, lockFile: 0o640, formatFile: 0o640,
	} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode() != want {
			t.Errorf("%s has mode %v, %v, want %v", name, fi.Mode(), err, want)
		}
	}
}
