package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// RecoverReport says what an earlier run left behind.
type RecoverReport struct {
	Committed    []string // images whose commit was completed
	Removed      int      // partial files that were removed
	RemovedBytes int64
	Unfinished   []Unfinished // partial files with a checkpoint, left for Resume
	Foreign      int          // files of other programs in incomplete/, left alone
	Trash        int          // files in trash, left for Reclaim
}

// Recover brings the directory into order after a crash. A partial file of
// ours that has no owner becomes an image when its commit had been decided,
// that is when a block table names exactly this file; it stays when it has a
// checkpoint; otherwise it is removed. Files of other programs stay. Recover goes on after an error, and
// can be called again at any time.
func (s *Store) Recover() (RecoverReport, error) {
	var r RecoverReport
	var errs []error
	// Second names first: once a commit is completed, they look like trash.
	errs = append(errs, s.dropSecondNames())
	partials, err := s.Incomplete()
	errs = append(errs, err)
	for _, p := range partials {
		switch {
		case p.Foreign:
			r.Foreign++
		case !p.Owned:
			if err := s.recoverPartial(p, &r); err != nil {
				errs = append(errs, fmt.Errorf("recover %s/%s: %w", incompleteDir, p.Name, err))
			}
		}
	}
	errs = append(errs, s.dropCheckpoints())
	trash, err := s.Trashed()
	r.Trash = len(trash)
	return r, errors.Join(append(errs, err)...)
}

func (s *Store) recoverPartial(p Partial, r *RecoverReport) error {
	name := join(incompleteDir, p.Name)
	fi, err := s.lstat("recover.lstat", name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	t := s.peekTable(p.ID, fi)
	decided := t != nil && t.identity == identify(fi)
	if decided {
		decided, err = s.supersedes(fi, p.ID)
	}
	if err != nil {
		return err
	}
	if decided {
		old, err := s.publish(p.Name, p.ID)
		if err != nil {
			return err
		}
		s.settle(p.ID, old)
		r.Committed = append(r.Committed, p.ID)
		return nil
	}
	if u, ok := s.unfinished(p); ok {
		r.Unfinished = append(r.Unfinished, u)
		return nil
	}
	if err := s.remove("recover.remove", name); err != nil {
		return err
	}
	r.Removed++
	r.RemovedBytes += fi.Size()
	return nil
}

// supersedes reports whether a partial file with a table may replace the
// image id. It may not when it is that image already, under a second name
// that a loss of power brought back, nor when the image is newer: then the
// table is left over from a commit that failed.
func (s *Store) supersedes(fi fs.FileInfo, id string) (bool, error) {
	image, err := s.lstat("recover.image", id)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return !os.SameFile(fi, image) && !image.ModTime().After(fi.ModTime()), nil
}

// dropSecondNames removes files from trash that are still images, because the
// commit that was to replace them did not come to its rename.
func (s *Store) dropSecondNames() error {
	trash, err := s.Trashed()
	errs := []error{err}
	for _, t := range trash {
		if err := s.dropSecondName(t); err != nil {
			errs = append(errs, fmt.Errorf("unlink second name in trash: %w", err))
		}
	}
	return errors.Join(errs...)
}

// dropSecondName looks and unlinks under the lock, so that no commit is just
// between its link and its rename. To unlink one of two names is quick.
func (s *Store) dropSecondName(t Trashed) error {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	image, err := s.lstat("recover.image", t.ID)
	if err != nil || inode(image) != t.inode {
		return nil // or cannot be told: to reclaim it is right as well
	}
	return s.remove("recover.unlink", t.path())
}
