package store

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Marker is an entry of the queue.
type Marker struct {
	ID string
	At time.Time // when it was queued; no two that this package makes have the same
}

// CompareMarkers orders markers as they were queued.
func CompareMarkers(a, b Marker) int {
	return cmp.Or(a.At.Compare(b.At), strings.Compare(a.ID, b.ID))
}

// Enqueue puts a marker for the image at the end of the queue and returns it. It
// reports false, and returns the marker that is there, when there is one already.
// A marker that it returns without an error outlives a loss of power. It is empty,
// as Glance's are, unless there is a note, which [Store.QueueNote] returns.
func (s *Store) Enqueue(id, note string) (Marker, bool, error) {
	if err := checkID(id); err != nil {
		return Marker{}, false, err
	}
	s.queueing.Lock()
	defer s.queueing.Unlock()
	name := join(queueDir, id)
	added, err := s.mark(name, note)
	if err != nil && added {
		err = errors.Join(err, s.remove("enqueue.undo", name))
	}
	m := Marker{ID: id, At: s.newest}
	if err == nil && !added {
		m, err = s.marker(id)
	}
	if err != nil {
		return Marker{}, false, fmt.Errorf("make queue entry: %w", err)
	}
	return m, added, nil
}

func (s *Store) marker(id string) (Marker, error) {
	fi, err := s.lstat("queue.stat", join(queueDir, id))
	if err != nil {
		return Marker{}, err
	}
	return Marker{ID: id, At: fi.ModTime()}, nil
}

// mark makes a marker durably, with its time, if there is none. After an error
// added says that there is one which must not stay. The caller holds s.queueing.
func (s *Store) mark(name, note string) (added bool, err error) {
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
	if err == nil {
		err = s.stamp(name)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.fs.SyncDir("enqueue.syncdir", queueDir)
	}
	return true, err
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

// readNewest looks once at what earlier runs and other programs queued. The
// caller holds s.queueing.
func (s *Store) readNewest() error {
	if !s.newest.IsZero() {
		return nil
	}
	markers, err := s.Queue(nil)
	if err != nil {
		return err
	}
	s.newest = time.Unix(0, 0)
	for _, m := range markers {
		if m.At.After(s.newest) {
			s.newest = m.At
		}
	}
	return nil
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

// Queue lists the queue, in no order. It looks at no marker that is known to the
// caller: of such a one it returns the ID alone. Nil: none is known.
func (s *Store) Queue(known func(id string) bool) ([]Marker, error) {
	entries, err := s.fs.ReadDir("queue", queueDir)
	if err != nil {
		return nil, fmt.Errorf("list queue: %w", err)
	}
	var list []Marker
	for _, e := range entries {
		m := Marker{ID: e.Name()}
		if !sdk.ValidID(m.ID) {
			continue
		}
		if known == nil || !known(m.ID) {
			m, err = s.marker(m.ID)
			if errors.Is(err, fs.ErrNotExist) {
				continue // gone meanwhile, or no file
			}
			if err != nil {
				return nil, fmt.Errorf("list queue: %w", err)
			}
		}
		list = append(list, m)
	}
	return list, nil
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
	s.queueing.Lock() // whoever makes it this moment is told that it is there
	defer s.queueing.Unlock()
	if err := s.remove("dequeue", join(queueDir, id)); err != nil {
		return fmt.Errorf("remove queue entry: %w", err)
	}
	return nil
}

// DequeueAll empties the queue and returns how many entries it removed.
func (s *Store) DequeueAll() (int, error) {
	markers, err := s.Queue(nil)
	if err != nil {
		return 0, err
	}
	for n, m := range markers {
		if err := s.Dequeue(m.ID); err != nil {
			return n, err
		}
	}
	return len(markers), nil
}
