package store

import (
	"errors"
	"fmt"
	"slices"
)

// ErrUnusable says that the open cache directory is not as it should be, and cannot
// be put in order.
var ErrUnusable = errors.New("the cache directory cannot be used")

// Mended says what was out of order in the cache directory and is not any more.
type Mended struct {
	// Made has what of the layout was gone and was made anew, as after somebody
	// emptied the directory. Files that were there may be gone too.
	Made []string
	// Reopened says that the path of the directory leads to another one than
	// before, which is open now, or that none was open before.
	Reopened bool
}

// Any reports whether anything was out of order.
func (m Mended) Any() bool { return m.Reopened || len(m.Made) > 0 }

// LostTables reports whether the block tables were gone, so that nothing vouches
// any more for the images that are left.
func (m Mended) LostTables() bool { return slices.Contains(m.Made, blocksDir) }

// Mend looks whether the cache directory is as it should be, since others can
// empty, replace or remount it while it is used, and puts it in order: what is
// missing of the layout is made anew, and a directory that has taken the place of
// the one that is open is opened. It tells what was done since it was called last,
// be it by operations that found their directory gone.
//
// The error says what keeps images from being stored. It wraps [ErrNotOpen], or
// [ErrUnusable] when those that are there can still be opened. A store that was closed
// is left alone.
func (s *Store) Mend() (Mended, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.ended {
		return Mended{}, nil
	}
	err := s.mendLocked()
	if s.real == nil {
		s.made = nil // it was another directory
		if err := s.openLocked(); err != nil {
			return Mended{}, fmt.Errorf("%w: %w", ErrNotOpen, err)
		}
		s.log.Warn("the cache directory was opened anew", "dir", s.cfg.Dir)
		return Mended{Reopened: true}, nil
	}
	m := Mended{Made: s.made}
	s.made = nil
	return m, err
}

// mendForUse puts the layout in order for an operation that failed, perhaps
// because its directory was gone. The error says what is wrong with the directory.
func (s *Store) mendForUse() error {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.ended {
		return nil
	}
	if err := s.mendLocked(); err != nil {
		return err
	}
	return s.fs.shutBy() // it may be lost
}

// mendLocked puts the layout of the open directory in order, or gives the
// directory up when it is ours no more. It needs the mutex opening.
func (s *Store) mendLocked() error {
	if s.real == nil {
		return nil
	}
	err := s.real.Check("mend.check")
	if errors.Is(err, ErrElsewhere) {
		s.loseLocked(err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	l := &layout{fs: s.real, log: s.log, upgrades: s.upgrades, locks: s.locks, instance: s.known}
	made, err := l.mend()
	s.locks = l.locks
	if len(made) > 0 {
		s.made = append(s.made, made...)
		s.log.Warn("parts of the cache directory were gone and were made anew", "dir", s.cfg.Dir, "parts", made)
	}
	var locked *LockedError
	if errors.As(err, &locked) {
		// An older program, which looks at the lock file alone, found none.
		s.loseLocked(err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return nil
}

// loseLocked lets every operation fail until the directory is opened again. It
// needs the mutex opening.
func (s *Store) loseLocked(why error) {
	s.log.Warn("the cache directory is lost", "dir", s.cfg.Dir, "error", why)
	s.fs.shut(fmt.Errorf("cache directory %s: %w", s.cfg.Dir, why))
	s.instance.Store(nil)
	if err := s.leaveLocked(); err != nil {
		s.log.Debug("close cache directory", "error", err)
	}
}
