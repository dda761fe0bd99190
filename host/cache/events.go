package cache

import (
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
}

// add appends an event; accesses that follow one another are folded.
func (e *events) add(ev sdk.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changed = true
	if !e.keep || e.lost {
		return
	}
	if n := len(e.list); n > 0 && ev.Kind == sdk.EventAccessed {
		if last := &e.list[n-1]; last.Kind == ev.Kind && last.Key == ev.Key {
			last.Count += ev.Count
			last.At = ev.At
			return
		}
	}
	if len(e.list) == sdk.MaxBatch {
		e.list, e.lost = nil, true
		return
	}
	e.list = append(e.list, ev)
}

// stir says that something happened that is no event: advice that was given
// before is out of date.
func (e *events) stir() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changed = true
}

// restart begins the history of another policy, which is to be built from the
// index; keep says whether it wants one.
func (e *events) restart(keep bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keep, e.list, e.lost, e.changed = keep, nil, true, true
}

// take returns what was added since the last call, whether the policy has to
// be rebuilt instead, and whether anything happened at all.
func (e *events) take() (list []sdk.Event, lost, changed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list, lost, changed = e.list, e.lost, e.changed
	e.list, e.lost, e.changed = nil, false, false
	return list, lost, changed
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
