package storetest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/store"
)

// disk knows what a loss of power would leave. Names are kept by a journal
// that a SyncDir writes, as far as it concerns the directory; bytes of a file
// by its Sync.
type disk struct {
	dir  string
	safe string // holds second names of files that may have to come back

	mu      sync.Mutex
	saved   int
	changes []change
	files   map[uint64]*unsyncedFile // by inode
}

// change is one change to names that is not synced.
type change struct {
	dirs []string
	undo []func() error
}

// unsyncedFile is a file that was opened for writing.
type unsyncedFile struct {
	handle *os.File // outlives its names
	synced int64    // bytes that a loss of power leaves
}

func newDisk(t testing.TB, dir string) *disk {
	t.Helper()
	safe, err := os.MkdirTemp(filepath.Dir(dir), "safe") // links do not lead to another file system
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(safe) })
	return &disk{dir: dir, safe: safe, files: map[uint64]*unsyncedFile{}}
}

func (d *disk) path(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

// before notes what the names are before a change to them.
func (d *disk) before(names ...string) change {
	d.mu.Lock()
	defer d.mu.Unlock()
	var c change
	for _, name := range names {
		c.dirs = append(c.dirs, path.Dir(name))
		c.undo = append(c.undo, d.restorer(name))
	}
	return c
}

// restorer returns a function that makes a name mean what it means now.
func (d *disk) restorer(name string) func() error {
	target := d.path(name)
	d.saved++
	second := filepath.Join(d.safe, fmt.Sprint(d.saved))
	err := os.Link(target, second)
	if errors.Is(err, fs.ErrNotExist) {
		return func() error {
			if err := os.Remove(target); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
	}
	return func() error {
		if err != nil {
			return err
		}
		tmp := second + ".back" // rename does nothing between two names of one file
		if err := os.Link(second, tmp); err != nil {
			return err
		}
		if err := os.Rename(tmp, target); err != nil {
			return err
		}
		os.Remove(tmp)
		return nil
	}
}

func (d *disk) changed(c change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changes = append(d.changes, c)
}

// opened notes a file that was opened with flag, and that it is new.
func (d *disk) opened(name string, flag int, c change) {
	if flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		return
	}
	if flag&os.O_CREATE != 0 {
		d.changed(c)
	}
	handle, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	fi, err := handle.Stat()
	if err != nil || d.files[inode(fi)] != nil {
		handle.Close()
		return
	}
	d.files[inode(fi)] = &unsyncedFile{handle: handle, synced: fi.Size()}
}

func (d *disk) syncFile(f store.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if u := d.files[inode(fi)]; u != nil {
		u.synced = fi.Size()
	}
	return nil
}

// syncDir makes changes durable that concern a directory.
func (d *disk) syncDir(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changes = slices.DeleteFunc(d.changes, func(c change) bool { return slices.Contains(c.dirs, path.Clean(name)) })
}

func (d *disk) unsynced() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.changes)
}

// lose takes back what is not durable, the newest first.
func (d *disk) lose(keep int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for len(d.changes) > keep {
		last := len(d.changes) - 1
		for _, undo := range slices.Backward(d.changes[last].undo) {
			errs = append(errs, undo())
		}
		d.changes = d.changes[:last]
	}
	for _, u := range d.files {
		fi, err := u.handle.Stat()
		if err == nil && fi.Size() > u.synced {
			err = u.handle.Truncate(u.synced)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (d *disk) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range d.files {
		u.handle.Close()
	}
	clear(d.files)
}

func inode(fi fs.FileInfo) uint64 {
	return fi.Sys().(*syscall.Stat_t).Ino
}
