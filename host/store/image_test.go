package store_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

const block = store.BlockSize

func TestCommitAndRead(t *testing.T) {
	meta := store.Meta{
		Version: "sha256:00", SHA256: "00", URL: "http://origin/a", FetchMS: 17,
		OriginModTime: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	for _, size := range []int{0, 1, block - 1, block, block + 1, 3*block + 5} {
		dir := t.TempDir()
		s := open(t, dir)
		data := random(uint64(size), size)
		committed := put(t, s, "a", data, meta)
		want := store.Info{ID: "a", Size: int64(size), ModTime: committed.ModTime, Inode: committed.Inode, OnDisk: onDisk(t, dir, "a"), Meta: meta, Verified: true}
		if diff := cmp.Diff(want, committed); diff != "" {
			t.Errorf("size %d: Commit: %s", size, diff)
		}
		opened := expect(t, s, "a", data)
		stat, err := s.Stat("a")
		if err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string]store.Info{"OpenImage": opened, "Stat": stat, "Scan": scan(t, s)["a"]} {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("size %d: %s: %s", size, name, diff)
			}
		}
	}
}

func TestReadBlockPastTheEnd(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "a", random(1, block+1), store.Meta{})
	im, err := s.OpenImage("a")
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	buf := make([]byte, block)
	for _, n := range []int64{-1, 2, 1 << 60} {
		if _, err := im.ReadBlock(n, buf); err != io.EOF {
			t.Errorf("ReadBlock(%d) = %v, want io.EOF", n, err)
		}
	}
	if _, err := im.ReadBlock(0, buf[:block-1]); err != io.ErrShortBuffer {
		t.Errorf("ReadBlock into a short buffer = %v, want io.ErrShortBuffer", err)
	}
	if b, err := im.ReadBlock(1, buf[:1]); err != nil || len(b) != 1 {
		t.Errorf("ReadBlock of the short last block = %d bytes, %v", len(b), err)
	}
}

// A changed bit is found in the read that would serve it, in each block,
// whether the file's time tells of the change or not.
func TestBitFlips(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	data := random(1, 3*block+100)
	name := filepath.Join(dir, "a")
	for n := range int64(4) {
		put(t, s, "a", data, store.Meta{})
		flipped := bytes.Clone(data)
		flipped[n*block+99] ^= 0x10
		if n%2 == 0 {
			keepTime(t, name, func() { write(t, name, flipped) })
		} else {
			write(t, name, flipped)
		}
		im, err := s.OpenImage("a")
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, block)
		for i := range int64(4) {
			if _, err := im.ReadBlock(i, buf); errors.Is(err, store.ErrCorrupt) != (i == n) {
				t.Errorf("bit in block %d flipped: ReadBlock(%d) = %v", n, i, err)
			}
		}
		im.Close()
	}
}

func TestShortenedWhileOpen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a", random(1, 2*block), store.Meta{})
	im, err := s.OpenImage("a")
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	if err := os.Truncate(filepath.Join(dir, "a"), block+1); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, block)
	if _, err := im.ReadBlock(0, buf); err != nil {
		t.Errorf("ReadBlock(0) = %v", err)
	}
	if _, err := im.ReadBlock(1, buf); !errors.Is(err, store.ErrCorrupt) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadBlock(1) = %v, want ErrCorrupt for an unexpected end", err)
	}
}

func TestUnreadableBlockIsCorrupt(t *testing.T) {
	fsys := storetest.New(t, t.TempDir())
	s, err := store.Open(store.Config{Dir: "test", FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", random(1, block), store.Meta{})
	im, err := s.OpenImage("a")
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	fsys.Inject(storetest.On("image.read", 1, syscall.EIO))
	_, err = im.ReadBlock(0, make([]byte, block))
	if !errors.Is(err, store.ErrCorrupt) || !errors.Is(err, syscall.EIO) {
		t.Errorf("ReadBlock = %v, want ErrCorrupt for EIO", err)
	}
}

// A file that came without a table, or whose table was taken away, is served,
// but not called verified.
func TestUnverified(t *testing.T) {
	for what, act := range map[string]func(image, table string){
		"another file":  func(image, _ string) { os.Rename(image, image+"2"); write(t, image, random(2, block+5)) },
		"no table":      func(_, table string) { os.Remove(table) },
		"linked table":  func(_, table string) { os.Rename(table, table+"x"); os.Symlink(table+"x", table) },
		"table is FIFO": func(_, table string) { os.Remove(table); syscall.Mkfifo(table, 0o640) },
	} {
		dir := t.TempDir()
		s := open(t, dir)
		put(t, s, "a", random(1, block+5), store.Meta{Version: "v"})
		act(filepath.Join(dir, "a"), tablePath(t, dir))
		want, err := os.ReadFile(filepath.Join(dir, "a"))
		if err != nil {
			t.Fatal(err)
		}
		if info := expect(t, s, "a", want); info.Verified || info.Version != "" {
			t.Errorf("%s: %+v, want an unverified image", what, info)
		}
	}
}

// A file with a table that cannot be its own is not served: one of the two is
// damaged. To be touched is no damage.
func TestTableDoesNotFit(t *testing.T) {
	data := random(1, 2*block+5)
	for what, act := range map[string]func(image, table string){
		"empty table":   func(_, table string) { os.Truncate(table, 0) },
		"half a table":  func(_, table string) { os.Truncate(table, 30) },
		"flipped table": func(_, table string) { flipLast(t, table) },
		"huge table":    func(_, table string) { os.Truncate(table, 1<<30) },
		"table of a neighbour": func(image, table string) {
			copyFile(t, filepath.Join(filepath.Dir(table), names(t, filepath.Dir(table))[1]), table)
		},
		"grown":           func(image, _ string) { write(t, image, append(bytes.Clone(data), 0)) },
		"cut":             func(image, _ string) { os.Truncate(image, 2*block) },
		"emptied":         func(image, _ string) { os.Truncate(image, 0) },
		"cut, times kept": func(image, _ string) { keepTime(t, image, func() { os.Truncate(image, 2*block) }) },
	} {
		dir := t.TempDir()
		s := open(t, dir)
		put(t, s, "a", data, store.Meta{Version: "v"})
		table := tablePath(t, dir)
		put(t, s, "b", random(2, len(data)), store.Meta{Version: "v"})
		act(filepath.Join(dir, "a"), table)
		if _, err := s.OpenImage("a"); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: OpenImage = %v, want ErrCorrupt", what, err)
		}
		if info, err := s.Stat("a"); err != nil || info.Verified {
			t.Errorf("%s: Stat = %+v, %v, want an unverified image", what, info, err)
		}
		if scan(t, s)["a"].Verified {
			t.Errorf("%s: Scan calls it verified", what)
		}
	}
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a", data, store.Meta{Version: "v"})
	if err := os.Chtimes(filepath.Join(dir, "a"), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if info := expect(t, s, "a", data); !info.Verified || info.Version != "v" {
		t.Errorf("touched: %+v, want a verified image", info)
	}
}

// A table that cannot be read now, because descriptors are short, does not
// make its image unverified.
func TestTableCannotBeOpened(t *testing.T) {
	fsys := storetest.New(t, t.TempDir())
	s, err := store.Open(store.Config{Dir: "test", FS: fsys, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", random(1, block), store.Meta{})
	for op, corrupt := range map[string]bool{"blocks.open": false, "blocks.open.stat": false, "blocks.open.read": true} {
		fsys.Inject(storetest.On(op, 0, syscall.EMFILE))
		_, err := s.OpenImage("a")
		if !errors.Is(err, syscall.EMFILE) || errors.Is(err, store.ErrCorrupt) != corrupt {
			t.Errorf("%s fails: OpenImage = %v, want that error, corrupt: %v", op, err, corrupt)
		}
	}
}

// tablePath returns where the only block table lies.
func tablePath(t *testing.T, dir string) string {
	t.Helper()
	dir = filepath.Join(dir, ".imgcache", "blocks")
	return filepath.Join(dir, names(t, dir)[0])
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, b)
}

// keepTime changes a file and gives it its time back.
func keepTime(t *testing.T, name string, change func()) {
	t.Helper()
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	change()
	if err := os.Chtimes(name, time.Time{}, fi.ModTime()); err != nil {
		t.Fatal(err)
	}
}

func flipLast(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	write(t, name, b)
}

// What is no regular file is no image, whatever its name, and is not touched.
func TestPlanted(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	write(t, outside, []byte("secret"))
	plant := map[string]func(name string) error{
		"link-out":   func(name string) error { return os.Symlink(outside, name) },
		"link-in":    func(name string) error { return os.Symlink("real", name) },
		"link-loop":  func(name string) error { return os.Symlink(filepath.Base(name), name) },
		"link-etc":   func(name string) error { return os.Symlink("/etc/passwd", name) },
		"directory":  func(name string) error { return os.Mkdir(name, 0o750) },
		"fifo":       func(name string) error { return syscall.Mkfifo(name, 0o640) },
		"link-priv":  func(name string) error { return os.Symlink(".imgcache/instance", name) },
		"link-queue": func(name string) error { return os.Symlink("queue", name) },
	}
	for id, plant := range plant {
		t.Run(id, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			put(t, s, "real", []byte("real"), store.Meta{})
			for _, sub := range []string{"", "incomplete", "invalid", "queue"} {
				if err := plant(filepath.Join(dir, sub, id)); err != nil {
					t.Fatal(err)
				}
			}
			checkPlanted(t, s, id)
			if _, err := os.Lstat(filepath.Join(dir, id)); err != nil {
				t.Errorf("it is gone: %v", err)
			}
		})
	}
}

func checkPlanted(t *testing.T, s *store.Store, id string) {
	t.Helper()
	expectAbsent(t, s, id)
	if found := scan(t, s); len(found) != 1 {
		t.Errorf("Scan found %v", found)
	}
	if _, err := s.Trash(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Trash = %v, want fs.ErrNotExist", err)
	}
	if err := s.Quarantine(store.Info{ID: id}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Quarantine = %v, want fs.ErrNotExist", err)
	}
	if s.HasForeign(id) || s.Queued(id) {
		t.Error("it counts as incomplete or queued")
	}
	incomplete, err := s.Incomplete()
	if err != nil || len(incomplete) != 0 {
		t.Errorf("Incomplete = %v, %v", incomplete, err)
	}
	invalid, err := s.Invalid()
	if err != nil || len(invalid) != 0 {
		t.Errorf("Invalid = %v, %v", invalid, err)
	}
	if err := s.RemoveIncomplete(id); err != nil {
		t.Errorf("RemoveIncomplete = %v", err)
	}
	if queue, err := s.Queue(nil); err != nil || len(queue) != 0 {
		t.Errorf("Queue = %v, %v", queue, err)
	}
}

// An image takes the place of a planted link without following it.
func TestCommitReplacesLink(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	outside := filepath.Join(t.TempDir(), "secret")
	write(t, outside, []byte("secret"))
	if err := os.Symlink(outside, filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", []byte("image"), store.Meta{})
	expect(t, s, "a", []byte("image"))
	if b, err := os.ReadFile(outside); err != nil || string(b) != "secret" {
		t.Errorf("the link's target holds %q, %v", b, err)
	}
}
