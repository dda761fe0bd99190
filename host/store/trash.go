package store

import (
	"fmt"
	"io/fs"
	"syscall"
)

// Trashed is an image that left the cache and still takes its space.
type Trashed struct {
	Name string // in trash
	ID   string
	Size int64 // bytes

	inode uint64
}

func (t Trashed) path() string { return join(trashDir, t.Name) }

// trashName is a name that no other file in trash has.
func trashName(id string) string { return id + "~" + randomHex(8) }

// Trash removes an image from the cache by a rename, which is quick; Reclaim
// then frees its space. The error is fs.ErrNotExist when there is no such
// image. The removal is not synced: the image may come back after a loss of
// power.
func (s *Store) Trash(id string) (Trashed, error) {
	if err := checkID(id); err != nil {
		return Trashed{}, err
	}
	t := Trashed{Name: trashName(id), ID: id}
	fi, err := s.withdraw("trash", id, t.path(), func(fs.FileInfo) bool { return true })
	if err != nil {
		return Trashed{}, fmt.Errorf("move image to trash: %w", err)
	}
	t.Size, t.inode = fi.Size(), inode(fi)
	return t, nil
}

// Quarantine moves an image to invalid/<id>, replacing an older file there. It
// moves only the file that info describes, whatever happened to its bytes. The
// error is fs.ErrNotExist when that file is not, or no longer, the image.
func (s *Store) Quarantine(info Info) error {
	if err := checkID(info.ID); err != nil {
		return err
	}
	fi, err := s.lstat("quarantine.lstat", info.ID)
	if err == nil && !info.describes(fi) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("quarantine image: %w", err)
	}
	// Otherwise the rename would unlink the older file while the lock is held.
	if err := s.remove("quarantine.older", join(invalidDir, info.ID)); err != nil {
		return fmt.Errorf("remove older file from %s/: %w", invalidDir, err)
	}
	if _, err := s.withdraw("quarantine", info.ID, join(invalidDir, info.ID), info.describes); err != nil {
		return fmt.Errorf("move image to %s/: %w", invalidDir, err)
	}
	return nil
}

// describes reports whether a file is the one that i describes, even if it was
// changed since.
func (i Info) describes(fi fs.FileInfo) bool { return inode(fi) == i.Inode }

// withdraw renames an image away and drops its table, if it is the file that
// the caller means.
func (s *Store) withdraw(op, id, newname string, meant func(fs.FileInfo) bool) (fs.FileInfo, error) {
	s.publishing.Lock()
	fi, err := s.lstat(op+".lstat", id)
	if err == nil && !meant(fi) {
		err = &fs.PathError{Op: "rename", Path: id, Err: fs.ErrNotExist}
	}
	if err == nil {
		err = s.fs.Rename(op+".rename", id, newname)
	}
	s.publishing.Unlock()
	if err != nil {
		return nil, err
	}
	s.dropTable(op+".table", id, inode(fi))
	return fi, nil
}

// Trashed lists the files in trash, which wait to be unlinked.
func (s *Store) Trashed() ([]Trashed, error) {
	var list []Trashed
	err := s.files("trashed", trashDir, func(fi fs.FileInfo) error {
		if id, _, ok := splitName(fi.Name()); ok {
			list = append(list, Trashed{Name: fi.Name(), ID: id, Size: fi.Size(), inode: inode(fi)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list trash: %w", err)
	}
	return list, nil
}

// Reclaim unlinks a file in trash. An absent file is not an error.
func (s *Store) Reclaim(t Trashed) error {
	if id, _, ok := splitName(t.Name); !ok || id != t.ID {
		return &fs.PathError{Op: "reclaim", Path: t.Name, Err: syscall.EINVAL}
	}
	if err := s.remove("reclaim", t.path()); err != nil {
		return fmt.Errorf("unlink trash: %w", err)
	}
	return nil
}
