// Package storetest breaks file systems. [FS] is a store.FS on a real
// directory that fails where a test wants it to, that can lose everything that
// was not synced, and that remembers each call, so that a test finds the
// places to break by running once.
package storetest

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
)

// ErrCrashed is the error of every call after a crash.
var ErrCrashed = errors.New("crashed")

// Call is a call of an FS or of one of its files.
type Call struct {
	Op   string // the label, such as "commit.rename" or "stage.write"
	Name string // of the file; of a rename or link the old one
	Seq  int    // counts all calls since the last Inject, from 1
	Nth  int    // counts those with this label, from 1
}

// A Fault decides whether a call fails, and how. It is called in the order of
// the calls, by one goroutine at a time.
type Fault func(Call) error

// At fails one call by its number.
func At(seq int, err error) Fault {
	return func(c Call) error {
		if c.Seq == seq {
			return err
		}
		return nil
	}
}

// On fails the nth call with a label; 0 means every one.
func On(op string, nth int, err error) Fault {
	return func(c Call) error {
		if c.Op == op && (nth == 0 || c.Nth == nth) {
			return err
		}
		return nil
	}
}

// CrashAt lets no call happen from number seq on.
func CrashAt(seq int) Fault {
	return func(c Call) error {
		if c.Seq >= seq {
			return ErrCrashed
		}
		return nil
	}
}

// FS is a store.FS that breaks. Syncs are not passed on: what they would have
// saved is known, and a test runs faster.
type FS struct {
	inner store.FS
	disk  *disk

	mu    sync.Mutex
	fault Fault
	calls []Call
	nth   map[string]int
	open  map[*file]bool
	locks map[*lock]bool
}

// New returns an FS on a directory. What it keeps open is closed when the
// test ends.
func New(t testing.TB, dir string) *FS {
	t.Helper()
	inner, err := store.OpenFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &FS{inner: inner, disk: newDisk(t, dir), open: map[*file]bool{}, locks: map[*lock]bool{}}
	f.Inject(nil)
	t.Cleanup(f.Kill)
	return f
}

// Inject sets the fault, nil for none, and starts to count and to remember
// calls anew.
func (f *FS) Inject(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.calls, f.nth = fault, nil, map[string]int{}
}

// Calls returns the calls since the last Inject.
func (f *FS) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.calls...)
}

// LeftOpen returns the files that are open, each as the label that it was
// opened with and its name, in order.
func (f *FS) LeftOpen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for file := range f.open {
		names = append(names, file.op+" "+file.name)
	}
	slices.Sort(names)
	return names
}

// Kill ends the process that uses the FS: every call fails, and its files are
// closed, which frees locks. What it did stays.
func (f *FS) Kill() {
	f.Inject(func(Call) error { return ErrCrashed })
	f.mu.Lock()
	defer f.mu.Unlock()
	for file := range f.open {
		file.File.Close()
	}
	clear(f.open)
	for l := range f.locks {
		l.inner.Close()
	}
	clear(f.locks)
	if c, ok := f.inner.(io.Closer); ok {
		c.Close()
	}
	f.disk.release()
}

// Unsynced is the number of changes to names that a loss of power may undo.
func (f *FS) Unsynced() int { return f.disk.unsynced() }

// LosePower kills the process and takes back what was not synced: the bytes
// of files, and changes to names except for the first keep of them. A journal
// that was written in time keeps them all; on some file systems it keeps none.
func (f *FS) LosePower(keep int) error {
	err := f.disk.lose(keep)
	f.Kill()
	return err
}

// call counts a call and returns its fault.
func (f *FS) call(op, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nth[op]++
	c := Call{Op: op, Name: name, Seq: len(f.calls) + 1, Nth: f.nth[op]}
	f.calls = append(f.calls, c)
	if f.fault == nil {
		return nil
	}
	if err := f.fault(c); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// OpenFile implements store.FS.
func (f *FS) OpenFile(op, name string, flag int, perm fs.FileMode) (store.File, error) {
	if err := f.call(op, name); err != nil {
		return nil, err
	}
	undo := f.disk.before(name)
	inner, err := f.inner.OpenFile(op, name, flag, perm)
	if err != nil {
		return nil, err
	}
	f.disk.opened(name, flag, undo)
	file := &file{File: inner, fs: f, op: op, name: name}
	f.mu.Lock()
	f.open[file] = true
	f.mu.Unlock()
	return file, nil
}

// Mkdir implements store.FS. A loss of power leaves directories alone.
func (f *FS) Mkdir(op, name string, perm fs.FileMode) error {
	if err := f.call(op, name); err != nil {
		return err
	}
	return f.inner.Mkdir(op, name, perm)
}

// Rename implements store.FS.
func (f *FS) Rename(op, oldname, newname string) error {
	if err := f.call(op, oldname); err != nil {
		return err
	}
	undo := f.disk.before(oldname, newname)
	err := f.inner.Rename(op, oldname, newname)
	if err == nil {
		f.disk.changed(undo)
	}
	return err
}

// Link implements store.FS.
func (f *FS) Link(op, oldname, newname string) error {
	if err := f.call(op, oldname); err != nil {
		return err
	}
	undo := f.disk.before(newname)
	err := f.inner.Link(op, oldname, newname)
	if err == nil {
		f.disk.changed(undo)
	}
	return err
}

// Remove implements store.FS.
func (f *FS) Remove(op, name string) error {
	if err := f.call(op, name); err != nil {
		return err
	}
	undo := f.disk.before(name)
	err := f.inner.Remove(op, name)
	if err == nil {
		f.disk.changed(undo)
	}
	return err
}

// Lstat implements store.FS.
func (f *FS) Lstat(op, name string) (fs.FileInfo, error) {
	if err := f.call(op, name); err != nil {
		return nil, err
	}
	return f.inner.Lstat(op, name)
}

// ReadDir implements store.FS.
func (f *FS) ReadDir(op, name string) ([]fs.DirEntry, error) {
	if err := f.call(op, name); err != nil {
		return nil, err
	}
	return f.inner.ReadDir(op, name)
}

// Chtimes implements store.FS.
func (f *FS) Chtimes(op, name string, mtime time.Time) error {
	if err := f.call(op, name); err != nil {
		return err
	}
	return f.inner.Chtimes(op, name, mtime)
}

// SyncDir implements store.FS.
func (f *FS) SyncDir(op, name string) error {
	if err := f.call(op, name); err != nil {
		return err
	}
	f.disk.syncDir(name)
	return nil
}

// Free implements store.FS.
func (f *FS) Free(op string) (int64, error) {
	if err := f.call(op, "."); err != nil {
		return 0, err
	}
	return f.inner.Free(op)
}

// Inodes implements store.FS.
func (f *FS) Inodes(op string) (int64, error) {
	if err := f.call(op, "."); err != nil {
		return 0, err
	}
	return f.inner.Inodes(op)
}

// Check implements store.FS.
func (f *FS) Check(op string) error {
	if err := f.call(op, "."); err != nil {
		return err
	}
	return f.inner.Check(op)
}

// Lock implements store.FS.
func (f *FS) Lock(op string) (io.Closer, error) {
	if err := f.call(op, "."); err != nil {
		return nil, err
	}
	inner, err := f.inner.Lock(op)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &lock{fs: f, inner: inner}
	f.locks[l] = true
	return l, nil
}

// lock is the lock of a directory, which Kill gives up.
type lock struct {
	fs    *FS
	inner io.Closer
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	held := l.fs.locks[l]
	delete(l.fs.locks, l)
	l.fs.mu.Unlock()
	if !held {
		return fs.ErrClosed
	}
	return l.inner.Close()
}

// TempFS returns the file system of an empty directory, which is removed when
// the test ends.
func TempFS(t testing.TB) store.FS {
	t.Helper()
	fsys, err := store.OpenFS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}
