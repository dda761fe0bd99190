// Package evict decides which images leave, and removes them. It follows the
// advice of a policy, which it validates; without advice the least recently used
// image leaves first. It knows the index and the files, but not the engine.
package evict

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/history"
	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/internal/pins"
	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/store"
)

const (
	// refreshEvery is how often the standing list is brought up to date.
	refreshEvery = time.Second
	// standingShare says how much the standing list holds: an eighth of the
	// bytes of the cache, enough for the fills of a few seconds.
	standingShare = 8
	// standingAge is how old the list of a scoring policy may be: an image that
	// was accessed after the list was made is skipped anyway.
	standingAge = 10 * time.Second
	// adviceTimeout bounds one question to the policy; the supervisor has a
	// deadline of its own for each call.
	adviceTimeout = 30 * time.Second
	// proposals is how often a stateful policy is asked again after it named
	// images that may not leave.
	proposals = 2
)

// Victim is an image that is to leave, and the reason.
type Victim struct {
	Image *index.Image
	Why   string
}

// Evictor decides which images leave. A fill that needs room takes victims from
// the standing list, which a goroutine keeps filled with the policy's advice;
// when the list is empty, it takes the least recently used images. A prune asks
// the policy directly.
type Evictor struct {
	log         *slog.Logger
	index       *index.Index
	pool        *space.Pool
	free        *space.Free
	store       *store.Store
	history     *history.History
	pins        *pins.Pins
	now         func() time.Time
	max         int64 // bytes that images may take
	hard        bool  // max is never exceeded
	minAge      time.Duration
	trash       chan trashed
	stopped     <-chan struct{}
	advisor     *advisor
	advisorFree chan struct{} // holds a token while nobody uses the advisor
	used        chan struct{} // receives when victims were taken from the standing list

	// mu guards what follows. It is not held during I/O or calls of the policy.
	mu       sync.Mutex
	policy   Policy // the newest, which the advisor takes over before its next question
	brought  bool   // the advisor has not yet taken it over
	standing []Victim
	at       time.Time // when the standing list was made
	asOf     time.Time // the list takes account of accesses up to this time
	verdict  string    // who decided last and, if it was the fallback, why
}

// Config is what an evictor works with. All of it is required.
type Config struct {
	Policy  Policy
	Index   *index.Index
	Events  *index.Events // of the index
	Pool    *space.Pool
	Free    *space.Free
	Store   *store.Store
	History *history.History
	Pins    *pins.Pins
	MaxSize int64 // bytes that images may take
	Hard    bool  // MaxSize is never exceeded; else only a prune looks at it
	MinAge  time.Duration
	Now     func() time.Time
	Log     *slog.Logger
	Stopped <-chan struct{} // closed when no new work may begin
}

// New returns an evictor, which does nothing by itself until [Evictor.Run].
func New(cfg Config) *Evictor {
	e := &Evictor{
		log: cfg.Log, index: cfg.Index, pool: cfg.Pool, free: cfg.Free, store: cfg.Store, history: cfg.History, pins: cfg.Pins,
		now: cfg.Now, max: cfg.MaxSize, hard: cfg.Hard, minAge: cfg.MinAge,
		trash: make(chan trashed, 1024), stopped: cfg.Stopped,
		advisor: &advisor{
			policy: cfg.Policy, index: cfg.Index, events: cfg.Events, max: cfg.MaxSize, now: cfg.Now,
			log: cfg.Log, fs: cfg.Store.FS(), path: cfg.Store.PrivateDir() + "/policy-state",
		},
		advisorFree: make(chan struct{}, 1), used: make(chan struct{}, 1),
		policy:  cfg.Policy,
		verdict: "nothing was evicted yet",
	}
	e.advisorFree <- struct{}{}
	return e
}

// Run unlinks files in trash, keeps the standing list and the policy up to
// date, and saves the policy's state regularly, until the context ends.
func (e *Evictor) Run(ctx context.Context) {
	var work sync.WaitGroup
	for _, f := range []func(context.Context){e.reclaim, e.keepStanding, e.keepState} {
		work.Go(func() { f(ctx) })
	}
	work.Wait()
}

// SetPolicy makes p the policy from the next question on.
func (e *Evictor) SetPolicy(p Policy) {
	e.mu.Lock()
	e.policy, e.brought = p, true
	e.mu.Unlock()
	e.events().Restart(p.Stateful != nil)
	select {
	case e.used <- struct{}{}:
	default:
	}
}

// newest returns the policy that the next question goes to.
func (e *Evictor) newest() Policy {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.policy
}

// takeOver gives the advisor a policy that was set since its last question. The
// advice of the policy before is dropped.
func (e *Evictor) takeOver() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.brought {
		e.brought, e.standing, e.at = false, nil, time.Time{}
		e.advisor.policy, e.advisor.built = e.policy, false
	}
}

// Rule says which images may leave. Pinned images never may.
type Rule struct {
	MinAge time.Duration // the least time since the image was committed
	InUse  bool          // images that are being read may leave too
}

// Inform brings a stateful policy up to date.
func (e *Evictor) Inform(ctx context.Context) error {
	if e.newest().Stateful == nil {
		return nil
	}
	if err := e.lockAdvisor(ctx); err != nil {
		return err
	}
	defer e.unlockAdvisor()
	limited, cancel := context.WithTimeout(ctx, adviceTimeout)
	defer cancel()
	err := e.advisor.observe(limited, nil)
	if err != nil && ctx.Err() == nil {
		e.noteVerdict(err)
	}
	return err
}

func (e *Evictor) events() *index.Events { return e.advisor.events }

// lockAdvisor takes the advisor's token; the caller returns it with unlockAdvisor.
func (e *Evictor) lockAdvisor(ctx context.Context) error {
	select {
	case <-e.advisorFree:
		e.takeOver()
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (e *Evictor) unlockAdvisor() { e.advisorFree <- struct{}{} }

// noteVerdict remembers who decides, and logs a change of that.
func (e *Evictor) noteVerdict(err error) {
	verdict := e.advisor.policy.Name
	if err != nil {
		verdict = fallback(err)
	}
	e.mu.Lock()
	changed := verdict != e.verdict
	e.verdict = verdict
	e.mu.Unlock()
	switch {
	case changed && err != nil:
		e.log.Warn("the policy is not followed; the least recently used image leaves first", "policy", e.advisor.policy.Name, "error", err)
	case changed:
		e.log.Info("the policy is followed", "policy", e.advisor.policy.Name)
	}
}

// fallback is the verdict when the host's own order decides, and why.
func fallback(why error) string { return "lru (fallback): " + why.Error() }

// Decided says who chose the last victims.
func (e *Evictor) Decided() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.policy.missing(); err != nil {
		return fallback(err)
	}
	return e.verdict
}
