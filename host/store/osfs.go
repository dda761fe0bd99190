package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	fileMode fs.FileMode = 0o640 // the service's group may read, others may not
	dirMode  fs.FileMode = 0o750
)

// osFS is the FS of a real directory. It never leaves the directory: names go
// through os.Root, and a symbolic link is an error.
type osFS struct {
	root *os.Root
	dir  string
}

// OpenFS returns the real file system below dir, which is created if it is
// absent.
func OpenFS(dir string) (FS, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &osFS{root, dir}, nil
}

func (o *osFS) OpenFile(_, name string, flag int, perm fs.FileMode) (File, error) {
	// Without O_NONBLOCK the opening of a planted FIFO would wait for ever.
	f, err := o.root.OpenFile(name, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, perm)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// errNotRegular is fs.ErrNotExist to callers: what is no regular file is no
// image.
var errNotRegular = fmt.Errorf("not a regular file: %w", fs.ErrNotExist)

func (o *osFS) Mkdir(_, name string, perm fs.FileMode) error {
	err := o.root.Mkdir(name, perm)
	if errors.Is(err, fs.ErrExist) {
		if info, err := o.root.Lstat(name); err == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

func (o *osFS) Rename(_, oldname, newname string) error { return o.root.Rename(oldname, newname) }
func (o *osFS) Link(_, oldname, newname string) error   { return o.root.Link(oldname, newname) }
func (o *osFS) Remove(_, name string) error             { return o.root.Remove(name) }
func (o *osFS) Lstat(_, name string) (fs.FileInfo, error) {
	return o.root.Lstat(name)
}

func (o *osFS) ReadDir(_, name string) ([]fs.DirEntry, error) {
	d, err := o.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(-1)
}

func (o *osFS) Chtimes(_, name string, mtime time.Time) error {
	return o.root.Chtimes(name, mtime, mtime)
}

func (o *osFS) SyncDir(_, name string) error {
	d, err := o.root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (o *osFS) Free(string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(o.dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}
