// Package shadow tries eviction policies beside the one that the cache follows.
//
// Each policy runs a cache without bytes on the requests of the service, in a
// goroutine of its own behind a bounded queue: whatever it does, nobody waits for
// it. The active policy runs such a cache too. Compare these caches only with
// each other: the real cache also has images that were prefetched or written,
// pins, a minimum age, readers, and the images that it held at the start.
package shadow

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/trace"
)

// Policy is a policy that is tried.
type Policy struct {
	Name   string // of its block
	Plugin string
	Active bool // the cache follows it
	// Open returns the sdk.Scorer or sdk.Stateful that runs now, nil while none
	// does, and how often it was started: a restarted policy has seen nothing.
	Open func() (policy any, start uint64)
}

// Config is what a [Set] works with.
type Config struct {
	Capacity uint64 // bytes of each cache
	Policies []Policy
	Log      *slog.Logger
}

// Set is the policies that are tried, together with the active one.
type Set struct {
	runners []*runner
	stop    context.CancelFunc
	work    sync.WaitGroup

	mu   sync.Mutex
	real Figures
}

// New starts the policies.
func New(cfg Config) *Set {
	ctx, stop := context.WithCancel(context.Background())
	s := &Set{stop: stop, real: Figures{Since: time.Now()}}
	for _, p := range cfg.Policies {
		r := &runner{
			policy: p, capacity: cfg.Capacity, log: cfg.Log.With("policy", p.Name, "plugin", p.Plugin),
			evicted: marks{}, status: Status{Name: p.Name, Plugin: p.Plugin, Active: p.Active, State: stateWaiting},
		}
		s.runners = append(s.runners, r)
		s.work.Go(func() { r.run(ctx) })
	}
	return s
}

// Add tells all policies of a request. It does not wait.
func (s *Set) Add(a trace.Access) {
	s.mu.Lock()
	s.real.count(a.Size, a.Outcome == trace.Hit)
	s.mu.Unlock()
	for _, r := range s.runners {
		r.queue.Add(a)
	}
}

// Close stops all policies.
func (s *Set) Close() error {
	s.stop()
	s.work.Wait()
	return nil
}

var errRestarted = errors.New("the policy was restarted")
