package index

import (
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

// Requests reports each request for an image to a function, in one order: a hit
// when it begins, and a miss when it is clear whether the image is stored. No two
// requests have the same time.
//
// HEAD requests, prefetches and written images are not reported, nor are requests
// that the origin could not serve, or for images of unknown size that were not
// stored.
type Requests struct {
	watch func(trace.Access) // nil: nobody watches

	mu   sync.Mutex
	last int64 // the time of the newest request
}

// NewRequests returns requests that are reported to watch, if that is not nil. It
// is called under mutexes and must not wait.
func NewRequests(watch func(trace.Access)) *Requests { return &Requests{watch: watch} }

// Report reports one request.
func (r *Requests) Report(key sdk.Key, size int64, outcome trace.Outcome, now time.Time) {
	if r.watch == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = max(now.UnixNano(), r.last+1)
	r.watch(trace.Access{At: r.last, Key: key, Size: uint64(size), Outcome: outcome})
}
