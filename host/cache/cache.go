// Package cache is the engine: it opens images, fills the cache while clients
// read, prunes, cleans, and keeps the records of a driver and the picture of a
// policy up to date. It knows no HTTP, no SQL and no plugin runtime.
//
// Files are the truth: an image is cached when its complete file is in the
// cache directory. No request waits for the driver or the policy, and no
// trouble of the cache fails a request that the origin can serve.
package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

// Origins finds the origin of an image.
type Origins interface {
	// ByID returns the origin of an id and the origin's name of the image.
	ByID(id string) (o origin.Origin, name string, err error)
	// Learn tells the name behind an id that ByID cannot take apart, as it
	// was found with a file.
	Learn(id, name string)
}

// Config is what a cache works with. [Config.withDefaults] says what zero
// values mean.
type Config struct {
	Store   *store.Store
	Origins Origins
	Driver  sdk.Driver // nil: no records are kept; it need not answer yet: see [Cache.DriverUp]
	Policy  Policy     // zero: least recently used leaves first; see [Cache.SetPolicy]
	Log     *slog.Logger

	// Watch is told of each request for an image; see requests. It is called
	// under mutexes and must not wait. Nil: nobody watches.
	Watch func(trace.Access)

	// DriverName is how the configuration refers to the driver. Each name has
	// a record log of its own.
	DriverName string
	// ForeignDriver says that another program writes the driver's records too,
	// so that what waited for it in an earlier run is out of date.
	ForeignDriver bool

	// Now is the clock of records and ages. By default it is the wall clock
	// at the start plus the monotonic time since, so that steps of the wall
	// clock neither age nor rejuvenate an image.
	Now func() time.Time

	MaxSize       int64   // bytes; 0 keeps nothing
	Hard          bool    // MaxSize is a bound, not only prune's threshold
	HighWatermark float64 // share of MaxSize above which a prune acts; default 1
	LowWatermark  float64 // share down to which it acts; default 1
	MinAge        time.Duration
	PruneInterval time.Duration // default 1 minute
	StallTime     time.Duration // age at which incomplete files are cleaned; default 24 hours
	FlushInterval time.Duration // hits are sent to the driver so often; default, and least, a second

	MinFree       int64  // bytes of the file system that stay free, whoever uses it; 0: no matter
	MaxImageSize  int64  // bytes; larger images are passed through; 0: no bound
	AdmitAfter    int    // the request of an image, since the start, from which on it is stored; default 1
	ColdPerClient int    // images that one client may be the first to ask for at once and have stored; 0: no bound
	VerifyReads   string // VerifyAlways (default), VerifyFirst or VerifyNever
	ScrubRate     int64  // bytes a second that a scrub reads; 0: no bound
	Pins          []Pin  // of the configuration

	Offline bool // for a single command: nothing is fetched and nothing pruned by itself

	Retries      int    // attempts to resume a transfer without progress; default 5
	KeepFilling  bool   // go on with a fill when its clients have left
	Fills        int    // transfers at once, all origins together; 0: no bound
	FillRate     int64  // bytes a second, all fills together; 0: no bound
	RangesInFill string // RangesStream (default) or RangesVerified
	DropFills    bool   // forget at shutdown what was fetched of running fills, instead of keeping it for the next start
	Prefetchers  int    // queued images fetched at once; default 2
}

// When the blocks of an image are checked against its table.
const (
	VerifyAlways = "always" // in each read that serves them
	VerifyFirst  = "first"  // once after the start or a change of the file
	VerifyNever  = "never"  // by a scrub alone
)

// When a range of an image that is being filled is handed out.
const (
	RangesStream   = "stream"   // when its bytes are on disk; the range with the last byte waits for the verdict
	RangesVerified = "verified" // when the whole image is verified
)

// Pin keeps an image from being evicted.
type Pin struct {
	ID    string    `json:"id"`
	Until time.Time `json:"until,omitzero"` // zero: for ever
	From  string    `json:"from,omitempty"` // who wants it; of Config.Pins: where in the configuration it stands
}

func (cfg Config) withDefaults() Config {
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&cfg.PruneInterval, time.Minute)
	def(&cfg.StallTime, 24*time.Hour)
	if cfg.HighWatermark == 0 {
		cfg.HighWatermark = 1
	}
	if cfg.LowWatermark == 0 {
		cfg.LowWatermark = 1
	}
	if cfg.Retries == 0 {
		cfg.Retries = 5
	}
	if cfg.VerifyReads == "" {
		cfg.VerifyReads = VerifyAlways
	}
	if cfg.Prefetchers == 0 {
		cfg.Prefetchers = 2
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		start := time.Now()
		cfg.Now = func() time.Time { return start.Round(0).Add(time.Since(start)) }
	}
	return cfg
}

func (cfg Config) highMark() int64 { return int64(float64(cfg.MaxSize) * cfg.HighWatermark) }
func (cfg Config) lowMark() int64  { return int64(float64(cfg.MaxSize) * cfg.LowWatermark) }

// Cache is the engine. It implements [Engine].
type Cache struct {
	cfg      Config
	store    *store.Store
	log      *slog.Logger
	pool     *pool
	index    *index
	evictor  *evictor
	recorder *recorder
	queue    *queue
	writes   *writes
	history  *history
	pins     *pins
	disk     *disk
	others   others
	parked   parked
	absent   absent
	slots    chan struct{} // of running fills; nil: no bound
	rate     *rate.Limiter // of all fills together; nil: no bound
	scrubs   *scrubs
	stats    stats

	admission admission
	free      free

	ctx     context.Context // of everything that runs by itself
	stop    context.CancelCauseFunc
	work    sync.WaitGroup // fills and background goroutines
	records sync.WaitGroup // the recorder, which ends last
	scanned chan struct{}  // closed when every file is in the index

	// mu guards fills. A fill's own mutex may be taken under it.
	mu    sync.Mutex
	fills map[string]*fill // the one of each id that may be followed
}

// stats counts since the start.
type stats struct {
	hits, misses    atomic.Uint64
	served, fetched atomic.Uint64 // bytes
	quarantined     atomic.Uint64
}

// errStopped ends the work of a cache that is closed.
var errStopped = fmt.Errorf("the service is stopping: %w", sdk.ErrUnavailable)

// New returns a cache that serves at once, also when its store cannot be
// opened: then images are passed through. [Cache.Start] begins the work in the
// background.
func New(cfg Config) (*Cache, error) {
	cfg = cfg.withDefaults()
	j := newJournal(cfg.Store.FS(), logPath(cfg.Store.PrivateDir(), cfg.DriverName))
	if cfg.DriverName != "" {
		j.older = logPath(cfg.Store.PrivateDir(), "")
	}
	if cfg.ForeignDriver {
		j.begin()
	}
	ctx, stop := context.WithCancelCause(context.Background())
	p := newPool(cfg.MaxSize, cfg.Hard)
	ev := &events{keep: cfg.Policy.Stateful != nil, settled: cfg.Policy.Scorer != nil, changed: true}
	x := newIndex(cfg.Now, p, j, ev)
	x.requests.watch = cfg.Watch
	c := &Cache{
		cfg: cfg, store: cfg.Store, log: cfg.Log, pool: p, index: x,
		history: newHistory(cfg), pins: newPins(cfg), disk: &disk{now: cfg.Now, log: cfg.Log},
		admission: admission{after: cfg.AdmitAfter, perClient: cfg.ColdPerClient},
		free:      free{store: cfg.Store, now: cfg.Now, least: cfg.MinFree},
		scrubs:    newScrubs(cfg),
		ctx:       ctx, stop: stop, scanned: make(chan struct{}), fills: map[string]*fill{},
	}
	if cfg.Fills > 0 {
		c.slots = make(chan struct{}, cfg.Fills)
	}
	if cfg.FillRate > 0 {
		c.rate = rate.NewLimiter(rate.Limit(cfg.FillRate), blockSize)
	}
	c.recorder = newRecorder(&keeper{name: cfg.DriverName, driver: cfg.Driver, log: j}, cfg.Log, x, cfg.Now, c.scanned)
	c.recorder.every = cfg.FlushInterval
	c.recorder.mark = newMark(cfg)
	c.evictor = newEvictor(c)
	c.queue = newQueue(c)
	c.writes = newWrites(c)
	if err := c.store.Open(); err != nil {
		c.disk.fail(err)
	} else {
		c.pins.load()
	}
	return c, nil
}

// Start begins to scan, reconcile, prune and prefetch in the background.
func (c *Cache) Start() {
	if c.store.IsOpen() {
		c.recover()
	}
	c.records.Go(func() { c.recorder.run(c.ctx) })
	background := []func(context.Context){
		c.takeUp, c.evictor.reclaim, c.evictor.keepStanding, c.evictor.keepState, c.history.run,
	}
	if !c.cfg.Offline {
		background = append(background, c.pruneByItself, c.queue.run, c.writes.expire, c.watchPins)
	}
	for _, f := range background {
		c.work.Go(func() { f(c.ctx) })
	}
}

// Scanned returns when every file is known. The error is the context's.
func (c *Cache) Scanned(ctx context.Context) error { return until(ctx, c.scanned) }

// Merged returns when the driver's records are merged. The error is the
// context's.
func (c *Cache) Merged(ctx context.Context) error { return until(ctx, c.recorder.merged) }

func until(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// takeUp brings what the directory holds into use, as soon as it can be
// opened.
func (c *Cache) takeUp(ctx context.Context) {
	defer close(c.scanned)
	if !c.store.IsOpen() {
		if !c.openAgain(ctx) {
			return
		}
		c.pins.load()
		c.recover()
	}
	if !c.cfg.Offline {
		c.resumeParked()
	}
	c.scan(ctx)
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

// DriverUp says that the driver, which may have been away, answers now: what
// waits for it is sent without a pause.
func (c *Cache) DriverUp() { c.recorder.retry() }

// SetPolicy brings the policy, or brings it anew after it has lost its state.
// Until it is asked next, which does not wait for this call, the earlier one
// decides.
func (c *Cache) SetPolicy(p Policy) { c.evictor.setPolicy(p) }

// Close ends all work, sends what the driver can take, and returns when
// nothing runs any more. Transfers that clients still follow are cut. The
// store stays open.
func (c *Cache) Close() error {
	c.stop(errStopped)
	c.work.Wait()
	if c.cfg.Offline { // a service would go on at its next start
		c.evictor.empty()
	}
	c.history.save()
	last, cancel := context.WithTimeout(context.Background(), rememberTimeout)
	defer cancel()
	c.evictor.remember(last)
	c.records.Wait()
	return nil
}

// recover deals with what an earlier run left: partial files and trash. What
// cannot be dealt with waits for the next start.
func (c *Cache) recover() {
	report, err := c.store.Recover()
	if err != nil {
		c.disk.fail(fmt.Errorf("recover cache directory: %w", err))
	}
	if len(report.Committed) > 0 || report.Removed > 0 {
		c.log.Info("dealt with what an earlier run left", "completed", len(report.Committed), "removed", report.Removed, "bytes", report.RemovedBytes)
	}
	for _, u := range report.Unfinished {
		c.parkAgain(u)
	}
	left, err := c.store.Trashed()
	if err != nil {
		c.disk.fail(fmt.Errorf("list trash: %w", err))
	}
	for _, t := range left {
		c.pool.charge(t.Size)
		c.pool.leave(t.Size)
	}
	c.work.Go(func() {
		for _, t := range left {
			c.evictor.unlinkLater(trashed{file: t})
		}
	})
	c.recount()
}

// scan brings every file into the index.
func (c *Cache) scan(ctx context.Context) {
	start, n := time.Now(), 0
	var adopted adopted
	err := c.store.Scan(func(info store.Info) error {
		c.index.found(info)
		adopted.count(info)
		n++
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		c.log.Error("scan cache directory; images that were not reached are found when they are asked for", "error", err)
		return
	}
	c.log.Info("scanned", "images", n, "duration", time.Since(start))
	adopted.report(c.log)
}

// Open serves a GET: see [Engine].
func (c *Cache) Open(ctx context.Context, id string) (Content, error) {
	if !sdk.ValidID(id) {
		return nil, badID(id)
	}
	o, name, err := c.cfg.Origins.ByID(id)
	if err != nil {
		return nil, fmt.Errorf("find the origin of %q: %w", id, err)
	}
	for {
		var stale *image
		k, err := c.openCached(id)
		if k != nil {
			k.source, k.name = o, name
			changed, detail, err := c.revalidate(ctx, k)
			if err == nil && !changed {
				k.outcome = Outcome{Hit: true, Detail: detail}
				c.index.access(k.im, c.cfg.Now())
				return k, nil
			}
			stale = k.im
			k.Close()
			if err != nil {
				return nil, err
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			c.unopened(id, err)
			stale = c.index.get(id) // there, but of no use now
		}
		if err := c.absent.err(id, c.cfg.Now()); err != nil && !c.filling(id) {
			return nil, err
		}
		f, collapsed := c.follow(id, o, name, stale, c.requestOf(ctx, id))
		if f == nil {
			continue // it was committed just now
		}
		return f.open(ctx, collapsed)
	}
}

func badID(id string) error {
	return fmt.Errorf("%w: %.40q: want a letter or digit, then at most 127 letters, digits, dots, dashes or underscores, and no reserved name", ErrBadID, id)
}

// OpenCached serves an image only if it is cached: see [Engine].
func (c *Cache) OpenCached(_ context.Context, id string) (Content, error) {
	if !sdk.ValidID(id) {
		return nil, badID(id)
	}
	k, err := c.openCached(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("image %q is not cached: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	c.cfg.Origins.Learn(id, k.file.Info().Name)
	if o, name, err := c.cfg.Origins.ByID(id); err == nil {
		k.source, k.name = o, name
	}
	k.outcome = Outcome{Hit: true}
	c.index.access(k.im, c.cfg.Now())
	return k, nil
}

// openCached opens the file of an image. An error wraps fs.ErrNotExist when
// there is none, or none any more, because nothing vouched for its bytes.
func (c *Cache) openCached(id string) (*cachedContent, error) {
	released := c.index.releases()
	file, err := c.store.OpenImage(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.vanished(id)
		return nil, err
	case errors.Is(err, store.ErrCorrupt):
		return nil, c.condemn(id, err)
	case err != nil:
		return nil, err
	}
	im, stale := c.index.opened(file.Info(), released)
	switch {
	case stale:
		file.Close()
		return c.openCached(id)
	case im == nil:
		return nil, errors.Join(fmt.Errorf("image %q is corrupt: %w", id, fs.ErrNotExist), file.Close())
	}
	view := c.index.view(im)
	return &cachedContent{
		meta: meta{info: view, modTime: file.Info().OriginModTime},
		c:    c, im: im, file: file,
	}, nil
}

// vanished forgets an image whose file was taken away by somebody else.
func (c *Cache) vanished(id string) {
	im := c.index.get(id)
	if im == nil || !c.index.removeExactly(im, sdk.ReasonDeleted, c.cfg.Now()) {
		return
	}
	c.history.tell(slog.LevelWarn, id, Vanished, "somebody else took its file away")
	c.index.unlinked(im)
}

// originTimeout bounds a question to the origin on behalf of a cached image:
// after it the image is served as it is.
const originTimeout = 5 * time.Second

// revalidate asks the origin, if that is due, whether the cached version is
// still its own. An origin that does not answer is no reason not to serve.
// The error is the origin's refusal.
func (c *Cache) revalidate(ctx context.Context, k *cachedContent) (changed bool, detail string, err error) {
	if !k.info.Verified {
		detail = "unverified"
	}
	now := c.cfg.Now()
	if digestVersion(k.info.Version) || !due(c.index.checkedAt(k.im), now, k.source.Terms().RevalidateAfter) {
		return false, detail, nil
	}
	limited, cancel := context.WithTimeout(ctx, originTimeout)
	defer cancel()
	obj, err := c.ask(limited, k.info.ID, k.source, k.name)
	switch {
	case ctx.Err() != nil:
		return false, "", context.Cause(ctx)
	case errors.Is(err, origin.ErrNotFound), errors.Is(err, origin.ErrDenied):
		return false, "", err
	case err != nil && k.source.Terms().FailWhenDown:
		return false, "", fmt.Errorf("the origin cannot confirm the cached image, and on_origin_down is \"fail\": %w", err)
	case err != nil:
		c.log.Warn("the origin cannot confirm a cached image; it is served all the same", "image", k.info.ID, "error", err)
		return false, "stale", nil
	case k.info.Version == "" && obj.Size == k.info.Size, obj.Version == k.info.Version:
		c.index.confirm(k.im, now)
		return false, detail, nil
	}
	c.log.Info("the origin has another version", "image", k.info.ID, "cached", k.info.Version, "origin", obj.Version)
	return true, "", nil
}

// ask asks an origin for an image, unless it answered just now that it has
// none.
func (c *Cache) ask(ctx context.Context, id string, o origin.Origin, name string) (origin.Object, error) {
	if err := c.absent.err(id, c.cfg.Now()); err != nil {
		return origin.Object{}, err
	}
	obj, err := o.Stat(ctx, name)
	c.absent.add(id, err, o.Terms(), c.cfg.Now())
	return obj, err
}

// digestVersion reports whether a version is a digest: it can never change.
func digestVersion(v string) bool {
	for algorithm := range strength {
		if len(v) > len(algorithm) && v[:len(algorithm)] == algorithm && v[len(algorithm)] == ':' {
			return true
		}
	}
	return false
}

func due(checked, now time.Time, after time.Duration) bool {
	return checked.IsZero() || now.Sub(checked) >= after
}

// follow returns the fill of id, with one client more: the one that runs, or
// a new one. It returns nil when the image was committed after the caller
// looked; stale is what the caller saw then.
//
// The second look is needed: a request that found no file may get here only
// after the fill that it would have followed has committed and left the map.
//
// Only the request that begins a fill is asked whether the image is admitted. If
// it is not, the request has a transfer of its own that nobody can follow: what
// followers read is what was stored, and theirs may be the request from which on
// the image is.
func (c *Cache) follow(id string, o origin.Origin, name string, stale *image, r request) (f *fill, collapsed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.fills[id]; f != nil {
		f.mu.Lock()
		f.clients++
		if !r.queued {
			f.asked++
		}
		f.mu.Unlock()
		return f, true
	}
	if im := c.index.get(id); im != nil && im != stale {
		return nil, false
	}
	c.stats.misses.Add(1)
	if stale == nil && !r.wanted {
		if why := c.admission.ask(id, r.client); why != nil {
			return c.passThrough(id, o, name, why), false
		}
	}
	f = c.begin(id, o, name, r.client)
	f.mu.Lock()
	f.clients = 1
	if !r.queued {
		f.asked, f.askedFor = 1, true
	}
	f.mu.Unlock()
	return f, false
}

// filling reports whether there is a fill that a client can follow.
func (c *Cache) filling(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fills[id] != nil
}

// begin starts a fill for a client. The caller holds c.mu.
func (c *Cache) begin(id string, o origin.Origin, name, client string) *fill {
	ctx, cancel := context.WithCancelCause(c.ctx)
	f := newFill(c, id, o, name, cancel)
	f.parked = c.parked.take(id)
	f.ended = c.admission.begin(client)
	c.fills[id] = f
	c.work.Go(func() { f.run(ctx) })
	return f
}

// forget lets the next request begin a fill of its own.
func (c *Cache) forget(f *fill) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fills[f.id] == f {
		delete(c.fills, f.id)
	}
}

// open waits until the origin has answered and returns the fill's content for
// one client, who must have been counted.
func (f *fill) open(ctx context.Context, collapsed bool) (Content, error) {
	f.mu.Lock()
	for !f.began && !f.state.over() {
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			f.leave()
			return nil, context.Cause(ctx)
		}
		f.mu.Lock()
	}
	began, err, phase := f.began, f.state.err, f.state.phase
	obj, refused := f.obj, f.refused
	f.mu.Unlock()
	if !began {
		f.leave()
		return nil, err
	}
	out := Outcome{Collapsed: collapsed, Stored: phase < detached && refused == nil}
	switch {
	case refused != nil:
		out.Detail = refused.Error()
	case phase == detached:
		out.Detail = "not stored"
	}
	return &fillContent{meta: originMeta(f.id, obj, out), f: f}, nil
}

func originMeta(id string, obj origin.Object, out Outcome) meta {
	info := ImageInfo{ID: id, State: StateFilling, Size: obj.Size, Version: obj.Version, URL: obj.URL}
	for _, d := range obj.Digests {
		if d.Algorithm == "sha256" {
			info.SHA256 = fmt.Sprintf("%x", d.Sum)
		}
	}
	return meta{info: info, modTime: obj.LastModified, outcome: out}
}

// Stat answers a HEAD: see [Engine].
func (c *Cache) Stat(ctx context.Context, id string) (Content, error) {
	if !sdk.ValidID(id) {
		return nil, badID(id)
	}
	o, name, err := c.cfg.Origins.ByID(id)
	if err != nil {
		return nil, fmt.Errorf("find the origin of %q: %w", id, err)
	}
	if k, err := c.openCached(id); err == nil {
		defer k.Close()
		k.source, k.name = o, name
		changed, detail, err := c.revalidate(ctx, k)
		if err != nil {
			return nil, err
		}
		if !changed {
			k.outcome = Outcome{Hit: true, Detail: detail}
			return &statContent{k.meta}, nil
		}
	}
	obj, err := c.ask(ctx, id, o, name)
	if err != nil {
		return nil, err
	}
	m := originMeta(id, obj, Outcome{})
	m.info.State = StateAbsent
	return &statContent{m}, nil
}

// commitStaged publishes a staged file, for which charged bytes of the pool
// are reserved, and returns its image, acquired. After an error nothing has
// changed.
func (c *Cache) commitStaged(st *store.Staged, m store.Meta, charged int64) (*image, error) {
	info, replaced, err := st.Commit(m)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	c.unpark(info.ID)
	c.absent.forget(info.ID)
	im, old := c.index.commit(info, c.cfg.Now())
	c.pool.release(charged - info.Size)
	switch {
	case old != nil && replaced != nil:
		c.pool.leave(old.size)
		c.evictor.unlinkLater(trashed{file: *replaced, im: old})
	case old != nil:
		c.index.unlinked(old)
	case replaced != nil: // the scan had not come by
		c.pool.charge(replaced.Size)
		c.pool.leave(replaced.Size)
		c.evictor.unlinkLater(trashed{file: *replaced})
	}
	c.disk.ok()
	if old != nil {
		c.history.tell(slog.LevelInfo, info.ID, Replaced, replacement(old.info.Version, info.Version))
	}
	c.history.tell(slog.LevelInfo, info.ID, Cached, source(m), "bytes", info.Size, "version", info.Version)
	return im, nil
}

// replacement says what took whose place.
func replacement(before, now string) string {
	if before == now {
		return "the same version was fetched again"
	}
	return fmt.Sprintf("version %s by version %s", cmp.Or(before, "unknown"), cmp.Or(now, "unknown"))
}

// source says how the bytes of an image came here.
func source(m store.Meta) string {
	if m.URL == "" {
		return "written by a client"
	}
	return fmt.Sprintf("fetched in %v from %s", time.Duration(m.FetchMS)*time.Millisecond, m.URL)
}
