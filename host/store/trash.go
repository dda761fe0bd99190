package store

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Trashed is a file that left the cache and is still to be unlinked.
type Trashed struct {
	Name string // in .imgcache/trash
	ID   string
	Size int64 // bytes
}

// Trash takes an image out of the cache: its file moves to trash, which costs
// a rename whatever its size. The error wraps fs.ErrNotExist when there is no
// such image.
func (s *Store) Trash(id string) (Trashed, error) {
	info, err := s.Stat(id)
	if err != nil {
		return Trashed{}, err
	}
	t := Trashed{Name: id + "~" + nonce(8), ID: id, Size: info.Size}
	if err := s.fs.Rename("trash.rename", id, dirTrash+"/"+t.Name); err != nil {
		return Trashed{}, fmt.Errorf("move %q to trash: %w", id, err)
	}
	s.dropTable(id)
	return t, nil
}

// linkToTrash gives the present image of id a second name in trash, so that
// renaming over it does not have to free its bytes. It returns nil when there
// is none.
func (s *Store) linkToTrash(id string) (*Trashed, error) {
	fi, err := s.fs.Lstat("commit.stat", id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is in the way and no regular file", id)
	}
	t := &Trashed{Name: id + "~" + nonce(8), ID: id, Size: fi.Size()}
	return t, s.fs.Link("commit.link", id, dirTrash+"/"+t.Name)
}

func (s *Store) dropTrash(t *Trashed) {
	if t != nil {
		_ = s.fs.Remove("commit.undo", dirTrash+"/"+t.Name)
	}
}

func (s *Store) dropTable(id string) {
	if err := s.fs.Remove("table.remove", dirBlocks+"/"+id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("remove block table", "image", id, "error", err)
	}
}

// Reclaim unlinks a file in trash, which takes a quarter of a second for each
// GiB. A file that is gone is no error.
func (s *Store) Reclaim(t Trashed) error {
	if err := s.fs.Remove("reclaim", dirTrash+"/"+t.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Trashed returns what is in trash.
func (s *Store) Trashed() ([]Trashed, error) {
	var list []Trashed
	err := s.each("trash.list", dirTrash, func(fi fs.FileInfo) {
		id, _, _ := strings.Cut(fi.Name(), "~")
		list = append(list, Trashed{Name: fi.Name(), ID: id, Size: fi.Size()})
	})
	return list, err
}

// Quarantine moves an image to invalid/, in place of an older one, and
// returns its size. The error wraps fs.ErrNotExist when there is no such
// image.
func (s *Store) Quarantine(id string) (int64, error) {
	info, err := s.Stat(id)
	if err != nil {
		return 0, err
	}
	if err := s.fs.Rename("quarantine.rename", id, dirInvalid+"/"+id); err != nil {
		return 0, fmt.Errorf("move %q to %s: %w", id, dirInvalid, err)
	}
	s.dropTable(id)
	return info.Size, nil
}
