// Package records keeps the records of a driver in step with the index, and moves
// them to another driver while images are served. It is the only caller of
// drivers. It knows the index and the record logs, but not the engine.
//
// A hit gets to the driver in these steps:
//
//	cache/serve.go          the bytes were sent
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
	// listTimeout is how long a driver may take to list all records.
	listTimeout = 2 * time.Minute
	// maxPause is the longest pause between attempts to reach a driver that
	// is away.
	maxPause = 10 * time.Second
)

// Recorder keeps the driver's records in step with the index. It is the only caller
// of the driver. No request waits for it.
type Recorder struct {
	log   *slog.Logger
	index *index.Index
	now   func() time.Time
	every time.Duration // how often hits are sent
	fs    store.FS
	dir   string // where record logs are

	inUse atomic.Pointer[loggedDriver] // changed only by the goroutine of Run
	home  *loggedDriver                // that of the configuration, which a restart uses
	last  *lastDriver                  // remembers across restarts who keeps the records

	migrating sync.Mutex // held while records move to another driver
	moves     chan move
	moved     atomic.Pointer[Progress] // how far the move is; nil: records do not move

	scanned <-chan struct{}           // closed when the index has every file
	Merged  chan struct{}             // closed when it has every record
	again   chan struct{}             // the driver may answer again
	state   atomic.Value              // "loading", "ready" or "absent"
	trouble atomic.Pointer[string]    // why the driver is behind; nil: it is not
	waiting atomic.Pointer[time.Time] // since when the oldest batch waits to be acknowledged; nil: none waits
	listed  bool                      // the records were merged, and the driver has lost nothing since
	renew   atomic.Bool               // another program removed files: see Renew
}

// loggedDriver is a driver with its record log: what it was not told yet.
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
	Every   time.Duration   // how often hits are sent; at least a second, which is the default
	Scanned <-chan struct{} // closed when the index has every file

	FS      store.FS // where record logs of other drivers are kept
	Dir     string
	Offline bool // for a single command that does not change which driver the service uses
}

// New returns a recorder, which does nothing until [Recorder.Run].
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

// Migration returns how far a move of the records to another driver is, or nil if
// there is none.
func (r *Recorder) Migration() *Progress { return r.moved.Load() }

// Renew says that another program emptied or replaced the directory of the record
// logs. The files in it are written again, and images and records are compared
// again. The record logs notice it by themselves.
func (r *Recorder) Renew() {
	r.renew.Store(true)
	r.Retry()
}

// complete returns the names of the drivers that lack nothing except what their
// record logs hold, the one in use first.
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

// Run works until the context ends, and then sends once more what waits.
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
		r.log.Warn("the driver does not have all records yet; the rest is sent after the next start", "unsent", r.Unsent(), "error", err)
	}
	for _, j := range r.index.Logs() {
		if err := j.Close(); err != nil {
			r.log.Warn("could not close the record log", "error", err)
		}
	}
}

// usualPause returns the time between two batches of hits. Pauses longer than the
// shortest are cut by a random part of up to a fifth, so that the many nodes of one
// database do not all come at once.
func (r *Recorder) usualPause() time.Duration {
	if r.every <= FlushEvery {
		return FlushEvery
	}
	return r.every - rand.N(r.every/5)
}

// save writes what happened to the file of every record log, so that a kill of the
// host does not lose it.
func (r *Recorder) save() error {
	var errs []error
	for _, j := range r.index.Logs() {
		errs = append(errs, j.Save())
	}
	return errors.Join(errs...)
}

// rest waits before the next attempt and reports whether the driver may answer
// again. Meanwhile it writes each second what happens to the record log.
func (r *Recorder) rest(ctx context.Context, pause time.Duration) (again bool) {
	_ = r.save() // the next step meets the same error and reports it
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

// whileLogging waits for call, which may take long. Meanwhile it writes each second
// what happens to the record log.
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
			_ = r.save() // the next step meets the same error and reports it
		}
	}
}

// wake returns a channel that ends the pause early when a put or delete waits. While
// the driver fails it returns nil.
func (r *Recorder) wake() <-chan struct{} {
	if r.trouble.Load() != nil {
		return nil
	}
	return r.inUse.Load().journal.Hurried()
}

// Retry ends the pause early. It is called when the driver may answer again.
func (r *Recorder) Retry() {
	select {
	case r.again <- struct{}{}:
	default:
	}
}

// Why returns why the driver is behind, or "".
func (r *Recorder) Why() string {
	if text := r.trouble.Load(); text != nil {
		return *text
	}
	return ""
}

// Since returns when the oldest batch that the driver has not acknowledged was
// first to be sent, or the zero time.
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
		r.log.Warn("the driver is behind; records wait in the record log", "unsent", r.Unsent(), "error", err)
	}
	text := err.Error()
	r.trouble.Store(&text)
}

// step writes the record logs, sends what waits, and merges the driver's records
// into the index if that is due.
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
		// The driver has lost data: its store is new or was restored.
		r.log.Warn("the driver does not know the record log: its data is new or was restored; records are compared and sent again", "source", b.Source, "seq", b.Seq, "error", err)
		r.listed = false
		if err := k.journal.Restart(); err != nil {
			return err
		}
		return fmt.Errorf("batch %d was refused: %w", b.Seq, err)
	default:
		return fmt.Errorf("send batch %d: %w", b.Seq, err)
	}
}

// maxUnknown is how many records without an image one listing may bring. They are
// deleted by operations that stay in memory until they are sent; the next listing
// brings the rest.
const maxUnknown = 100_000

var errUnknown = fmt.Errorf("the driver has more than %d records of images that are not in the cache", maxUnknown)

// reconcile merges the driver's records into the index, and sends the driver what
// its records lack or have too much.
func (r *Recorder) reconcile(ctx context.Context, d sdk.Driver) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	seen, strangers := map[string]bool{}, 0
	lossy := r.state.Load() == "ready" // the only reason to list again is that the driver lost data
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
