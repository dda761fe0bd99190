package evict

import (
	"log/slog"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/history"
	"github.com/imgcache/imgcache-host/host/cache/internal/index"
)

// may returns a function that reports whether an image may leave. It is called
// under the index's mutex.
func (e *Evictor) may(r Rule, now time.Time) func(*index.Image, index.Use) bool {
	return func(im *index.Image, u index.Use) bool {
		return (r.InUse || u.Readers == 0) && now.Sub(u.Admitted) >= r.MinAge && !e.pins.Holds(im.ID, now)
	}
}

// candidates returns the images that may leave, in no order.
func (e *Evictor) candidates(r Rule) *candidates {
	list := &candidates{}
	list.images, list.records = e.index.Candidates(e.may(r, e.now()))
	return list
}

// MakeRoom evicts images until n more bytes will fit into the cache, and short
// more bytes will be free on the file system. It does not wait for their files
// to be unlinked. The purpose is logged for each image. MakeRoom reports whether
// there will be room.
func (e *Evictor) MakeRoom(n, short int64, purpose string) bool {
	victims, enough := e.pick(n, short)
	gone := 0
	for _, v := range victims {
		if e.evict(v, purpose, nil) == nil {
			gone++
		}
	}
	return enough && (gone > 0 || len(victims) == 0)
}

// pick takes victims for n more bytes out of the index: those of the standing
// list first, then the least recently used images. From now on their bytes count
// as being freed, so that two fills do not both evict for the same shortage.
func (e *Evictor) pick(n, short int64) (victims []Victim, enough bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	total, pending := e.pool.State()
	short -= pending
	if e.hard {
		short = max(short, total-pending+n-e.max)
	}
	if short <= 0 {
		return nil, true
	}
	r := Rule{MinAge: e.minAge}
	take := func(v Victim, since time.Time) {
		if e.takeOut(v.Image, r, since) {
			victims = append(victims, v)
			short -= v.Image.Size
		}
	}
	for short > 0 && len(e.standing) > 0 {
		v := e.standing[0]
		e.standing = e.standing[1:]
		take(v, e.asOf)
	}
	select {
	case e.used <- struct{}{}:
	default:
	}
	if short > 0 {
		for im := range e.candidates(r).byAccess() {
			if short <= 0 {
				break
			}
			take(Victim{im, "least recently used; the standing list was empty"}, time.Time{})
		}
	}
	return victims, short <= 0 || pending > 0 || len(victims) > 0
}

// Evictable returns how many bytes could leave, or are leaving.
func (e *Evictor) Evictable() int64 {
	_, n := e.pool.State()
	for _, im := range e.candidates(Rule{MinAge: e.minAge}).images {
		n += im.Size
	}
	return n
}

// takeOut takes an image out of the index if it may leave and was not accessed
// after since, when advice was given on it. Zero: accesses do not matter.
func (e *Evictor) takeOut(im *index.Image, r Rule, since time.Time) bool {
	now := e.now()
	may := e.may(r, now)
	left := e.index.Evict(im, now, func(im *index.Image, u index.Use) bool {
		return may(im, u) && (since.IsZero() || !u.Accessed.After(since))
	})
	if left {
		e.pool.BeginFreeing(im.Size)
	}
	return left
}

// evict moves the file of an image that was taken out of the index to trash. The
// bytes return to the pool when it is unlinked; done is called then. After an
// error the image is in the cache again, but has lost its hits.
func (e *Evictor) evict(v Victim, purpose string, done func()) error {
	if err := e.Discard(v.Image, done); err != nil {
		return err
	}
	e.history.Happened(slog.LevelInfo, v.Image.ID, history.Evicted, v.Why+", "+purpose, "bytes", v.Image.Size)
	return nil
}
