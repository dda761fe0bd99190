package cache

import (
	"math/bits"
	"sync"

	"github.com/imgcache/imgcache-host/sdk"
)

// events is the history that a stateful policy has still to see, in the
// index's order. It forgets everything when the policy falls too far behind:
// the policy is then rebuilt from the index.
type events struct {
	mu      sync.Mutex
	keep    bool // there is a stateful policy
	list    []sdk.Event
	lost    bool
	changed bool // something happened since the last look

	// position is a sum over the images and their hits that another state of
	// the cache does not have. Whatever the order of events was, a run that
	// begins with what another has left begins at its position.
	position uint64
	loaded   uint64      // the part of position that was found at the start
	live     []sdk.Event // what happened since the start besides, until finishStart
	cut      bool        // live lacks what came later
	started  bool
}

// newEvents returns the events of an index. A stateful policy wants a history;
// a scoring one has none to wait for, so that for it the start is over.
func newEvents(stateful, scoring bool) *events {
	return &events{keep: stateful, started: scoring, changed: true}
}

// moment says when something happened.
type moment bool

const (
	atStart    moment = false // it was so when the service started
	sinceStart moment = true  // it happens now
)

// add appends an event; accesses that follow one another are folded.
func (e *events) add(ev sdk.Event, from moment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changed = true
	if from == sinceStart && !e.started && !e.cut {
		if e.cut = !appendEvent(&e.live, ev); e.cut {
			e.live = nil
		}
	}
	if !e.keep || e.lost {
		return
	}
	if e.lost = !appendEvent(&e.list, ev); e.lost {
		e.list = nil
	}
}

// appendEvent reports whether there was room for the event.
func appendEvent(list *[]sdk.Event, ev sdk.Event) bool {
	if n := len(*list); n > 0 && ev.Kind == sdk.EventAccessed {
		if last := &(*list)[n-1]; last.Kind == ev.Kind && last.Key == ev.Key {
			last.Count += ev.Count
			last.At = ev.At
			return true
		}
	}
	if len(*list) == sdk.MaxBatch {
		return false
	}
	*list = append(*list, ev)
	return true
}

// weigh moves the position by images and hits that come or, as a complement,
// go.
func (e *events) weigh(weight uint64, from moment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.position += weight
	if from == atStart {
		e.loaded += weight
	}
}

// weightOf is what an image with these hits adds to the position.
func weightOf(im *image, hits uint64) uint64 {
	size := uint64(im.size) * 0x9e3779b97f4a7c15 // spreads small numbers over all bits
	return uint64(im.key) ^ bits.RotateLeft64(size, 31) + hits*(uint64(im.key)|1)
}

// finishStart ends the start: it returns what happened in it beside what was found,
// whether that is all, and the position of the latter. First is true once.
func (e *events) finishStart() (list []sdk.Event, loaded uint64, whole, first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started {
		return nil, 0, false, false
	}
	list, e.live, e.started = e.live, nil, true
	e.list, e.lost = nil, false // they are in live
	return list, e.loaded, !e.cut, true
}

func (e *events) startFinished() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.started
}

// stir says that something happened that is no event: advice that was given
// before is out of date.
func (e *events) stir() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changed = true
}

// restart says whether the policy wants a history. It begins anew when the one
// before wanted none.
func (e *events) restart(keep bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changed = true
	if !keep || !e.keep {
		e.list, e.lost = nil, true
	}
	e.keep = keep
	if !keep {
		e.live, e.started = nil, true
	}
}

// take returns what was added since the last call, whether some of it was lost,
// and the position of it all.
func (e *events) take() (list []sdk.Event, lost bool, position uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list, lost = e.list, e.lost
	e.list, e.lost, e.changed = nil, false, false
	return list, lost, e.position
}

// removed returns the keys of images that left since the last take.
func (e *events) removed() map[sdk.Key]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	keys := map[sdk.Key]bool{}
	for _, ev := range e.list {
		if ev.Kind == sdk.EventRemoved {
			keys[ev.Key] = true
		}
	}
	return keys
}

// pending reports whether anything happened since the last take.
func (e *events) pending() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}
