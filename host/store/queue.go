package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// Enqueue marks an image as to be fetched. It reports false when it is
// marked already. The marker's time is later than that of every other one,
// because the time is the order.
func (s *Store) Enqueue(id string) (bool, error) {
	if !ValidID(id) {
		return false, fmt.Errorf("%w: %.40q", ErrBadID, id)
	}
	at, err := s.nextMark()
	if err != nil {
		return false, err
	}
	name := dirQueue + "/" + id
	f, err := s.fs.OpenFile("queue", name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := f.Close(); err != nil {
		return false, err
	}
	return true, s.fs.Chtimes("queue.chtimes", name, at)
}

// nextMark returns the time of the next marker: now, or a millisecond after
// the newest one, whichever is later. A millisecond survives every file
// system that is worth keeping images on.
func (s *Store) nextMark() (time.Time, error) {
	s.mu.Lock()
	known := !s.lastMark.IsZero()
	s.mu.Unlock()
	var newest time.Time
	if !known {
		marks, err := s.marks()
		if err != nil {
			return time.Time{}, err
		}
		if len(marks) > 0 {
			newest = marks[len(marks)-1].ModTime()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if newest.After(s.lastMark) {
		s.lastMark = newest
	}
	at := s.now().Truncate(time.Millisecond)
	if !at.After(s.lastMark) {
		at = s.lastMark.Truncate(time.Millisecond).Add(time.Millisecond)
	}
	s.lastMark = at
	return at, nil
}

// marks returns the markers in the order of queueing.
func (s *Store) marks() ([]fs.FileInfo, error) {
	var list []fs.FileInfo
	err := s.each("queue.list", dirQueue, func(fi fs.FileInfo) {
		if ValidID(fi.Name()) {
			list = append(list, fi)
		}
	})
	slices.SortFunc(list, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	return list, err
}

// Queue returns the marked ids in the order of queueing.
func (s *Store) Queue() ([]string, error) {
	marks, err := s.marks()
	ids := make([]string, len(marks))
	for i, fi := range marks {
		ids[i] = fi.Name()
	}
	return ids, err
}

// Queued reports whether an image is marked.
func (s *Store) Queued(id string) bool {
	if !ValidID(id) {
		return false
	}
	_, err := s.fs.Lstat("queue.stat", dirQueue+"/"+id)
	return err == nil
}

// Dequeue takes a marker away. An absent one is no error.
func (s *Store) Dequeue(id string) error {
	if !ValidID(id) {
		return fmt.Errorf("%w: %.40q", ErrBadID, id)
	}
	return s.removeIn("queue.remove", dirQueue, id)
}

// DequeueAll takes all markers away and returns how many there were.
func (s *Store) DequeueAll() (int, error) {
	ids, err := s.Queue()
	if err != nil {
		return 0, err
	}
	for n, id := range ids {
		if err := s.Dequeue(id); err != nil {
			return n, err
		}
	}
	return len(ids), nil
}
