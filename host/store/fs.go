package store

import (
	"errors"
	"io"
	"io/fs"
	"time"
)

// FS has all operations on files in the cache directory. Names are
// slash-separated and relative to the directory; nothing outside can be named.
// The first argument of each method labels the call site, such as
// "commit.rename", so that a test fails exactly one.
type FS interface {
	OpenFile(op, name string, flag int, perm fs.FileMode) (File, error)
	Mkdir(op, name string, perm fs.FileMode) error // an existing directory is not an error
	Rename(op, oldname, newname string) error
	Link(op, oldname, newname string) error
	Remove(op, name string) error
	Lstat(op, name string) (fs.FileInfo, error)
	ReadDir(op, name string) ([]fs.DirEntry, error)
	Chtimes(op, name string, mtime time.Time) error
	SyncDir(op, name string) error // makes renames in the directory durable
	Free(op string) (int64, error) // bytes that an ordinary user can still write

	// Inodes is how many files can still be made; -1: the file system has no
	// such limit.
	Inodes(op string) (int64, error)

	// Lock locks the directory itself against other processes until the result
	// is closed. The error is EWOULDBLOCK when another one has it, and
	// errors.ErrUnsupported where directories cannot be locked.
	Lock(op string) (io.Closer, error)

	// Check says why the directory cannot be used any more: it cannot be
	// written, or, with an error that wraps [ErrElsewhere], the path by which it
	// was opened does not lead to it.
	Check(op string) error
}

// ErrElsewhere says that the path of a directory does not lead to the one that
// is open: it was removed, replaced, or another file system is mounted there.
var ErrElsewhere = errors.New("its path leads to another directory, or to none")

// File is an open file of an [FS]. Its methods fail under the label that it
// was opened with plus ".read", ".write", ".sync", ".stat", ".truncate" or
// ".close".
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
}

// allocator is a [File] that can reserve blocks beyond its size.
type allocator interface {
	Allocate(off, n int64) error
}

// puncher is a [File] of which a part, of whole pages, can give its blocks back
// and reads as zeros from then on.
type puncher interface {
	Punch(off, n int64) error
}

// forgetter is a [File] that can free the memory in which it caches its bytes.
type forgetter interface {
	Forget(off, n int64) error
}

// locker is a [File] that can be locked against other processes. The error is
// EWOULDBLOCK when another one holds the lock.
type locker interface {
	Lock() error
}
