package store

import (
	"errors"
	"fmt"
	"io/fs"
)

// ErrTaken says that somebody else took a file away while it was written. It is
// no sign of a bad disk.
var ErrTaken = errors.New("somebody else took the file away while it was written")

// Commit makes the file the image, in place of an older one of the same id,
// which is moved to trash and returned. The caller has verified size and
// digest. After an error there is no new image, and an older one is as it
// was; the file can still be kept or removed. The error wraps [ErrTaken] when the
// file has lost its name.
//
// A crash leaves the old image or the new one, whichever step it hits:
//
//  1. The bytes are synced, and that is not repeated: after a failed sync the
//     kernel may have dropped them, and a second sync succeeds all the same.
//  2. The block table is written under a name of its own and synced. From
//     here on the commit is decided, and [Store.Recover] completes it.
//  3. The old file gets a second name in trash, so that the rename that
//     replaces it does not pay for the unlink, a quarter of a second per GiB.
//  4. One rename makes the file the image.
//  5. The base directory is synced. If that fails, the commit has succeeded all
//     the same: the new image stays until a loss of power, after which there may
//     be the old one or none.
func (st *Staged) Commit(m Meta) (Info, *Trashed, error) {
	s := st.s
	fi, err := st.sync()
	if err != nil {
		return Info{}, nil, err
	}
	t := &blockTable{identity: identify(fi), meta: m, sums: st.sums.all()}
	if err := s.writeTable(st.id, t); err != nil {
		s.dropTable("commit.undo", st.id, t.inode)
		return Info{}, nil, err
	}
	old, err := s.publish(st.name, st.id)
	if err != nil {
		s.dropTable("commit.undo", st.id, t.inode)
		return Info{}, nil, err
	}
	st.disown()
	st.forget()
	s.settle(st.id, old)
	return makeInfo(st.id, fi, t), old, nil
}

// sync makes the bytes durable and returns what the block table must match.
func (st *Staged) sync() (fs.FileInfo, error) {
	size := st.Size()
	if st.allocated.Load() > size {
		if err := st.file.Truncate(size); err != nil { // frees blocks that were not used
			return nil, fmt.Errorf("truncate staged file: %w", err)
		}
	}
	if err := st.file.Sync(); err != nil {
		return nil, fmt.Errorf("sync staged file: %w", err)
	}
	fi, err := st.file.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat staged file: %w", err)
	}
	if fi.Size() != size {
		return nil, fmt.Errorf("the staged file has %d bytes, but %d were written: another process writes to it", fi.Size(), size)
	}
	return fi, nil
}

// publish renames a file in incomplete/ to the image id and returns the file
// that it replaced, which is now in trash.
func (s *Store) publish(name, id string) (*Trashed, error) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	old, back, err := s.displace(id)
	if err != nil {
		return nil, fmt.Errorf("move replaced image to trash: %w", err)
	}
	if err := s.fs.Rename("commit.rename", join(incompleteDir, name), id); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrTaken, err)
		}
		return nil, errors.Join(fmt.Errorf("rename staged file: %w", err), back())
	}
	return old, nil
}

// displace gives the image id, if it exists, a second name in trash. On a file
// system without links the file is renamed instead, and for a moment there is no
// image. The returned function undoes it.
func (s *Store) displace(id string) (old *Trashed, back func() error, err error) {
	back = func() error { return nil }
	fi, err := s.lstat("commit.lstat", id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, back, nil // nothing, or something that is not an image: the rename replaces it
	}
	if err != nil {
		return nil, nil, err
	}
	old = &Trashed{Name: trashName(id), ID: id, Size: fi.Size(), inode: inode(fi)}
	linkErr := s.fs.Link("commit.link", id, old.path())
	if linkErr == nil {
		return old, func() error { return s.fs.Remove("commit.unlink", old.path()) }, nil
	}
	if err := s.fs.Rename("commit.displace", id, old.path()); err != nil {
		return nil, nil, errors.Join(linkErr, err)
	}
	return old, func() error { return s.fs.Rename("commit.replace", old.path(), id) }, nil
}

// settle does the remaining work when an image is in place. None of it can fail
// the commit: the next scan, clean or start finds what is left behind.
func (s *Store) settle(id string, old *Trashed) {
	warn := func(step string, err error) {
		if err != nil {
			s.log.Warn(step, "image", id, "error", err)
		}
	}
	warn("sync cache directory", s.fs.SyncDir("commit.syncdir", "."))
	if old != nil {
		s.dropTable("commit.oldtable", id, old.inode)
	}
	warn("remove queue entry", s.remove("commit.dequeue", join(queueDir, id)))
	warn("remove foreign incomplete file", s.remove("commit.foreign", join(incompleteDir, id)))
}
