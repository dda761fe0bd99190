// Package records keeps the records of a driver and the index in step, and moves
// them to another driver while images are served. It is the only caller of
// drivers. It knows the index and the record logs, and not the engine.
//
// A hit takes this way to the driver:
//
//	cache/serve.go          the bytes have left
//	cache/handedout.go      they make a whole image: a hit
//	internal/index          Hit counts it and notes it in the record log
//	internal/journal        Flush makes a batch of what was noted, on disk
//	Recorder.step, send     the driver applies the batch and acknowledges it
package records

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/internal/journal"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// FlushEvery is how often the record log is written, which bounds what a
	// kill of the host can lose.
	FlushEvery = time.Second
	// applyTimeout is how long a driver may take for a batch: a central
	// database under load takes seconds, and nobody waits.
	applyTimeout = 30 * time.Second
	// listTimeout is the same for all records.
	listTimeout = 2 * time.Minute
	// maxPause is the longest pause between attempts to reach a driver that
	// is away.
	maxPause = 10 * time.Second
)

// Recorder keeps the driver's records and the index in step. It is the only
// caller of the driver. Nothing waits for it.
type Recorder struct {
	log   *slog.Logger
	index *index.Index
	now   func() time.Time
	every time.Duration // hits are sent so often
	fs    store.FS
	dir   string // where record logs are

	inUse atomic.Pointer[loggedDriver] // changed by run's goroutine only
	home  *loggedDriver                // the one of the configuration, with which a restart goes on
	last  *lastDriver                  // who keeps the records

	migrating sync.Mutex // held while records move to another driver
	moves     chan move
	moved     atomic.Pointer[Progress] // how far that is; nil: they do not move

	scanned <-chan struct{}           // closed when the index has every file
	Merged  chan struct{}             // closed when it has every record
	again   chan struct{}             // the driver may answer again
	state   atomic.Value              // "loading", "ready" or "absent"
	trouble atomic.Pointer[string]    // why the driver is behind; nil: it is not
	waiting atomic.Pointer[time.Time] // since when the oldest batch waits to be acknowledged; nil: none does
	listed  bool                      // the records have been merged since the last gap
	renew   atomic.Bool               // somebody took files away: see Renew
}

// loggedDriver is a driver with the record log of what it has still to be told.
type loggedDriver struct {
	name    string     // of its block in the configuration; empty in tests
	driver  sdk.Driver // nil: no records are kept
	journal *journal.Journal
	bare    bool // see [Target]
}

// Config is what a recorder works with. Index, Journal, Now, Log and
// Scanned are required.
type Config struct {
	Name    string           // of the driver's block in the configuration; empty in tests
	Driver  sdk.Driver       // nil: no records are kept; it need not answer yet
	Journal *journal.Journal // the driver's record log, which the index tells what happens
	Index   *index.Index
	Now     func() time.Time
	Log     *slog.Logger
	Every   time.Duration   // hits are sent so often; default, and least, a second
	Scanned <-chan struct{} // closed when the index has every file

	FS      store.FS // where record logs of other drivers are kept
	Dir     string
	Offline bool // for a single command, after which the service goes on as before
}

// New returns a recorder that does nothing before it is run.
func New(cfg Config) *Recorder {
	k := &loggedDriver{name: cfg.Name, driver: cfg.Driver, journal: cfg.Journal}
	r := &Recorder{
		log: cfg.Log, index: cfg.Index, now: cfg.Now, every: cfg.Every, scanned: cfg.Scanned, home: k,
		fs: cfg.FS, dir: cfg.Dir, moves: make(chan move), Merged: make(chan struct{}), again: make(chan struct{}, 1),
	}
	if cfg.Name != "" {
		r.last = &lastDriver{fs: cfg.FS, path: cfg.Dir + "/driver", log: cfg.Log, offline: cfg.Offline}
	}
	r.inUse.Store(k)
	r.state.Store("loading")
	if k.driver == nil {
		r.state.Store("absent")
	}
	return r
}

// Records says whether the driver's records are known: "loading", "ready" or,
// without a driver, "absent".
func (r *Recorder) Records() string { return r.state.Load().(string) }

// KeptBy returns the name of the driver that keeps the records.
func (r *Recorder) KeptBy() string { return r.inUse.Load().name }

// Migration returns how far the move of the records to another driver is; nil:
// they do not move.
func (r *Recorder) Migration() *Progress { return r.moved.Load() }

// Renew says that somebody else emptied the directory of the record logs, or put
// another in its place: what is in it is written anew, and images and records are
// compared again. The record logs notice by themselves.
func (r *Recorder) Renew() {
	r.renew.Store(true)
	r.Retry()
}

// complete returns the names of the drivers that miss nothing, but for what
// their record logs hold: the one in use first.
func (r *Recorder) complete() []string {
	names := []string{r.inUse.Load().name}
	if names[0] != r.home.name {
		names = append(names, r.home.name)
	}
	return names
}

// Unsent returns the number of operations that the driver in use has not
// acknowledged.
func (r *Recorder) Unsent() int { return r.inUse.Load().journal.Unsent() }

// Run works until the context ends, and then sends once more what is left.
func (r *Recorder) Run(ctx context.Context) {
	_ = r.whileLogging(func() error {
		select {
		case <-r.scanned:
		case <-ctx.Done():
		}
		return nil
	})
	pause := r.usualPause()
	for ctx.Err() == nil {
		if err := r.step(ctx); err != nil && ctx.Err() == nil {
			r.report(err)
			pause = min(2*pause, maxPause)
		} else {
			r.report(nil)
			pause = r.usualPause()
		}
		if r.rest(ctx, pause) {
			pause = r.usualPause()
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := r.step(last); err != nil && r.Unsent() > 0 {
		r.log.Warn("records are sent after the next start", "unsent", r.Unsent(), "error", err)
	}
	for _, j := range r.index.Logs() {
		if err := j.Close(); err != nil {
			r.log.Warn("close record log", "error", err)
		}
	}
}

// usualPause is the time between two batches of hits. Pauses of more than the
// least differ by up to a fifth, so that many nodes of one database do not come
// at once, also when something has brought them into step.
func (r *Recorder) usualPause() time.Duration {
	if r.every <= FlushEvery {
		return FlushEvery
	}
	return r.every - rand.N(r.every/5)
}

// save writes what happened to every record log, so that a kill of the host
// does not lose it.
func (r *Recorder) save() error {
	var errs []error
	for _, j := range r.index.Logs() {
		errs = append(errs, j.Save())
	}
	return errors.Join(errs...)
}

// rest waits before the next attempt and reports whether the driver may answer
// again. What happens meanwhile is written to the log in time.
func (r *Recorder) rest(ctx context.Context, pause time.Duration) (again bool) {
	_ = r.save() // an error is met again by the next step, which reports it
	over := time.After(pause)
	tick := time.NewTicker(FlushEvery)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return false
		case <-tick.C:
			_ = r.save()
		case m := <-r.moves:
			m.done <- r.move(m)
			return true
		case <-r.wake():
			return false
		case <-r.again:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// whileLogging returns when call has, which may take long. What happens
// meanwhile is written to the log in time.
func (r *Recorder) whileLogging(call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	tick := time.NewTicker(FlushEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			_ = r.save() // an error is met again by the next step, which reports it
		}
	}
}

// wake returns a channel that ends the pause early when a put or delete
// waits, except while the driver is away.
func (r *Recorder) wake() <-chan struct{} {
	if r.trouble.Load() != nil {
		return nil
	}
	return r.inUse.Load().journal.Hurried()
}

// Retry ends the pause early, as the driver may answer now.
func (r *Recorder) Retry() {
	select {
	case r.again <- struct{}{}:
	default:
	}
}

// Why returns what keeps the driver behind, or "".
func (r *Recorder) Why() string {
	if text := r.trouble.Load(); text != nil {
		return *text
	}
	return ""
}

// Since returns when the oldest batch that the driver has not acknowledged was
// to be sent, or the zero time.
func (r *Recorder) Since() time.Time {
	if t := r.waiting.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// report logs the beginning and the end of trouble, once each.
func (r *Recorder) report(err error) {
	behind := r.trouble.Load() != nil
	if err == nil {
		if behind {
			r.log.Info("records are sent again")
		}
		r.trouble.Store(nil)
		return
	}
	if !behind {
		r.log.Warn("records wait in the record log", "unsent", r.Unsent(), "error", err)
	}
	text := err.Error()
	r.trouble.Store(&text)
}

// step writes the log, sends what waits, and merges the driver's records if
// that is due.
func (r *Recorder) step(ctx context.Context) error {
	if r.renew.Swap(false) {
		r.listed = false
		r.last.renew()
	}
	k := r.inUse.Load()
	for {
		for _, j := range r.index.Logs()[1:] {
			if err := j.Save(); err != nil {
				return err
			}
		}
		batch, err := k.journal.Flush()
		if err != nil {
			return err
		}
		if k.driver == nil {
			return nil
		}
		if batch == nil {
			break
		}
		if r.waiting.Load() == nil {
			now := r.now()
			r.waiting.Store(&now)
		}
		if err := r.send(ctx, k, *batch); err != nil {
			return err
		}
		r.waiting.Store(nil)
	}
	if r.listed {
		return nil
	}
	if err := r.reconcile(ctx, k.driver); err != nil {
		return err
	}
	r.listed = true
	if r.state.Swap("ready") != "ready" {
		select {
		case <-r.Merged:
		default:
			close(r.Merged)
		}
	}
	r.last.keep(r.complete())
	return nil
}

func (r *Recorder) send(ctx context.Context, k *loggedDriver, b sdk.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	err := r.whileLogging(func() error { return k.driver.Apply(ctx, b) })
	switch {
	case err == nil:
		return k.journal.Acknowledge()
	case errors.Is(err, sdk.ErrInvalid):
		// The driver has lost its place: its store is new or was restored.
		r.log.Warn("the driver does not know the record log; sending anew and reconciling", "source", b.Source, "seq", b.Seq, "error", err)
		r.listed = false
		if err := k.journal.Restart(); err != nil {
			return err
		}
		return fmt.Errorf("batch %d was refused: %w", b.Seq, err)
	default:
		return fmt.Errorf("send batch %d: %w", b.Seq, err)
	}
}

// maxUnknown is how many records of images that are not here a listing may
// bring. They are deleted, by operations that stay in memory until they are
// sent; the next listing brings the others.
const maxUnknown = 100_000

var errUnknown = fmt.Errorf("the driver has more than %d records of images that are not here", maxUnknown)

// reconcile merges the driver's records into the index and brings the driver
// up to date with the files, in both directions.
func (r *Recorder) reconcile(ctx context.Context, d sdk.Driver) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	seen, strangers := map[string]bool{}, 0
	lossy := r.state.Load() == "ready" // or there would be no reason to list again
	err := r.whileLogging(func() error {
		return d.List(ctx, func(entries []sdk.Entry) error {
			if strangers += r.index.Merge(entries, seen, lossy); strangers > maxUnknown {
				return errUnknown
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("list records: %w", err)
	}
	r.index.KeepOrder(r.now())
	r.index.PutMissing(seen)
	return nil
}
