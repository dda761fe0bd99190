package cache

import (
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

// absent remembers for a short time which images an origin does not have, or
// refuses to send, so that a client that asks again and again costs the origin
// nothing.
type absent struct {
	mu   sync.Mutex
	byID map[string]refusal
}

// refusal is an origin's answer and how long it is believed.
type refusal struct {
	err   error
	until time.Time
}

// maxAbsent bounds the memory that requests for made-up names can take, to a few
// MiB.
const maxAbsent = 10_000

// add remembers err for id if it is a refusal.
func (a *absent) add(id string, err error, terms origin.Terms, now time.Time) {
	refused := errors.Is(err, origin.ErrNotFound) || errors.Is(err, origin.ErrDenied)
	if !refused || terms.NegativeTTL <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.byID) >= maxAbsent {
		maps.DeleteFunc(a.byID, func(_ string, r refusal) bool { return !now.Before(r.until) })
	}
	if a.byID == nil || len(a.byID) >= maxAbsent {
		a.byID = map[string]refusal{}
	}
	a.byID[id] = refusal{err, now.Add(terms.NegativeTTL)}
}

// err returns the refusal that is remembered for an image, or nil.
func (a *absent) err(id string, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.byID[id]
	if !ok {
		return nil
	}
	if !now.Before(r.until) {
		delete(a.byID, id)
		return nil
	}
	return r.err
}

// forget makes the next request ask the origin.
func (a *absent) forget(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.byID, id)
}
