// Package cache is the engine: it opens images, fills the cache while clients
// read, prunes, cleans, and keeps the records of a driver and the state of a policy
// up to date. It knows nothing about HTTP, SQL and plugin runtimes.
//
// Files are the truth: an image is cached when its complete file is in the cache
// directory. No request waits for the driver or the policy, and a failure of the
// cache never fails a request that the origin can serve.
package cache

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/cache/internal/history"
	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/internal/journal"
	"github.com/imgcache/imgcache-host/host/cache/internal/pins"
	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/cache/records"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
	"golang.org/x/time/rate"
)

// Cache is the engine. host/httpd and host declare beside their code which of its
// methods they use. Methods that take an id return [ErrBadID] for one that does not
// follow the grammar of ids, before they touch any file.
type Cache struct {
	cfg       Config
	store     *store.Store
	log       *slog.Logger
	pool      *space.Pool
	index     *index.Index
	requests  *index.Requests
	evictor   *evict.Evictor
	recorder  *records.Recorder
	queue     *queue
	writes    *writes
	history   *history.History
	pins      *pins.Pins
	disk      *diskHealth
	others    strays
	parked    parked
	absent    absent
	passed    passed
	handedOut handedOut
	reach     reach
	questions questions
	slots     chan struct{} // one for each fill that may run; nil: no bound
	rate      *rate.Limiter // of all fills together; nil: no bound
	scrubs    *scrubs
	stats     stats

	admission admission
	free      *space.Free

	ctx     context.Context // of fills and background goroutines
	stop    context.CancelCauseFunc
	work    sync.WaitGroup // fills and background goroutines
	records sync.WaitGroup // the recorder, which ends last
	scanned chan struct{}  // closed when every file is in the index

	// mu guards fills. A fill's own mutex may be taken under it.
	mu    sync.Mutex
	fills map[string]*fill // by id: the fill that requests may follow
}

// stats counts since the start.
type stats struct {
	hits, misses    atomic.Uint64
	served, fetched atomic.Uint64 // bytes
	quarantined     atomic.Uint64
	stale           atomic.Uint64
}

// errStopped ends the work of a cache that is closed.
var errStopped = fmt.Errorf("the service is stopping: %w", sdk.ErrUnavailable)

// New returns a cache that serves at once. If its store cannot be opened, images
// are passed through. [Cache.Start] begins the work in the background.
func New(cfg Config) (*Cache, error) {
	cfg = cfg.withDefaults()
	private := cfg.Store.PrivateDir()
	older := ""
	if cfg.DriverName != "" {
		older = journal.Path(private, "")
	}
	j := journal.New(cfg.Store.FS(), journal.Path(private, cfg.DriverName), older)
	if cfg.ForeignDriver {
		j.Begin()
	}
	ctx, stop := context.WithCancelCause(context.Background())
	p := space.NewPool(cfg.MaxSize, cfg.hard())
	requests := index.NewRequests(cfg.Watch)
	ev := index.NewEvents(cfg.Policy.Stateful != nil, cfg.Policy.Scorer != nil)
	x := index.New(cfg.Now, p, j, ev, requests)
	c := &Cache{
		cfg: cfg, store: cfg.Store, log: cfg.Log, pool: p, index: x, requests: requests,
		history:   history.New(cfg.Store.FS(), private+"/history", cfg.Log, cfg.Now),
		pins:      pins.New(cfg.Store.FS(), private+"/pins", cfg.Log, cfg.Now, cfg.Pins),
		disk:      &diskHealth{now: cfg.Now, log: cfg.Log},
		admission: admission{after: cfg.AdmitAfter, perClient: cfg.Fill.ColdPerClient},
		free:      space.NewFree(cfg.Store, cfg.Now, cfg.Prune.MinFree),
		scrubs:    newScrubs(cfg), reach: reach{log: cfg.Log, now: cfg.Now}, handedOut: handedOut{now: cfg.Now},
		ctx: ctx, stop: stop, scanned: make(chan struct{}), fills: map[string]*fill{},
	}
	if cfg.Fill.Concurrency > 0 {
		c.slots = make(chan struct{}, cfg.Fill.Concurrency)
	}
	if cfg.Fill.Bandwidth > 0 {
		c.rate = rate.NewLimiter(rate.Limit(cfg.Fill.Bandwidth), blockSize)
	}
	c.recorder = records.New(records.Config{
		Name: cfg.DriverName, Driver: cfg.Driver, Journal: j, Index: x, Now: cfg.Now, Log: cfg.Log,
		Every: cfg.FlushInterval, Scanned: c.scanned, FS: cfg.Store.FS(), Dir: private, Offline: cfg.Offline,
	})
	c.evictor = evict.New(evict.Config{
		Policy: cfg.Policy, Index: x, Events: ev, Pool: p, Free: c.free, Store: c.store, History: c.history, Pins: c.pins,
		MaxSize: cfg.MaxSize, Hard: cfg.hard(), MinAge: cfg.Prune.MinAge, Now: cfg.Now, Log: c.log, Stopped: ctx.Done(),
	})
	c.queue = newQueue(c)
	c.writes = newWrites(c)
	if err := c.store.Open(); err != nil {
		c.disk.fail(err)
	} else {
		c.pins.Load()
	}
	return c, nil
}

// Start begins to scan, reconcile, prune and prefetch in the background.
func (c *Cache) Start() {
	if c.store.IsOpen() {
		c.recover()
	}
	c.records.Go(func() { c.recorder.Run(c.ctx) })
	background := []func(context.Context){c.evictor.Run, c.history.Run}
	if c.cfg.Offline {
		background = append(background, c.takeUp)
	} else {
		background = append(background, c.takeUpAndKeep, c.pruneByItself, c.queue.run, c.writes.expire, c.watchPins)
	}
	for _, f := range background {
		c.work.Go(func() { f(c.ctx) })
	}
}

// Scanned waits until every file is known. The error is that of the context.
func (c *Cache) Scanned(ctx context.Context) error {
	select {
	case <-c.scanned:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Merged waits until the driver's records are merged. The error is that of the
// context.
func (c *Cache) Merged(ctx context.Context) error { return c.recorder.WhenMerged(ctx) }

// takeUp waits until the directory can be opened, and then brings the images and
// partial files in it into use.
func (c *Cache) takeUp(ctx context.Context) {
	defer close(c.scanned)
	if !c.store.IsOpen() {
		if !c.openAgain(ctx) {
			return
		}
		c.pins.Load()
		c.recover()
	}
	if !c.cfg.Offline {
		c.resumeParked()
	}
	c.scan(ctx)
}

// takeUpAndKeep does what takeUp does, and then keeps the directory in order until
// the context ends.
func (c *Cache) takeUpAndKeep(ctx context.Context) {
	c.takeUp(ctx)
	c.keepDirectory(ctx)
}

// openAgain tries to open the directory until that succeeds or the context
// ends.
func (c *Cache) openAgain(ctx context.Context) bool {
	tick := time.NewTicker(diskPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
		err := c.store.Open()
		if err == nil {
			c.disk.ok()
			return true
		}
		c.disk.fail(err)
	}
}

// DriverUp says that the driver may answer again. Operations that wait for it are
// sent at once.
func (c *Cache) DriverUp() { c.recorder.Retry() }

// SetPolicy sets the policy, or sets it again after it has lost its state. The new
// policy is asked from the next question on.
func (c *Cache) SetPolicy(p evict.Policy) { c.evictor.SetPolicy(p) }

// Close ends all work, sends the driver what it can take, and returns when nothing
// is running any more. Transfers that clients still follow are broken off. The
// store stays open.
func (c *Cache) Close() error {
	c.stop(errStopped)
	c.work.Wait()
	if c.cfg.Offline { // a service would unlink them after its next start
		c.evictor.Empty()
	}
	c.history.Save()
	c.evictor.SaveAtEnd()
	c.records.Wait()
	return nil
}

// recover cleans up what an earlier run left: partial files and trash. If that
// fails, the rest waits for the next start.
func (c *Cache) recover() {
	report, err := c.store.Recover()
	if err != nil {
		c.disk.fail(fmt.Errorf("recover cache directory: %w", err))
	}
	if len(report.Committed) > 0 || report.Removed > 0 {
		c.log.Info("cleaned up what an earlier run left", "completed", len(report.Committed), "removed", report.Removed, "bytes", report.RemovedBytes)
	}
	c.recount()
	for _, u := range report.Unfinished {
		c.parkAgain(u)
	}
	left, err := c.store.Trashed()
	if err != nil {
		c.disk.fail(fmt.Errorf("list trash: %w", err))
	}
	for _, t := range left {
		c.pool.Charge(t.Size)
		c.pool.BeginFreeing(t.Size)
	}
	c.work.Go(func() {
		for _, t := range left {
			c.evictor.UnlinkInTrash(t, nil)
		}
	})
}

// scan brings every file into the index.
func (c *Cache) scan(ctx context.Context) {
	start, n := time.Now(), 0
	var adopted adopted
	err := c.store.Scan(func(info store.Info) error {
		c.index.Found(info)
		adopted.count(info)
		n++
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		c.log.Error("could not scan the whole cache directory; the other images are found when they are asked for", "error", err)
		return
	}
	c.log.Info("scanned the cache directory", "images", n, "duration", time.Since(start))
	adopted.report(c.log)
}
