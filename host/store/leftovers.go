package store

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Partial is a file in incomplete/ or invalid/.
type Partial struct {
	Name    string // in its directory
	ID      string // of the image; "" when the name gives none
	Size    int64  // bytes
	ModTime time.Time
	Foreign bool // another program created it
	Owned   bool // a [Staged] of this process writes it
}

// Incomplete lists the files in incomplete/.
func (s *Store) Incomplete() ([]Partial, error) {
	return s.partials("incomplete", incompleteDir, func(p *Partial) {
		id, _, ours := splitName(p.Name)
		if ours {
			p.ID, p.Owned = id, s.owned(p.Name)
		}
		p.Foreign = !ours
	})
}

// Invalid lists the files in invalid/. Foreign files cannot be told apart there.
func (s *Store) Invalid() ([]Partial, error) {
	return s.partials("invalid", invalidDir, func(*Partial) {})
}

// InvalidSize returns the bytes of invalid/<id>; 0 when there is no such file.
func (s *Store) InvalidSize(id string) int64 {
	if !sdk.ValidID(id) {
		return 0
	}
	fi, err := s.lstat("invalid.lstat", join(invalidDir, id))
	if err != nil {
		return 0
	}
	return fi.Size()
}

func (s *Store) partials(op, dir string, classify func(*Partial)) ([]Partial, error) {
	var list []Partial
	err := s.files(op, dir, func(fi fs.FileInfo) error {
		p := Partial{Name: fi.Name(), Size: fi.Size(), ModTime: fi.ModTime()}
		if sdk.ValidID(p.Name) {
			p.ID = p.Name
		}
		classify(&p)
		list = append(list, p)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s/: %w", dir, err)
	}
	return list, nil
}

// HasForeign reports whether another program's incomplete/<id> exists.
func (s *Store) HasForeign(id string) bool {
	if !sdk.ValidID(id) {
		return false
	}
	_, err := s.lstat("foreign", join(incompleteDir, id))
	return err == nil
}

// RemoveIncomplete unlinks a file in incomplete/, unless this process writes
// it. An absent file is not an error.
func (s *Store) RemoveIncomplete(name string) error {
	if s.owned(name) {
		return fmt.Errorf("%s/%s is being written", incompleteDir, name)
	}
	if err := s.removePartial("incomplete.remove", incompleteDir, name); err != nil {
		return err
	}
	if err := s.remove("incomplete.checkpoint", join(fillsDir, name)); err != nil {
		s.log.Debug("could not remove the checkpoint", "file", name, "error", err)
	}
	return nil
}

// RemoveInvalid unlinks a file in invalid/. An absent file is not an error.
func (s *Store) RemoveInvalid(name string) error {
	return s.removePartial("invalid.remove", invalidDir, name)
}

// removePartial takes names as Incomplete and Invalid list them; they need not
// be ids.
func (s *Store) removePartial(op, dir, name string) error {
	if name == "." || strings.Contains(name, "/") || !fs.ValidPath(name) {
		return fmt.Errorf("%w: %q is not the name of a file in %s/", ErrBadID, name, dir)
	}
	if _, err := s.lstat(op+".lstat", join(dir, name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("remove from %s/: %w", dir, err)
	}
	if err := s.remove(op, join(dir, name)); err != nil {
		return fmt.Errorf("remove from %s/: %w", dir, err)
	}
	return nil
}
