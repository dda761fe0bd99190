package store

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// Staged is a file that is being written and is not an image yet. One goroutine
// at a time writes, commits, keeps and removes; others may call ReadAt and
// Size meanwhile, until Release.
type Staged struct {
	s    *Store
	id   string
	name string // in incomplete/
	file File

	size      atomic.Int64
	allocated atomic.Int64 // bytes for which blocks are reserved
	zerosFrom int64        // all bytes from here to size are known to be zeros

	// extending is held shared while bytes are written, and alone while a hole
	// makes the file longer, so that the file never becomes shorter.
	extending sync.RWMutex
	end       atomic.Int64 // of the file: behind everything that was ever written
	sums      summer
	notes     *checkpoint // nil: a later run cannot continue the file
}

// Stage begins a file that may become the image id. Its name is unique, so
// that two writers of one image never share a file.
func (s *Store) Stage(id string) (*Staged, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	st := &Staged{s: s, id: id, name: id + "~" + randomHex(8)}
	s.mu.Lock() // before the file exists, so that it never looks ownerless
	s.staged[st.name] = st
	s.mu.Unlock()
	f, err := s.fs.OpenFile("stage", st.path(), os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		st.disown()
		return nil, fmt.Errorf("make staged file: %w", err)
	}
	st.file = f
	return st, nil
}

func (st *Staged) path() string { return join(incompleteDir, st.name) }

// disown notes that the file of this name in incomplete/ is no longer ours.
func (st *Staged) disown() {
	st.s.mu.Lock()
	delete(st.s.staged, st.name)
	st.s.mu.Unlock()
}

func (s *Store) owned(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.staged[name] != nil
}

// ID is the image that the file may become.
func (st *Staged) ID() string { return st.id }

// Size is the number of bytes written so far, all of which ReadAt can read.
func (st *Staged) Size() int64 { return st.size.Load() }

// Write appends p. Pieces of it that are all zeros become holes, which take no
// room where the file system supports them. After an error n bytes are part of the
// file, and the caller may write the rest or give up.
func (st *Staged) Write(p []byte) (n int, err error) {
	n, st.zerosFrom, err = st.put(p, st.size.Load(), st.zerosFrom)
	if n > 0 {
		st.sums.write(p[:n])
		st.size.Add(int64(n))
		st.note()
	}
	if err != nil {
		return n, fmt.Errorf("write staged file: %w", err)
	}
	return n, nil
}

// WriteAt writes p at an offset that Size has not reached. It belongs to the file
// when Absorb gets there.
func (st *Staged) WriteAt(p []byte, off int64) (int, error) {
	n, _, err := st.put(p, off, off)
	if err != nil {
		return n, fmt.Errorf("write staged file: %w", err)
	}
	return n, nil
}

// Absorb appends the next bytes, which WriteAt has put there, as if they had been
// written now, and reads them into p, as many as it has room for.
func (st *Staged) Absorb(p []byte) (n int, err error) {
	n, err = st.file.ReadAt(p, st.size.Load())
	if n > 0 {
		st.sums.write(p[:n])
		st.zerosFrom = st.size.Add(int64(n))
		st.note()
	}
	if err != nil && n < len(p) {
		return n, fmt.Errorf("read staged file: %w", err)
	}
	return n, nil
}

// ReadAt reads what was written.
func (st *Staged) ReadAt(p []byte, off int64) (int, error) { return st.file.ReadAt(p, off) }

// Preallocate reserves disk blocks for a file of size bytes, so that the file
// is stored in one piece; the blocks of holes are given back. Nothing happens on a
// file system that cannot do it or is full; a later write reports that. It may be
// called again with a larger size.
func (st *Staged) Preallocate(size int64) {
	a, ok := st.file.(allocator)
	from := max(st.allocated.Load(), st.end.Load()) // what was written may have holes
	if !ok || size <= from {
		return
	}
	if err := a.Allocate(from, size-from); err != nil {
		st.s.log.Debug("preallocate", "image", st.id, "bytes", size, "error", err)
		return
	}
	st.allocated.Store(size)
}

// Allocated is the number of bytes that are known to have disk blocks, written
// or not.
func (st *Staged) Allocated() int64 { return st.allocated.Load() }

// Keep moves the file to invalid/<id> for inspection, replacing an older one.
func (st *Staged) Keep() error {
	if err := st.s.fs.Rename("keep.rename", st.path(), join(invalidDir, st.id)); err != nil {
		return fmt.Errorf("move staged file to %s/: %w", invalidDir, err)
	}
	st.disown()
	st.forget()
	return nil
}

// Remove unlinks the file. The bytes stay on disk until Release. A file that
// was unlinked before is not an error.
func (st *Staged) Remove() error {
	if !st.s.owned(st.name) {
		return nil
	}
	if err := st.s.remove("remove", st.path()); err != nil {
		return fmt.Errorf("remove staged file: %w", err)
	}
	st.disown()
	st.forget()
	return nil
}

// Release closes the file. A file that was not committed, kept or removed has
// no owner from now on; if it has a checkpoint, [Store.Resume] can continue it.
func (st *Staged) Release() error {
	st.disown()
	st.notes.close()
	err := st.file.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
