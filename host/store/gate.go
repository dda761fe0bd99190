package store

import (
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"
)

// gate is the [FS] of a [Store]. It passes operations on once the directory is
// open; until then every operation fails with the reason.
type gate struct {
	state atomic.Pointer[gateState]
}

// gateState is either an open directory or the reason why it is not open.
type gateState struct {
	fs  FS
	why error
}

func (g *gate) open(fsys FS) { g.state.Store(&gateState{fs: fsys}) }

// shut makes operations fail. Their errors do not wrap the error of the
// directory: an image must not seem absent because the directory is.
func (g *gate) shut(why error) {
	g.state.Store(&gateState{why: fmt.Errorf("%w: %v", ErrNotOpen, why)})
}

// through returns the directory, or why there is none.
func (g *gate) through() (FS, error) {
	s := g.state.Load()
	return s.fs, s.why
}

func (g *gate) OpenFile(op, name string, flag int, perm fs.FileMode) (File, error) {
	fsys, err := g.through()
	if err != nil {
		return nil, err
	}
	return fsys.OpenFile(op, name, flag, perm)
}

func (g *gate) Mkdir(op, name string, perm fs.FileMode) error {
	return g.do(func(f FS) error { return f.Mkdir(op, name, perm) })
}

func (g *gate) Rename(op, oldname, newname string) error {
	return g.do(func(f FS) error { return f.Rename(op, oldname, newname) })
}

func (g *gate) Link(op, oldname, newname string) error {
	return g.do(func(f FS) error { return f.Link(op, oldname, newname) })
}

func (g *gate) Remove(op, name string) error {
	return g.do(func(f FS) error { return f.Remove(op, name) })
}

func (g *gate) Chtimes(op, name string, mtime time.Time) error {
	return g.do(func(f FS) error { return f.Chtimes(op, name, mtime) })
}

func (g *gate) SyncDir(op, name string) error {
	return g.do(func(f FS) error { return f.SyncDir(op, name) })
}

func (g *gate) Lstat(op, name string) (fs.FileInfo, error) {
	fsys, err := g.through()
	if err != nil {
		return nil, err
	}
	return fsys.Lstat(op, name)
}

func (g *gate) ReadDir(op, name string) ([]fs.DirEntry, error) {
	fsys, err := g.through()
	if err != nil {
		return nil, err
	}
	return fsys.ReadDir(op, name)
}

func (g *gate) Free(op string) (int64, error) {
	fsys, err := g.through()
	if err != nil {
		return 0, err
	}
	return fsys.Free(op)
}

// do is through for operations that answer with an error alone.
func (g *gate) do(f func(FS) error) error {
	fsys, err := g.through()
	if err != nil {
		return err
	}
	return f(fsys)
}
