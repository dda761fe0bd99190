package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

func remove(t *testing.T, path ...string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(path...)); err != nil {
		t.Fatal(err)
	}
}

// uses are operations that need a part of the layout. None of them may notice
// that it was gone.
var uses = map[string]func(t *testing.T, s *store.Store) error{
	"store": func(t *testing.T, s *store.Store) error {
		_, _, err := tryPut(s, "new", newBytes, store.Meta{Version: "new"})
		if err == nil {
			expect(t, s, "new", newBytes)
		}
		return err
	},
	"replace": func(_ *testing.T, s *store.Store) error {
		_, _, err := tryPut(s, "kept", newBytes, store.Meta{Version: "new"})
		return err
	},
	"checkpoint": func(_ *testing.T, s *store.Store) error {
		st, err := s.Stage("c")
		if err != nil {
			return err
		}
		defer st.Release()
		return errors.Join(st.Checkpoint([]byte("label")), st.Remove())
	},
	"keep": func(_ *testing.T, s *store.Store) error {
		st, err := s.Stage("c")
		if err != nil {
			return err
		}
		defer st.Release()
		return st.Keep()
	},
	"trash": func(_ *testing.T, s *store.Store) error {
		trashed, err := s.Trash("kept")
		if err != nil {
			return err
		}
		return s.Reclaim(trashed)
	},
	"quarantine": func(_ *testing.T, s *store.Store) error {
		info, err := s.Stat("kept")
		if err != nil {
			return err
		}
		return s.Quarantine(info)
	},
	"queue": func(_ *testing.T, s *store.Store) error {
		_, _, err := s.Enqueue("q", "note")
		return errors.Join(err, s.Dequeue("q"))
	},
	"lists": func(_ *testing.T, s *store.Store) error {
		_, err := s.Queue(nil)
		_, err2 := s.Invalid()
		_, err3 := s.Incomplete()
		_, err4 := s.Trashed()
		return errors.Join(err, err2, err3, err4, s.Scan(func(store.Info) error { return nil }))
	},
	"recover": func(_ *testing.T, s *store.Store) error { _, err := s.Recover(); return err },
	"private file": func(_ *testing.T, s *store.Store) error {
		f, err := s.FS().OpenFile("test", s.PrivateDir()+"/file.new", os.O_WRONLY|os.O_CREATE, 0o640)
		if err != nil {
			return err
		}
		return errors.Join(f.Close(), s.FS().Rename("test", s.PrivateDir()+"/file.new", s.PrivateDir()+"/file"))
	},
}

// TestLayoutTakenAway removes each part of the layout, some, and all of it, with
// the images or without, and goes on with each operation at once.
func TestLayoutTakenAway(t *testing.T) {
	parts := map[string][]string{
		"queue":      {"queue"},
		"incomplete": {"incomplete"},
		"invalid":    {"invalid"},
		"blocks":     {".imgcache/blocks"},
		"trash":      {".imgcache/trash"},
		"fills":      {".imgcache/fills"},
		"private":    {".imgcache"},
		"visible":    {"queue", "incomplete", "invalid"},
		"all":        {"queue", "incomplete", "invalid", ".imgcache"},
	}
	for name, gone := range parts {
		for use, do := range uses {
			t.Run(name+"/"+use, func(t *testing.T) {
				t.Parallel()
				dir := storetest.MemoryDir(t)
				s := open(t, dir)
				instance := s.Instance()
				put(t, s, "kept", oldBytes, store.Meta{Version: "old"})
				for _, part := range gone {
					remove(t, dir, part)
				}
				if err := do(t, s); err != nil {
					t.Fatal(err)
				}
				m, err := s.Mend()
				if err != nil || m.Reopened || len(m.Made) < len(gone) {
					t.Errorf("Mend = %+v, %v, want what was made", m, err)
				}
				for _, part := range gone {
					if !slices.Contains(m.Made, part) {
						t.Errorf("Mend = %+v, want %s too", m, part)
					}
				}
				if m, err := s.Mend(); err != nil || m.Any() {
					t.Errorf("the second Mend = %+v, %v, want nothing", m, err)
				}
				if diff := len(names(t, dir, ".imgcache")); diff < 6 {
					t.Errorf("in .imgcache are %v", names(t, dir, ".imgcache"))
				}
				if _, err := store.Open(store.Config{Dir: dir}); !lockedByUs(err) {
					t.Errorf("another Open = %v, want a LockedError", err)
				}
				s.Close()
				if again := open(t, dir).Instance(); again != instance {
					t.Errorf("the cache is called %s, before %s", again, instance)
				}
			})
		}
	}
}

func lockedByUs(err error) bool {
	var locked *store.LockedError
	return errors.As(err, &locked) && locked.PID == os.Getpid()
}

// TestTakenWhileWritten: a file that lost its name is not stored, and whoever
// reads it goes on.
func TestTakenWhileWritten(t *testing.T) {
	for name, gone := range map[string][]string{
		"the file":   {"incomplete/*"},
		"its parent": {"incomplete"},
		"everything": {"*", ".imgcache"},
	} {
		dir := storetest.MemoryDir(t)
		s := open(t, dir)
		put(t, s, "a", oldBytes, store.Meta{Version: "old"})
		st := stage(t, s, "a", newBytes)
		for _, pattern := range gone {
			list, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range list {
				remove(t, path)
			}
		}
		if _, _, err := st.Commit(store.Meta{}); !errors.Is(err, store.ErrTaken) {
			t.Errorf("%s: Commit = %v, want ErrTaken", name, err)
		}
		got := make([]byte, len(newBytes))
		if _, err := st.ReadAt(got, 0); err != nil || !bytes.Equal(got, newBytes) {
			t.Errorf("%s: ReadAt = %v", name, err)
		}
		if err := errors.Join(st.Remove(), st.Release()); err != nil {
			t.Errorf("%s: Remove and Release = %v", name, err)
		}
		if name != "everything" {
			expect(t, s, "a", oldBytes)
		}
		put(t, s, "a", newBytes, store.Meta{})
		if tables := names(t, dir, ".imgcache", "blocks"); len(tables) != 1 {
			t.Errorf("%s: block tables %v", name, tables)
		}
	}
}

// TestCommitWithoutPrivate: a file that is still there becomes an image, though
// all that was known of it is gone.
func TestCommitWithoutPrivate(t *testing.T) {
	dir := storetest.MemoryDir(t)
	s := open(t, dir)
	st := stage(t, s, "a", newBytes)
	if err := st.Checkpoint(nil); err != nil {
		t.Fatal(err)
	}
	remove(t, dir, ".imgcache")
	if _, _, err := st.Commit(store.Meta{Version: "new"}); err != nil {
		t.Fatal(err)
	}
	if info := expect(t, s, "a", newBytes); !info.Verified || info.Version != "new" {
		t.Errorf("the image is %+v", info)
	}
}

// TestDirectoryReplaced lets the path lead to another directory, in each way that
// an operator has: operations fail with ErrNotOpen, or do nothing to either, until
// Mend opens what is there.
func TestDirectoryReplaced(t *testing.T) {
	another := func(t *testing.T, dir string) {
		s := open(t, dir)
		put(t, s, "other", newBytes, store.Meta{Version: "other"})
		s.Close()
	}
	for name, replace := range map[string]func(t *testing.T, dir, link string){
		"removed":            func(t *testing.T, dir, _ string) { remove(t, dir) },
		"removed and made":   func(t *testing.T, dir, _ string) { remove(t, dir); mkdir(t, dir) },
		"another, by rename": func(t *testing.T, dir, _ string) { rename(t, dir, dir+".old"); another(t, dir) },
		"another, by a link": func(t *testing.T, dir, link string) {
			another(t, dir+".new")
			remove(t, link)
			symlink(t, dir+".new", link)
		},
		"another, by a mount": func(t *testing.T, dir, _ string) {
			other := storetest.Mount(t, "size=8m")
			another(t, other)
			bind(t, other, dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir, link := filepath.Join(parent, "cache"), filepath.Join(parent, "link")
			mkdir(t, dir)
			symlink(t, dir, link)
			path := link
			if strings.HasPrefix(name, "removed") { // a link that leads nowhere is refused
				path = dir
			}
			s := open(t, path)
			put(t, s, "a", oldBytes, store.Meta{})
			st := stage(t, s, "b", newBytes)
			im, err := s.OpenImage("a")
			if err != nil {
				t.Fatal(err)
			}
			defer im.Close()
			replace(t, dir, link)
			m, err := s.Mend()
			if err != nil || !m.Reopened {
				t.Fatalf("Mend = %+v, %v", m, err)
			}
			if b, err := im.ReadBlock(0, make([]byte, store.BlockSize)); err != nil || !bytes.Equal(b, oldBytes) {
				t.Errorf("the image that is open cannot be read: %v", err)
			}
			if _, _, err := st.Commit(store.Meta{}); !errors.Is(err, store.ErrTaken) {
				t.Errorf("Commit of a file in the directory of before = %v", err)
			}
			expectAbsent(t, s, "a")
			put(t, s, "a", newBytes, store.Meta{})
			if strings.HasPrefix(name, "another") {
				expect(t, s, "other", newBytes)
			}
			if _, err := store.Open(store.Config{Dir: path}); !lockedByUs(err) {
				t.Errorf("another Open = %v, want a LockedError", err)
			}
			if m, err := s.Mend(); err != nil || m.Any() {
				t.Errorf("the second Mend = %+v, %v, want nothing", m, err)
			}
		})
	}
}

// TestDirectoryLost: while there is nothing to open every operation says so, which
// is not taken for an absent image.
func TestDirectoryLost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	s := open(t, dir)
	put(t, s, "a", oldBytes, store.Meta{})
	remove(t, dir)
	write(t, dir, []byte("no directory"))
	for range 2 {
		if _, _, err := tryPut(s, "b", newBytes, store.Meta{}); err == nil {
			t.Error("an image was stored")
		}
		if m, err := s.Mend(); !errors.Is(err, store.ErrNotOpen) || m.Any() || s.IsOpen() {
			t.Errorf("Mend = %+v, %v, want ErrNotOpen", m, err)
		}
		if _, err := s.OpenImage("a"); !errors.Is(err, store.ErrNotOpen) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("OpenImage = %v, want ErrNotOpen", err)
		}
	}
	remove(t, dir)
	if m, err := s.Mend(); err != nil || !m.Reopened || !s.IsOpen() {
		t.Errorf("Mend = %+v, %v", m, err)
	}
	put(t, s, "b", newBytes, store.Meta{})
	s.Close()
	remove(t, dir)
	if m, err := s.Mend(); err != nil || m.Any() {
		t.Errorf("Mend after Close = %+v, %v", m, err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("Mend after Close made the directory")
	}
}

// TestReadOnly: images are served from a file system that became read-only, as
// after an error of the disk, Mend says that it did, and when it is writable again
// they are stored.
func TestReadOnly(t *testing.T) {
	fsys := storetest.New(t, storetest.MemoryDir(t))
	s, err := openFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", oldBytes, store.Meta{})
	fsys.Inject(func(c storetest.Call) error {
		if c.Op == "mend.check" || c.Op == "stage" {
			return syscall.EROFS
		}
		return nil
	})
	if m, err := s.Mend(); !errors.Is(err, syscall.EROFS) || errors.Is(err, store.ErrNotOpen) || m.Any() {
		t.Errorf("Mend = %+v, %v, want EROFS", m, err)
	}
	expect(t, s, "a", oldBytes)
	if _, _, err := tryPut(s, "b", newBytes, store.Meta{}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("put = %v, want EROFS", err)
	}
	fsys.Inject(nil)
	if m, err := s.Mend(); err != nil || m.Any() {
		t.Errorf("Mend = %+v, %v", m, err)
	}
	put(t, s, "b", newBytes, store.Meta{})
}

// TestReadOnlyAtStart: a store on a file system that is read-only says so, and
// opens when it is writable.
func TestReadOnlyAtStart(t *testing.T) {
	for _, before := range []bool{false, true} { // whether an earlier run laid the directory out
		mount := storetest.Mount(t, "size=8m")
		dir := filepath.Join(mount, "cache")
		mkdir(t, dir)
		if before {
			open(t, dir).Close()
		}
		storetest.Remount(t, mount, true)
		s := store.New(store.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
		t.Cleanup(func() { s.Close() })
		if err := s.Open(); !errors.Is(err, syscall.EROFS) {
			t.Errorf("Open = %v, want EROFS", err)
		}
		if m, err := s.Mend(); !errors.Is(err, syscall.EROFS) || !errors.Is(err, store.ErrNotOpen) || m.Any() {
			t.Errorf("Mend = %+v, %v, want EROFS", m, err)
		}
		storetest.Remount(t, mount, false)
		if m, err := s.Mend(); err != nil || !m.Reopened {
			t.Errorf("Mend = %+v, %v", m, err)
		}
		put(t, s, "a", newBytes, store.Meta{})
	}
}

// TestOutOfInodes: what cannot be made says that inodes are missing, not bytes,
// and harms nothing.
func TestOutOfInodes(t *testing.T) {
	for _, left := range []int{0, 1, 2} { // for the staged file, its checkpoint, its block table
		mount := storetest.Mount(t, "size=8m,nr_inodes=40")
		s := open(t, filepath.Join(mount, "cache"))
		put(t, s, "a", oldBytes, store.Meta{})
		fillInodes(t, mount)
		for i := range left {
			remove(t, mount, "fill", string(rune('a'+i)))
		}
		st, err := s.Stage("b")
		if err == nil {
			_ = st.Checkpoint(nil) // a fill goes on without
			_, err = st.Write(newBytes)
		}
		if err == nil {
			_, _, err = st.Commit(store.Meta{})
		}
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no inode left") {
			t.Errorf("with %d inodes left: %v", left, err)
		}
		if st != nil {
			if err := errors.Join(st.Remove(), st.Release()); err != nil {
				t.Error(err)
			}
		}
		if left == 0 {
			if _, _, err := s.Enqueue("q", ""); err == nil || !strings.Contains(err.Error(), "no inode left") {
				t.Errorf("Enqueue = %v", err)
			}
		}
		expect(t, s, "a", oldBytes)
		if m, err := s.Mend(); err != nil || m.Any() {
			t.Errorf("Mend = %+v, %v", m, err)
		}
		remove(t, mount, "fill")
		put(t, s, "b", newBytes, store.Meta{})
		if left, err := os.ReadDir(filepath.Join(mount, "cache", "incomplete")); err != nil || len(left) > 0 {
			t.Errorf("incomplete/ holds %v, %v", left, err)
		}
	}
}

// fillInodes makes files until there can be no more.
func fillInodes(t *testing.T, mount string) {
	t.Helper()
	mkdir(t, filepath.Join(mount, "fill"))
	for i := range 100 {
		f, err := os.Create(filepath.Join(mount, "fill", string(rune('a'+i))))
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	t.Fatal("the file system has inodes without end")
}

// TestMendOnABadDisk fails each call of Mend after everything was removed: the
// error tells, and the next one finishes.
func TestMendOnABadDisk(t *testing.T) {
	for seq := 1; ; seq++ {
		dir := storetest.MemoryDir(t)
		fsys := storetest.New(t, dir)
		s, err := openFS(fsys)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{".imgcache", "queue", "incomplete", "invalid"} {
			remove(t, dir, part)
		}
		fsys.Inject(storetest.At(seq, syscall.EIO))
		_, err = s.Mend()
		done := len(fsys.Calls()) < seq
		closes := !done && fsys.Calls()[seq-1].Op == "lock.close" // of the lock that lost its name
		if (done || closes) != (err == nil) || err != nil && !errors.Is(err, syscall.EIO) {
			t.Errorf("call %d, %v, fails: Mend = %v", seq, fsys.Calls()[seq-1:], err)
		}
		fsys.Inject(nil)
		if _, err := s.Mend(); err != nil {
			t.Errorf("call %d fails: the next Mend = %v", seq, err)
		}
		put(t, s, "a", newBytes, store.Meta{})
		s.Close()
		if done {
			return
		}
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// bind mounts a directory at another place.
func bind(t *testing.T, dir, at string) {
	t.Helper()
	if err := syscall.Mount(dir, at, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// TestQueueTakenAway: what was queued in a queue that was taken away is not queued
// any more, and can be queued again.
func TestQueueTakenAway(t *testing.T) {
	for name, tt := range map[string]struct {
		gone []string
		left int // markers
	}{
		"a marker":   {[]string{"queue/a"}, 1},
		"the queue":  {[]string{"queue"}, 0},
		"everything": {[]string{"queue", "incomplete", "invalid", ".imgcache"}, 0},
	} {
		dir := storetest.MemoryDir(t)
		s := open(t, dir)
		for _, id := range []string{"a", "b"} {
			if _, added, err := s.Enqueue(id, ""); !added || err != nil {
				t.Fatalf("Enqueue = %v, %v", added, err)
			}
		}
		for _, part := range tt.gone {
			remove(t, dir, part)
		}
		if list, err := s.Queue(nil); err != nil || s.Queued("a") || len(list) != tt.left {
			t.Errorf("%s: Queue = %v, %v, want %d markers", name, list, err, tt.left)
		}
		for _, id := range []string{"a", "b"} {
			if _, _, err := s.Enqueue(id, ""); err != nil {
				t.Errorf("%s: Enqueue = %v", name, err)
			}
		}
		if list, err := s.Queue(nil); err != nil || len(list) != 2 || len(names(t, dir, "queue")) != 2 {
			t.Errorf("%s: Queue = %v, %v; there are %v", name, list, err, names(t, dir, "queue"))
		}
	}
}
