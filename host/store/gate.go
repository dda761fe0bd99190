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
)

// gate is the [FS] of a [Store]: the directory's own once that is open. Until
// then every operation fails with the reason. When one that makes something fails,
// the layout is put in order; it is tried once more if its directory was gone, and
// says what is wrong with the directory if that is it.
type gate struct {
	state atomic.Pointer[gateState]
}

// gateState is a directory, or why there is none.
type gateState struct {
	fs   FS
	mend func() error // puts the layout in order, or says why it cannot be
	why  error
}

func (g *gate) open(fsys FS, mend func() error) { g.state.Store(&gateState{fs: fsys, mend: mend}) }

// shut makes operations fail. Their errors do not wrap the error of the
// directory: an image must not seem absent because the directory is.
func (g *gate) shut(why error) {
	g.state.Store(&gateState{why: fmt.Errorf("%w: %v", ErrNotOpen, why)})
}

// shutBy returns why operations fail; nil: the directory is open.
func (g *gate) shutBy() error { return g.state.Load().why }

// gone reports whether an error may mean that a directory of the layout is gone.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNotRegular)
}

// making is do for operations that make something.
func (g *gate) making(f func(FS) error) error {
	s := g.state.Load()
	if s.why != nil {
		return s.why
	}
	err := f(s.fs)
	if err == nil || isExist(err) {
		return err
	}
	if bad := s.mend(); bad != nil {
		return fmt.Errorf("%w: %v", bad, err)
	}
	if gone(err) {
		err = f(s.fs)
	}
	if errors.Is(err, syscall.ENOSPC) {
		// Who sees free bytes would not believe it.
		if n, ierr := s.fs.Inodes("gate.inodes"); ierr == nil && n == 0 {
			err = fmt.Errorf("the file system has no inode left for another file: delete files, or make it anew with more inodes: %w", err)
		}
	}
	return err
}

func (g *gate) OpenFile(op, name string, flag int, perm fs.FileMode) (file File, err error) {
	do := g.do
	if flag&os.O_CREATE != 0 {
		do = g.making
	}
	err = do(func(f FS) error {
		file, err = f.OpenFile(op, name, flag, perm)
		return err
	})
	return file, err
}

func (g *gate) Mkdir(op, name string, perm fs.FileMode) error {
	return g.making(func(f FS) error { return f.Mkdir(op, name, perm) })
}

func (g *gate) Rename(op, oldname, newname string) error {
	return g.making(func(f FS) error { return f.Rename(op, oldname, newname) })
}

func (g *gate) Link(op, oldname, newname string) error {
	return g.making(func(f FS) error { return f.Link(op, oldname, newname) })
}

func (g *gate) Remove(op, name string) error {
	return g.do(func(f FS) error { return f.Remove(op, name) })
}

func (g *gate) Chtimes(op, name string, mtime time.Time) error {
	return g.do(func(f FS) error { return f.Chtimes(op, name, mtime) })
}

func (g *gate) SyncDir(op, name string) error {
	return g.making(func(f FS) error { return f.SyncDir(op, name) })
}

func (g *gate) Lstat(op, name string) (fi fs.FileInfo, err error) {
	err = g.do(func(f FS) error {
		fi, err = f.Lstat(op, name)
		return err
	})
	return fi, err
}

// ReadDir is asked for the directories of the layout alone, which are to be
// there.
func (g *gate) ReadDir(op, name string) (entries []fs.DirEntry, err error) {
	err = g.making(func(f FS) error {
		entries, err = f.ReadDir(op, name)
		return err
	})
	return entries, err
}

func (g *gate) Free(op string) (n int64, err error) {
	err = g.do(func(f FS) error {
		n, err = f.Free(op)
		return err
	})
	return n, err
}

func (g *gate) Inodes(op string) (n int64, err error) {
	err = g.do(func(f FS) error {
		n, err = f.Inodes(op)
		return err
	})
	return n, err
}

func (g *gate) Lock(op string) (l io.Closer, err error) {
	err = g.do(func(f FS) error {
		l, err = f.Lock(op)
		return err
	})
	return l, err
}

func (g *gate) Check(op string) error {
	return g.do(func(f FS) error { return f.Check(op) })
}

// do is an operation on the directory, if there is one.
func (g *gate) do(f func(FS) error) error {
	s := g.state.Load()
	if s.why != nil {
		return s.why
	}
	return f(s.fs)
}
