package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotRegular says that a name does not belong to a regular file. For this
// package nothing else exists, so it wraps fs.ErrNotExist.
var ErrNotRegular = fmt.Errorf("not a regular file: %w", fs.ErrNotExist)

// OpenFS returns the real operations on dir, which is made if it does not
// exist. Dir may be a symbolic link; from there on no name leads out of it, and no
// file is opened through a link. The result is also an io.Closer.
func OpenFS(dir string) (FS, error) {
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		return nil, explainLink(dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	top, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &osFS{path: dir, root: root, top: top}, nil
}

// explainLink says what is wrong with a directory that could not be made because
// a link of its name leads nowhere, of which the kernel only says that it exists.
func explainLink(dir string, err error) error {
	target, lerr := os.Readlink(dir)
	if lerr != nil || !isExist(err) {
		return err
	}
	return fmt.Errorf("%s is a symbolic link to %s, which is no directory: make that directory, or remove the link", dir, target)
}

type osFS struct {
	path string // as it was given
	root *os.Root
	top  *os.File // the directory of root

	// noOpenat2 says that the kernel, or a filter in front of it, does not
	// offer openat2.
	noOpenat2 atomic.Bool
}

func (o *osFS) Close() error { return errors.Join(o.top.Close(), o.root.Close()) }

// OpenFile opens regular files only, and does not wait for the other end of a
// FIFO.
func (o *osFS) OpenFile(_, name string, flag int, perm fs.FileMode) (File, error) {
	flag |= unix.O_NONBLOCK
	f, err := o.openat2(name, flag, perm)
	if errors.Is(err, errors.ErrUnsupported) {
		f, err = o.openInRoot(name, flag, perm)
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return osFile{f}, nil
}

// openat2 opens a file without following links or leaving the directory. It
// needs one system call, where [os.Root] needs one for each step of the path and
// cannot refuse links. The error is errors.ErrUnsupported where the kernel does
// not offer it.
func (o *osFS) openat2(name string, flag int, perm fs.FileMode) (*os.File, error) {
	if o.noOpenat2.Load() {
		return nil, errors.ErrUnsupported
	}
	how := unix.OpenHow{
		Flags:   uint64(flag | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	if flag&os.O_CREATE != 0 {
		how.Mode = uint64(perm.Perm())
	}
	var fd int
	err := control(o.top, func(top int) (err error) {
		fd, err = unix.Openat2(top, name, &how)
		return err
	})
	switch err {
	case nil:
		return os.NewFile(uintptr(fd), name), nil
	case unix.ENOSYS, unix.EPERM: // the latter is the answer of old filters
		o.noOpenat2.Store(true)
		return nil, errors.ErrUnsupported
	case unix.ELOOP, unix.EXDEV, unix.ENXIO, unix.EISDIR: // a link, a way out, a FIFO or socket, a directory
		err = ErrNotRegular
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: err}
}

// openInRoot replaces openat2 where there is none. [os.Root] follows links that
// stay inside, so it looks at the name too.
func (o *osFS) openInRoot(name string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := o.root.OpenFile(name, flag, perm)
	if flag&os.O_EXCL != 0 {
		return f, err // made by this call, or not opened
	}
	fi, lerr := o.root.Lstat(name)
	switch {
	case lerr == nil && !fi.Mode().IsRegular():
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	case err == nil:
		err = lerr
	}
	if err != nil {
		f.Close() // does no harm to nil
		return nil, err
	}
	return f, nil
}

func (o *osFS) Mkdir(_, name string, perm fs.FileMode) error {
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

func (o *osFS) Rename(_, oldname, newname string) error { return o.root.Rename(oldname, newname) }
func (o *osFS) Link(_, oldname, newname string) error   { return o.root.Link(oldname, newname) }
func (o *osFS) Remove(_, name string) error             { return o.root.Remove(name) }

func (o *osFS) Lstat(_, name string) (fs.FileInfo, error) { return o.root.Lstat(name) }

// ReadDir reads only names. An entry looks at its file when it is asked: the
// store looks at each file itself anyway.
func (o *osFS) ReadDir(_, name string) ([]fs.DirEntry, error) {
	d, err := o.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	entries := make([]fs.DirEntry, len(names))
	for i, n := range names {
		entries[i] = entry{o.root, name, n}
	}
	return entries, nil
}

// entry is a name in a directory.
type entry struct {
	root      *os.Root
	dir, name string
}

func (e entry) Name() string               { return e.name }
func (e entry) IsDir() bool                { return e.Type().IsDir() }
func (e entry) Info() (fs.FileInfo, error) { return e.root.Lstat(join(e.dir, e.name)) }

func (e entry) Type() fs.FileMode {
	fi, err := e.Info()
	if err != nil {
		return fs.ModeIrregular
	}
	return fi.Mode().Type()
}

func (o *osFS) Chtimes(_, name string, mtime time.Time) error {
	return o.root.Chtimes(name, time.Time{}, mtime)
}

func (o *osFS) SyncDir(_, name string) error {
	d, err := o.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (o *osFS) Free(string) (int64, error) {
	var st unix.Statfs_t
	if err := control(o.top, func(fd int) error { return unix.Fstatfs(fd, &st) }); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	return int64(st.Bavail) * st.Frsize, nil
}

func (o *osFS) Inodes(string) (int64, error) {
	var st unix.Statfs_t
	if err := control(o.top, func(fd int) error { return unix.Fstatfs(fd, &st) }); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	if st.Files == 0 { // as btrfs has it
		return -1, nil
	}
	return int64(st.Ffree), nil
}

// Lock opens the directory once more: the lock belongs to what was opened, and
// must end before the other uses of the directory do.
func (o *osFS) Lock(string) (io.Closer, error) {
	d, err := o.root.Open(".")
	if err != nil {
		return nil, err
	}
	err = osFile{d}.Lock()
	// A file server that has locks for files that are open for writing alone
	// says EBADF.
	for _, no := range []error{unix.EBADF, unix.ENOLCK, unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL} {
		if errors.Is(err, no) {
			err = fmt.Errorf("%w: %v", errors.ErrUnsupported, err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (o *osFS) Check(string) error {
	here, err := o.top.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(o.path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && !os.SameFile(here, there):
		return ErrElsewhere
	case err != nil:
		return err
	}
	// No trial, which would wake the disk of an idle machine each time.
	return os.NewSyscallError("access", control(o.top, func(fd int) error {
		return unix.Faccessat(fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}))
}

// osFile is a [File] that can also do what only some file systems can.
type osFile struct{ *os.File }

var (
	_ allocator = osFile{}
	_ puncher   = osFile{}
	_ forgetter = osFile{}
	_ locker    = osFile{}
)

// Allocate reserves blocks for n bytes from off on and leaves the size of the file
// as it is.
func (f osFile) Allocate(off, n int64) error {
	return os.NewSyscallError("fallocate", control(f.File, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n)
	}))
}

// Punch gives the blocks of n bytes from off on back.
func (f osFile) Punch(off, n int64) error {
	return os.NewSyscallError("fallocate", control(f.File, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}))
}

// Forget lets the page cache drop n bytes from off on.
func (f osFile) Forget(off, n int64) error {
	return os.NewSyscallError("fadvise", control(f.File, func(fd int) error {
		return unix.Fadvise(fd, off, n, unix.FADV_DONTNEED)
	}))
}

// Lock takes an exclusive lock, which ends with the process at the latest.
func (f osFile) Lock() error {
	return os.NewSyscallError("flock", control(f.File, func(fd int) error {
		return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	}))
}

// control makes a system call on a descriptor, again while it is interrupted.
func control(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		for {
			if err = call(int(fd)); err != unix.EINTR {
				return
			}
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}

// inode returns the number that, with size and modification time, tells one
// file from another.
func inode(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
