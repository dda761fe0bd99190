package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errNotRegular says that a name is not that of a regular file. Nothing else
// exists for this package.
var errNotRegular = fmt.Errorf("not a regular file: %w", fs.ErrNotExist)

// OpenFS returns the real operations on dir, which is made if it does not
// exist. No name leads out of dir, and no file is opened through a symbolic
// link. The result is also an io.Closer.
func OpenFS(dir string) (FS, error) {
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return osFS{root}, nil
}

type osFS struct{ root *os.Root }

func (o osFS) Close() error { return o.root.Close() }

// OpenFile opens regular files only, and does not wait for the other end of a
// FIFO.
func (o osFS) OpenFile(_, name string, flag int, perm fs.FileMode) (File, error) {
	f, err := o.root.OpenFile(name, flag|syscall.O_NONBLOCK, perm)
	if err == nil && flag&os.O_EXCL != 0 {
		return osFile{f}, nil // made by this call
	}
	if flag&os.O_EXCL == 0 {
		err = o.checkRegular(f, name, err)
	}
	if err != nil {
		f.Close() // nil does no harm
		return nil, err
	}
	return osFile{f}, nil
}

// checkRegular returns errNotRegular in place of openErr when name is not
// that of a regular file. [os.Root] follows links that stay inside, so both
// the name and what was opened are looked at.
func (o osFS) checkRegular(f *os.File, name string, openErr error) error {
	named, err := o.root.Lstat(name)
	if err == nil && openErr == nil {
		var opened fs.FileInfo
		if opened, err = f.Stat(); err == nil && !opened.Mode().IsRegular() {
			named = opened
		}
	}
	switch {
	case err == nil && !named.Mode().IsRegular():
		return &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	case openErr != nil:
		return openErr
	default:
		return err
	}
}

func (o osFS) Mkdir(_, name string, perm fs.FileMode) error {
	err := o.root.Mkdir(name, perm)
	if !isExist(err) {
		return err
	}
	if fi, err := o.root.Lstat(name); err != nil {
		return err
	} else if !fi.IsDir() {
		return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
	}
	return nil
}

func (o osFS) Rename(_, oldname, newname string) error { return o.root.Rename(oldname, newname) }
func (o osFS) Link(_, oldname, newname string) error   { return o.root.Link(oldname, newname) }
func (o osFS) Remove(_, name string) error             { return o.root.Remove(name) }

func (o osFS) Lstat(_, name string) (fs.FileInfo, error) { return o.root.Lstat(name) }

func (o osFS) ReadDir(_, name string) ([]fs.DirEntry, error) {
	d, err := o.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(-1)
}

func (o osFS) Chtimes(_, name string, mtime time.Time) error {
	return o.root.Chtimes(name, time.Time{}, mtime)
}

func (o osFS) SyncDir(_, name string) error {
	d, err := o.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (o osFS) Free(string) (int64, error) {
	d, err := o.root.Open(".")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	conn, err := d.SyscallConn()
	if err != nil {
		return 0, err
	}
	var st unix.Statfs_t
	if cerr := conn.Control(func(fd uintptr) { err = unix.Fstatfs(int(fd), &st) }); cerr != nil {
		return 0, cerr
	}
	return int64(st.Bavail) * st.Frsize, os.NewSyscallError("fstatfs", err)
}

// osFile is a [File] that can also do what only some file systems can.
type osFile struct{ *os.File }

var (
	_ allocator = osFile{}
	_ locker    = osFile{}
)

// Allocate reserves blocks for n bytes and leaves the size of the file as it
// is.
func (f osFile) Allocate(n int64) error {
	return f.control("fallocate", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, n)
	})
}

// Lock takes an exclusive lock, which ends with the process at the latest.
func (f osFile) Lock() error {
	return f.control("flock", func(fd int) error {
		return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	})
}

func (f osFile) control(name string, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := conn.Control(func(fd uintptr) {
		for {
			if err = call(int(fd)); err != unix.EINTR {
				return
			}
		}
	}); cerr != nil {
		return cerr
	}
	if err != nil {
		return &fs.PathError{Op: name, Path: path.Base(f.Name()), Err: err}
	}
	return nil
}

// inode returns the number that, with size and modification time, tells one
// file from another.
func inode(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
