package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Enqueue puts a marker for the image at the end of the queue. It returns
// false when there is one already. The marker is not synced: a loss of power
// may cost the newest entries. It is empty, as Glance's are, unless there is a
// note, which [Store.QueueNote] returns.
func (s *Store) Enqueue(id, note string) (bool, error) {
	if err := checkID(id); err != nil {
		return false, err
	}
	name := join(queueDir, id)
	added, err := s.mark(name, note)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil // somebody removed it again at once
	case err != nil && added:
		err = errors.Join(err, s.remove("enqueue.undo", name))
		fallthrough
	case err != nil:
		return false, fmt.Errorf("make queue entry: %w", err)
	}
	return added, nil
}

// mark creates a marker with its time, unless there is one already. After an
// error, added says that a marker was created but does not have the right time.
func (s *Store) mark(name, note string) (added bool, err error) {
	s.queueing.Lock()
	defer s.queueing.Unlock()
	if err := s.readNewest(); err != nil {
		return false, err
	}
	f, err := s.fs.OpenFile("enqueue", name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, filePerm)
	if isExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if note != "" {
		_, err = f.Write([]byte(note))
	}
	return true, errors.Join(err, f.Close(), s.stamp(name))
}

// QueueNote returns the note of a queued image, or "" when there is none or it
// cannot be read.
func (s *Store) QueueNote(id string) string {
	if !sdk.ValidID(id) {
		return ""
	}
	f, err := s.fs.OpenFile("queue.note", join(queueDir, id), os.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	note, err := io.ReadAll(io.LimitReader(f, maxMeta))
	if err != nil {
		return ""
	}
	return string(note)
}

// readNewest looks once at what earlier runs and other programs queued.
func (s *Store) readNewest() error {
	if !s.newest.IsZero() {
		return nil
	}
	newest := time.Unix(0, 0)
	err := s.files("queue", queueDir, func(fi fs.FileInfo) error {
		if fi.ModTime().After(newest) {
			newest = fi.ModTime()
		}
		return nil
	})
	if err == nil {
		s.newest = newest
	}
	return err
}

// stamp gives a marker a later time than every other marker: the clock may stand
// still between two calls, or be behind that of an earlier run. A file system
// with coarse times, of up to two seconds, gets a larger step.
func (s *Store) stamp(name string) error {
	for _, step := range []time.Duration{time.Nanosecond, time.Millisecond, 2 * time.Second} {
		t := s.newest.Add(step)
		if now := s.now(); now.After(t) {
			t = now
		}
		if err := s.fs.Chtimes("enqueue.chtimes", name, t); err != nil {
			return err
		}
		fi, err := s.fs.Lstat("enqueue.lstat", name)
		if err != nil {
			return err
		}
		if fi.ModTime().After(s.newest) {
			s.newest = fi.ModTime()
			return nil
		}
	}
	return fmt.Errorf("the time of %s cannot be set later than %v", name, s.newest)
}

// Queue lists the queued ids in the order in which they were queued.
func (s *Store) Queue() ([]string, error) {
	markers, err := s.markers()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(markers, func(a, b fs.FileInfo) int {
		if c := a.ModTime().Compare(b.ModTime()); c != 0 {
			return c
		}
		return strings.Compare(a.Name(), b.Name())
	})
	ids := make([]string, len(markers))
	for i, m := range markers {
		ids[i] = m.Name()
	}
	return ids, nil
}

func (s *Store) markers() ([]fs.FileInfo, error) {
	var markers []fs.FileInfo
	err := s.files("queue", queueDir, func(fi fs.FileInfo) error {
		if sdk.ValidID(fi.Name()) {
			markers = append(markers, fi)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list queue: %w", err)
	}
	return markers, nil
}

// Queued reports whether the image is in the queue.
func (s *Store) Queued(id string) bool {
	if !sdk.ValidID(id) {
		return false
	}
	_, err := s.lstat("queued", join(queueDir, id))
	return err == nil
}

// Dequeue removes an image from the queue. An absent image is not an error.
func (s *Store) Dequeue(id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	if err := s.remove("dequeue", join(queueDir, id)); err != nil {
		return fmt.Errorf("remove queue entry: %w", err)
	}
	return nil
}

// DequeueAll empties the queue and returns how many entries it removed.
func (s *Store) DequeueAll() (int, error) {
	markers, err := s.markers()
	if err != nil {
		return 0, err
	}
	for n, m := range markers {
		if err := s.Dequeue(m.Name()); err != nil {
			return n, err
		}
	}
	return len(markers), nil
}
