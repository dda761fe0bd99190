package index

import (
	"math/bits"
	"sync"

	"github.com/imgcache/imgcache-host/sdk"
)

// Events is the history that a stateful policy has still to see, in the
// index's order. It forgets everything when the policy falls too far behind:
// the policy is then rebuilt from the index.
type Events struct {
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

// NewEvents returns the events of an index. A stateful policy wants a history;
// a scoring one has none to wait for, so that for it the start is over.
func NewEvents(stateful, scoring bool) *Events {
	return &Events{keep: stateful, started: scoring, changed: true}
}

// moment says when something happened.
type moment bool

const (
	atStart    moment = false // it was so when the service started
	sinceStart moment = true  // it happens now
)

// add appends an event; accesses that follow one another are folded.
func (e *Events) add(ev sdk.Event, from moment) {
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
func (e *Events) weigh(weight uint64, from moment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.position += weight
	if from == atStart {
		e.loaded += weight
	}
}

// weightOf is what an image with these hits adds to the position.
func weightOf(im *Image, hits uint64) uint64 {
	size := uint64(im.Size) * 0x9e3779b97f4a7c15 // spreads small numbers over all bits
	return uint64(im.Key) ^ bits.RotateLeft64(size, 31) + hits*(uint64(im.Key)|1)
}

// finishStart ends the start: it returns what happened in it beside what was found,
// whether that is all, and the position of the latter. First is true once.
func (e *Events) finishStart() (list []sdk.Event, loaded uint64, whole, first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started {
		return nil, 0, false, false
	}
	list, e.live, e.started = e.live, nil, true
	e.list, e.lost = nil, false // they are in live
	return list, e.loaded, !e.cut, true
}

// StartFinished reports whether FinishStart was called, or nobody waits for it.
func (e *Events) StartFinished() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.started
}

// Stir says that something happened that is no event: advice that was given
// before is out of date.
func (e *Events) Stir() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changed = true
}

// Restart says whether the policy wants a history. It begins anew when the one
// before wanted none.
func (e *Events) Restart(keep bool) {
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

// Take returns what was added since the last call, whether some of it was lost,
// and the position of it all.
func (e *Events) Take() (list []sdk.Event, lost bool, position uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list, lost = e.list, e.lost
	e.list, e.lost, e.changed = nil, false, false
	return list, lost, e.position
}

// removed returns the keys of images that left since the last take.
func (e *Events) removed() map[sdk.Key]bool {
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

// Pending reports whether anything happened since the last take.
func (e *Events) Pending() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}
