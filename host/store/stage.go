package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Staged is an image on its way in: a file in incomplete/ with one writer and
// any number of readers. After Commit, Keep or Remove it is still readable;
// Release ends that.
type Staged struct {
	s    *Store
	id   string
	name string // in incomplete/
	file File

	size int64    // bytes written; the writer's own
	sums []uint32 // CRC32C of the whole blocks, and of the last one as far as it goes

	once sync.Once // the name leaves incomplete/ once
}

// Stage begins an image. The file is new: no other writer shares it.
func (s *Store) Stage(id string) (*Staged, error) {
	if !ValidID(id) {
		return nil, fmt.Errorf("%w: %.40q", ErrBadID, id)
	}
	st := &Staged{s: s, id: id, name: id + "~" + nonce(8)}
	s.own(st.name, true)
	f, err := s.fs.OpenFile("stage", dirIncomplete+"/"+st.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		s.own(st.name, false)
		return nil, fmt.Errorf("stage %q: %w", id, err)
	}
	st.file = f
	return st, nil
}

func (s *Store) own(name string, owned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if owned {
		s.owned[name] = true
	} else {
		delete(s.owned, name)
	}
}

func (s *Store) owns(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned[name]
}

// Preallocate asks the file system for size bytes. It is a hint: the file's
// size does not change, and failure shows when the bytes are written.
func (st *Staged) Preallocate(size int64) {
	if f, ok := st.file.(*os.File); ok {
		_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	}
}

// Write appends p. After an error nothing more can be written, and the bytes
// before p stay readable.
func (st *Staged) Write(p []byte) (int, error) {
	n, err := st.file.Write(p)
	if err != nil {
		return n, fmt.Errorf("write staged file: %w", err)
	}
	for rest := p; len(rest) > 0; {
		within := st.size % BlockSize
		if within == 0 {
			st.sums = append(st.sums, 0)
		}
		part := rest[:min(int64(len(rest)), BlockSize-within)]
		last := &st.sums[len(st.sums)-1]
		*last = crc32.Update(*last, castagnoli, part)
		st.size += int64(len(part))
		rest = rest[len(part):]
	}
	return n, nil
}

// Size returns the number of bytes written. It is for the writer.
func (st *Staged) Size() int64 { return st.size }

// ReadAt reads what was written. Readers must know how far that is.
func (st *Staged) ReadAt(p []byte, off int64) (int, error) { return st.file.ReadAt(p, off) }

// Commit makes the file the image of its id, in place of an older one, which
// is in trash afterwards and returned. The caller has checked the bytes.
//
// The order is what makes it safe: the data are synced, once, before a name
// says that they are there; the block table, which names the inode, is
// renamed before the file, so that a crash between the two leaves a partial
// file that Recover knows to be whole; the directories are synced last. After
// an error the image is what it was, and the staged file is gone, except that
// an error of the last step leaves the image in place, perhaps not durably.
func (st *Staged) Commit(m Meta) (info Info, replaced *Trashed, err error) {
	defer func() {
		if err != nil {
			_ = st.Remove()
		}
	}()
	if err := st.file.Sync(); err != nil {
		return Info{}, nil, fmt.Errorf("sync data: %w", err)
	}
	fi, err := st.file.Stat()
	if err != nil {
		return Info{}, nil, fmt.Errorf("stat staged file: %w", err)
	}
	if fi.Size() != st.size {
		return Info{}, nil, fmt.Errorf("%w: the staged file has %d bytes, %d were written", ErrCorrupt, fi.Size(), st.size)
	}
	if replaced, err = st.s.linkToTrash(st.id); err != nil {
		return Info{}, nil, fmt.Errorf("set the older image aside: %w", err)
	}
	if err := st.s.replaceFile("commit.table", dirBlocks+"/"+st.id, newTable(fi, m, st.sums).encode()); err != nil {
		st.s.dropTrash(replaced)
		return Info{}, nil, fmt.Errorf("write block table: %w", err)
	}
	if err := st.publish(); err != nil {
		st.s.dropTrash(replaced)
		return Info{}, nil, err
	}
	return Info{ID: st.id, Size: st.size, ModTime: fi.ModTime(), Meta: m, Verified: true}, replaced, nil
}

// publish gives the staged file its image's name.
func (st *Staged) publish() (err error) {
	err = fmt.Errorf("rename staged file: %w", fs.ErrNotExist)
	st.once.Do(func() {
		err = st.s.fs.Rename("commit.rename", dirIncomplete+"/"+st.name, st.id)
		if err != nil {
			err = fmt.Errorf("rename staged file: %w", err)
			_ = st.s.fs.Remove("commit.undo", dirIncomplete+"/"+st.name)
		}
		st.s.own(st.name, false)
	})
	if err != nil {
		return err
	}
	// From here on the image is there; what fails now costs durability or a
	// leftover, not correctness.
	for _, dir := range []string{".", dirIncomplete} {
		if err := st.s.fs.SyncDir("commit.syncdir", dir); err != nil {
			st.s.log.Warn("an image may be lost in a power failure", "image", st.id, "error", err)
		}
	}
	for _, name := range []string{dirQueue + "/" + st.id, dirIncomplete + "/" + st.id} {
		if err := st.s.fs.Remove("commit.tidy", name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			st.s.log.Warn("remove what a commit makes void", "file", name, "error", err)
		}
	}
	return nil
}

// Keep moves the file to invalid/ for inspection, in place of an older one.
func (st *Staged) Keep() (err error) {
	st.once.Do(func() {
		err = st.s.fs.Rename("keep.rename", dirIncomplete+"/"+st.name, dirInvalid+"/"+st.id)
		if err != nil {
			_ = st.s.fs.Remove("keep.undo", dirIncomplete+"/"+st.name)
		}
		st.s.own(st.name, false)
	})
	return err
}

// Remove takes the file's name away. Nothing happens when it has left
// incomplete/ already.
func (st *Staged) Remove() (err error) {
	st.once.Do(func() {
		err = st.s.fs.Remove("stage.remove", dirIncomplete+"/"+st.name)
		st.s.own(st.name, false)
	})
	return err
}

// Release closes the file. It must be called last, once.
func (st *Staged) Release() error { return st.file.Close() }
