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

// Recover repairs the directory after a crash. A partial file of ours without
// an owner becomes an image if its commit was decided, that is if a block table
// names exactly this file. It stays if it has a checkpoint; otherwise it is
// removed. Files of other programs stay. Recover continues after an error, and
// can be called again at any time.
func (s *Store) Recover() (RecoverReport, error) {
	var r RecoverReport
	var errs []error
	// Second names come first: after a commit is completed they would look like
	// trash.
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
// image id. It may not when it is the same file, under a second name that came
// back with a loss of power, nor when the image is newer: then the table is left
// over from a commit that failed.
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

// dropSecondNames removes from trash the names of files that are still images:
// the commit that was to replace them ended before its rename.
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

// dropSecondName checks and unlinks under the lock, so that no commit is between
// its link and its rename. Unlinking one of two names is quick.
func (s *Store) dropSecondName(t Trashed) error {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	image, err := s.lstat("recover.image", t.ID)
	if err != nil || inode(image) != t.inode {
		return nil // or it is not known: reclaiming the file is right too
	}
	return s.remove("recover.unlink", t.path())
}
