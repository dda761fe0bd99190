package index

import (
	"math/bits"
	"sync"

	"github.com/imgcache/imgcache-host/sdk"
)

// Events holds the events that a stateful policy has not seen yet, in the order
// of the index. If the policy falls too far behind, Events drops them all, and the
// policy is built again from the index.
type Events struct {
	mu      sync.Mutex
	keep    bool // there is a stateful policy
	list    []sdk.Event
	lost    bool // events were dropped since the last Take
	changed bool // something happened since the last Take

	// position is a sum over the images and their hits that identifies the state
	// of the cache. It does not depend on the order of events: a run that finds
	// exactly what an earlier run left begins at the position of that run's end.
	position uint64
	loaded   uint64      // the part of position that was found at the start
	live     []sdk.Event // what else happened since the start, until finishStart
	cut      bool        // there were too many events for live, which is empty now
	started  bool        // finishStart was called, or is not needed
}

// NewEvents returns the events of an index. Only a stateful policy needs them. A
// scoring policy does not wait for the records, so for it the start is over at
// once.
func NewEvents(stateful, scoring bool) *Events {
	return &Events{keep: stateful, started: scoring, changed: true}
}

// moment says whether something is older than this run of the service or new.
type moment bool

const (
	atStart    moment = false // it was found at the start, or in the driver's records
	sinceStart moment = true  // it happens now
)

// add appends an event. Successive accesses of one image become one event.
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

// appendEvent adds an event to a list and reports whether there was room for it.
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

// weigh adds the weight of images and hits to the position. For those that leave,
// the weight is negated.
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

// finishStart ends the start. list holds what happened since the start, and whole
// says that this is complete; loaded is the position of what was found. first is
// true for the first call only.
func (e *Events) finishStart() (list []sdk.Event, loaded uint64, whole, first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started {
		return nil, 0, false, false
	}
	list, e.live, e.started = e.live, nil, true
	e.list, e.lost = nil, false // these events are in live
	return list, e.loaded, !e.cut, true
}

// StartFinished reports whether [Index.FinishStart] has ended the start, or the
// policy does not need that.
func (e *Events) StartFinished() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.started
}

// Stir says that something other than an event made earlier advice out of date.
func (e *Events) Stir() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changed = true
}

// Restart says whether the new policy needs events. If the policy before needed
// none, they count as lost.
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

// Take returns the events since the last call, whether events were lost, and the
// position that they lead to.
func (e *Events) Take() (list []sdk.Event, lost bool, position uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list, lost = e.list, e.lost
	e.list, e.lost, e.changed = nil, false, false
	return list, lost, e.position
}

// removed returns the keys of images that left since the last Take.
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

// Pending reports whether anything happened since the last Take.
func (e *Events) Pending() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}
