package shadow

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/simulate"
	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// lookEvery is how often a policy that does not run is looked for.
	lookEvery = 100 * time.Millisecond
	// firstPause and maxPause bound the pause after a failure, which doubles
	// each time: a policy that always fails costs next to nothing.
	firstPause = time.Second
	maxPause   = time.Minute
)

// runner runs the cache of one policy, and a new cache after each failure.
type runner struct {
	policy   Policy
	capacity uint64
	log      *slog.Logger
	queue    trace.Queue

	// mu guards the fields below. It is never held during a call to the policy.
	mu      sync.Mutex
	status  Status
	evicted marks
}

// run starts one cache after the other until the context ends.
func (r *runner) run(ctx context.Context) {
	pause := firstPause
	for again := false; ; again = true {
		policy, start, err := r.await(ctx)
		if err != nil {
			return
		}
		if again {
			r.skip()
		}
		err = r.follow(ctx, policy, start)
		if ctx.Err() != nil {
			return
		}
		if r.failed(err) > maxPause {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, maxPause)
	}
}

// await returns the policy when it runs. The error is the context's.
func (r *runner) await(ctx context.Context) (policy any, start uint64, err error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if policy, start := r.policy.Open(); policy != nil {
			return policy, start, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
	}
}

// skip drops the requests that came while there was no cache.
func (r *runner) skip() { r.queue.Take(nil) }

// follow passes requests to a new cache until the policy fails or ends.
func (r *runner) follow(ctx context.Context, policy any, start uint64) error {
	c, err := simulate.NewCache(policy, r.capacity)
	if err != nil {
		return err
	}
	c.Evicted = r.evict
	r.begin()
	var spare []trace.Access
	for {
		select {
		case <-r.queue.Ready():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		list, lost := r.queue.Take(spare)
		spare = list
		for _, a := range list {
			if _, now := r.policy.Open(); now != start {
				return errRestarted
			}
			if _, err := c.Access(ctx, a.Key, a.Size, a.At); err != nil {
				return err
			}
			r.publish(c, a.Key)
		}
		r.lose(lost)
	}
}

// begin notes the start of an empty cache.
func (r *runner) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.State, r.status.Lost = stateRunning, 0
	r.status.Figures = Figures{Since: time.Now()}
	clear(r.evicted)
}

// failed notes why the cache ended, and returns how long it ran.
func (r *runner) failed(err error) time.Duration {
	r.mu.Lock()
	r.status.State = stateWaiting
	lived := time.Since(r.status.Since)
	r.status.Restarts++
	r.status.LastError = err.Error()
	n := r.status.Restarts
	r.mu.Unlock()
	r.log.Warn("a shadow policy failed; its figures start again from zero", "restarts", n, "error", err)
	return lived
}

// evict notes that an object was evicted.
func (r *runner) evict(key sdk.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.evicted.add(key)
}

// publish counts the result of a request for an object.
func (r *runner) publish(c *simulate.Cache, key sdk.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := c.Stats()
	f := &r.status.Figures
	f.Requests, f.Hits = s.Requests, s.Requests-s.Misses
	f.RequestedBytes, f.HitBytes = s.Bytes, s.Bytes-s.MissedBytes
	f.Evictions, f.EvictedBytes = s.Evictions, s.EvictedBytes
	f.Images, f.Bytes = c.Len(), c.Used()
	r.status.Foreign, r.status.Helped = s.Foreign, s.Helped
	if c.Has(key) {
		delete(r.evicted, key)
	}
}

// lose notes that the cache missed requests.
func (r *runner) lose(n uint64) {
	r.mu.Lock()
	before := r.status.Lost
	r.status.Lost += n
	r.mu.Unlock()
	if n > 0 && before == 0 {
		r.log.Warn("a shadow policy is too slow; it misses requests, and its figures are no longer exact", "lost", n)
	}
}

// marks is a set of keys, of bounded size.
type marks map[sdk.Key]struct{}

// maxMarks is more images than a node usually has.
const maxMarks = 1 << 17

func (m marks) add(key sdk.Key) {
	if len(m) >= maxMarks {
		for other := range m {
			delete(m, other)
			break
		}
	}
	m[key] = struct{}{}
}
