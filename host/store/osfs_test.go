package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"testing"
	"time"
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

// TestOSFSLeavesNothingOpen counts the descriptors of the process: a test that
// counts what is open in an [FS] does not see those that an operation needs
// for itself. It must not run beside other tests.
func TestOSFSLeavesNothingOpen(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which would close what was lost
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o640); err != nil {
		t.Fatal(err)
	}
	live := func() {
		for _, old := range []bool{false, true} {
			fsys, err := OpenFS(dir)
			if err != nil {
				t.Fatal(err)
			}
			fsys.(*osFS).noOpenat2.Store(old)
			useOnce(t, fsys)
			if err := fsys.(io.Closer).Close(); err != nil {
				t.Error(err)
			}
		}
	}
	live() // the runtime opens some for itself, the first time
	before := descriptors(t)
	for range 3 {
		live()
	}
	if n := descriptors(t); n != before {
		t.Errorf("%d files are open, expected the %d from before", n, before)
	}
}

// useOnce calls each operation so that it succeeds and so that it fails.
func useOnce(t *testing.T, fsys FS) {
	good := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	bad := func(err error) {
		t.Helper()
		if err == nil {
			t.Error("it succeeds, expected an error")
		}
	}
	good(fsys.Mkdir("test", "dir", 0o750))
	bad(fsys.Mkdir("test", "fifo", 0o750))
	for _, name := range []string{"dir", "fifo", "absent"} {
		_, err := fsys.OpenFile("test", name, os.O_RDWR, 0)
		bad(err)
	}
	f, err := fsys.OpenFile("test", "dir/file", os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	good(errors.Join(f.(allocator).Allocate(0, 10), f.(locker).Lock(), f.(forgetter).Forget(0, 10), f.(puncher).Punch(0, 10), f.Sync(), f.Close()))
	good(errors.Join(fsys.Link("test", "dir/file", "linked"), fsys.Rename("test", "linked", "renamed")))
	bad(fsys.Link("test", "absent", "linked"))
	bad(fsys.Rename("test", "absent", "renamed"))
	good(errors.Join(fsys.Chtimes("test", "dir/file", time.Now()), fsys.SyncDir("test", "dir")))
	bad(fsys.Chtimes("test", "absent", time.Now()))
	bad(fsys.SyncDir("test", "absent"))
	entries, err := fsys.ReadDir("test", ".")
	good(err)
	for _, e := range entries {
		_, err := e.Info()
		good(err)
	}
	for _, name := range []string{"renamed", "absent"} { // a file is no directory
		_, err := fsys.ReadDir("test", name)
		bad(err)
	}
	_, err = fsys.Lstat("test", "dir/file")
	good(err)
	_, err = fsys.Free("test")
	good(err)
	_, err = fsys.Inodes("test")
	good(err)
	good(fsys.Check("test"))
	lock, err := fsys.Lock("test")
	good(err)
	_, err = fsys.Lock("test")
	bad(err)
	good(lock.Close())
	good(errors.Join(fsys.Remove("test", "renamed"), fsys.Remove("test", "dir/file"), fsys.Remove("test", "dir")))
	bad(fsys.Remove("test", "absent"))
}

// descriptors is how many files the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
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
