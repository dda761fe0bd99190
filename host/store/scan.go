package store

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// Scan calls yield for every complete image, in no order. An error of yield
// ends the scan and is returned.
func (s *Store) Scan(yield func(Info) error) error {
	entries, err := s.fs.ReadDir("scan", ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !ValidID(e.Name()) {
			continue
		}
		info, err := s.Stat(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // it left meanwhile
		}
		if err != nil {
			return err
		}
		if err := yield(info); err != nil {
			return err
		}
	}
	return nil
}

// Partial is a file in incomplete/ or invalid/.
type Partial struct {
	Name    string
	ID      string
	Size    int64 // bytes
	ModTime time.Time
	Foreign bool // incomplete/: not a name that we give
	Owned   bool // incomplete/: this process writes it
}

// Incomplete returns the partial files, and Invalid the kept ones. Directories
// and the like are left out.
func (s *Store) Incomplete() ([]Partial, error) { return s.partials(dirIncomplete) }

// Invalid returns the files in invalid/.
func (s *Store) Invalid() ([]Partial, error) { return s.partials(dirInvalid) }

func (s *Store) partials(dir string) ([]Partial, error) {
	var list []Partial
	err := s.each(dir+".list", dir, func(fi fs.FileInfo) {
		id, _, ours := strings.Cut(fi.Name(), "~")
		list = append(list, Partial{
			Name: fi.Name(), ID: id, Size: fi.Size(), ModTime: fi.ModTime(),
			Foreign: !ours, Owned: s.owns(fi.Name()),
		})
	})
	return list, err
}

// each calls f for each regular file of a directory. Files that vanish
// meanwhile are skipped.
func (s *Store) each(op, dir string, f func(fs.FileInfo)) error {
	entries, err := s.fs.ReadDir(op, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		fi, err := s.fs.Lstat(op+".stat", dir+"/"+e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if fi.Mode().IsRegular() {
			f(fi)
		}
	}
	return nil
}

// RemoveIncomplete removes a file that Incomplete named. A file that is gone
// is no error; one that this process writes is refused.
func (s *Store) RemoveIncomplete(name string) error {
	if s.owns(name) {
		return fmt.Errorf("%s is being written", name)
	}
	return s.removeIn("clean.incomplete", dirIncomplete, name)
}

// RemoveInvalid removes a file that Invalid named. A file that is gone is no
// error.
func (s *Store) RemoveInvalid(name string) error {
	return s.removeIn("clean.invalid", dirInvalid, name)
}

func (s *Store) removeIn(op, dir, name string) error {
	if strings.ContainsRune(name, '/') {
		return fmt.Errorf("%w: %.40q", ErrBadID, name)
	}
	if err := s.fs.Remove(op, dir+"/"+name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// HasForeign reports whether somebody else left a partial file of the id.
func (s *Store) HasForeign(id string) bool {
	if !ValidID(id) {
		return false
	}
	_, err := s.fs.Lstat("foreign", dirIncomplete+"/"+id)
	return err == nil
}

// Recovered says what Recover found.
type Recovered struct {
	Completed int   // images whose commit was completed
	Removed   int   // partial files that were removed
	Bytes     int64 // of these
}

// Recover deals with the partial files of an earlier run. One that a block
// table names exactly was whole and lacked only its last rename, which is
// made up for; the others are removed. Foreign files are left alone.
func (s *Store) Recover() (Recovered, error) {
	var r Recovered
	partial, err := s.Incomplete()
	if err != nil {
		return r, err
	}
	for _, p := range partial {
		if p.Foreign || p.Owned {
			continue
		}
		done, err := s.rollForward(p)
		switch {
		case err != nil:
			return r, fmt.Errorf("complete %s: %w", p.Name, err)
		case done:
			r.Completed++
		default:
			if err := s.RemoveIncomplete(p.Name); err != nil {
				return r, fmt.Errorf("remove %s: %w", p.Name, err)
			}
			r.Removed++
			r.Bytes += p.Size
		}
	}
	return r, nil
}

func (s *Store) rollForward(p Partial) (bool, error) {
	if !ValidID(p.ID) {
		return false, nil
	}
	t, err := s.readTable(p.ID)
	if err != nil {
		return false, nil // no commit had come so far
	}
	name := dirIncomplete + "/" + p.Name
	fi, err := s.fs.Lstat("recover.stat", name)
	if err != nil || !t.describes(fi) {
		return false, err
	}
	if err := s.fs.Rename("recover.rename", name, p.ID); err != nil {
		return false, err
	}
	return true, s.fs.SyncDir("recover.syncdir", ".")
}
