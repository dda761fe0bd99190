package simulate

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/imgcache/imgcache-host/host/trace"
)

// Policy makes instances of a policy for a simulation.
type Policy struct {
	Name string
	// Open returns a new sdk.Scorer or sdk.Stateful, and a function that
	// closes it.
	Open func(context.Context) (policy any, end func(), err error)
}

// Belady is the name under which results of Belady's rule appear.
const Belady = "belady"

// Result is how a policy did on the trace with one size of the cache.
type Result struct {
	Policy string `json:"policy"`
	Size   uint64 `json:"size"` // of the cache, in bytes
	Stats
	MissRatio     float64 `json:"miss_ratio"`
	ByteMissRatio float64 `json:"byte_miss_ratio"`
}

// Run replays the trace through each policy with each size, and through
// Belady's rule, and returns the results by policy, as they were given, and
// size. As many run at once as there are processors. Requests with equal times
// keep their order: each comes a nanosecond after the one before. After each
// request done is called, by several goroutines; it may be nil.
func Run(ctx context.Context, requests []trace.Access, policies []Policy, sizes []uint64, done func()) ([]Result, error) {
	if done == nil {
		done = func() {}
	}
	requests = inOrder(requests)
	next := nextRequests(requests)
	results := make([]Result, (len(policies)+1)*len(sizes))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range results {
		at, size := i/len(sizes), sizes[i%len(sizes)]
		group.Go(func() (err error) {
			if at == len(policies) {
				results[i], err = runBelady(ctx, requests, next, size, done)
				return err
			}
			results[i], err = runPolicy(ctx, requests, policies[at], size, done)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return results, nil
}

// inOrder returns the trace with strictly rising times.
func inOrder(requests []trace.Access) []trace.Access {
	requests = slices.Clone(requests)
	for i := 1; i < len(requests); i++ {
		requests[i].At = max(requests[i].At, requests[i-1].At+1)
	}
	return requests
}

func runPolicy(ctx context.Context, requests []trace.Access, p Policy, size uint64, done func()) (Result, error) {
	policy, end, err := p.Open(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("open policy %s: %w", p.Name, err)
	}
	defer end()
	c, err := NewCache(policy, size)
	if err != nil {
		return Result{}, fmt.Errorf("open policy %s: %w", p.Name, err)
	}
	if err := replay(ctx, c, requests, func(int) { done() }); err != nil {
		return Result{}, fmt.Errorf("policy %s: %w", p.Name, err)
	}
	return result(p.Name, size, c), nil
}

func runBelady(ctx context.Context, requests []trace.Access, next []int, size uint64, done func()) (Result, error) {
	at := 0 // the request that is made
	c := newBelady(size, func() int { return next[at] })
	err := replay(ctx, c, requests, func(i int) {
		at = i + 1
		done()
	})
	return result(Belady, size, c), err
}

func result(name string, size uint64, c *Cache) Result {
	s := c.Stats()
	return Result{Policy: name, Size: size, Stats: s, MissRatio: s.MissRatio(), ByteMissRatio: s.ByteMissRatio()}
}

// replay makes the requests of a trace. It calls after with the index of each
// request when that was made.
func replay(ctx context.Context, c *Cache, requests []trace.Access, after func(int)) error {
	for i, a := range requests {
		if _, err := c.Access(ctx, a.Key, a.Size, a.At); err != nil {
			return fmt.Errorf("request %d: %w", i+1, err)
		}
		after(i)
		if i%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}
