package storetest

import (
	"errors"
	"io/fs"

	"github.com/imgcache/imgcache-host/host/store"
)

// file is a file of an FS.
type file struct {
	store.File
	fs       *FS
	op, name string
}

func (f *file) call(method string) error { return f.fs.call(f.op+"."+method, f.name) }

func (f *file) Read(p []byte) (int, error) {
	if err := f.call("read"); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.call("read"); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

// Write that fails has written the first half, as on a disk that fills up.
func (f *file) Write(p []byte) (int, error) {
	if err := f.call("write"); err != nil {
		if errors.Is(err, ErrCrashed) {
			return 0, err
		}
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.call("write"); err != nil {
		if errors.Is(err, ErrCrashed) {
			return 0, err
		}
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f *file) Sync() error {
	if err := f.call("sync"); err != nil {
		return err
	}
	return f.fs.disk.syncFile(f.File)
}

func (f *file) Truncate(size int64) error {
	if err := f.call("truncate"); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *file) Stat() (fs.FileInfo, error) {
	if err := f.call("stat"); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

// Close closes the file even when it fails, as close(2) does.
func (f *file) Close() error {
	err := f.call("close")
	f.fs.mu.Lock()
	wasOpen := f.fs.open[f]
	delete(f.fs.open, f)
	f.fs.mu.Unlock()
	if !wasOpen {
		return fs.ErrClosed
	}
	return errors.Join(err, f.File.Close())
}

// Lock is what the store needs of its lock file.
func (f *file) Lock() error {
	if err := f.call("lock"); err != nil {
		return err
	}
	return f.File.(interface{ Lock() error }).Lock()
}

// Allocate reserves blocks.
func (f *file) Allocate(off, n int64) error {
	if err := f.call("allocate"); err != nil {
		return err
	}
	return f.File.(interface{ Allocate(off, n int64) error }).Allocate(off, n)
}

// Punch gives blocks back.
func (f *file) Punch(off, n int64) error {
	if err := f.call("punch"); err != nil {
		return err
	}
	return f.File.(interface{ Punch(off, n int64) error }).Punch(off, n)
}
