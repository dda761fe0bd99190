package index

import (
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

// Requests tells whoever watches the cache of each request for an image, in one
// order: a hit when it begins, and what had to be fetched when it is clear
// whether the image is stored. No two have the same time.
//
// What is no request is not told: HEAD, prefetches and written images. Nor is
// one that the origin could not serve, or of an image that was not stored and
// whose size nobody knew.
type Requests struct {
	watch func(trace.Access) // nil: nobody watches

	mu   sync.Mutex
	last int64 // the time of the newest
}

// NewRequests returns requests of which watch, if not nil, is told. It is called
// under mutexes and must not wait.
func NewRequests(watch func(trace.Access)) *Requests { return &Requests{watch: watch} }

// Report tells of one request.
func (r *Requests) Report(key sdk.Key, size int64, outcome trace.Outcome, now time.Time) {
	if r.watch == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = max(now.UnixNano(), r.last+1)
	r.watch(trace.Access{At: r.last, Key: key, Size: uint64(size), Outcome: outcome})
}
