package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

// blockSize is the unit of verification and of copying.
const blockSize = store.BlockSize

const (
	// memoryPrefix is what a fill holds in memory while room is sought: at
	// the speed of a gigabit link it is a thirtieth of a second.
	memoryPrefix = 4 << 20
	// roomPatience is how long a fill waits for room before its image is
	// passed through: evicting a GiB takes a quarter of a second.
	roomPatience = 2 * time.Second
)

// errDeleted bars a fill or write whose image was deleted meanwhile.
var errDeleted = errors.New("the image was deleted while it was fetched")

// fill is one transfer of an image from its origin into the store, with any
// number of clients that read behind the write position. It belongs to the
// service: no client's leaving ends it. One goroutine, run, drives it.
type fill struct {
	c        *Cache
	id       string
	name     string // the origin's name of the image
	replaces bool   // an image is cached that it takes the place of
	origin   origin.Origin
	started  time.Time
	cancel   context.CancelCauseFunc

	// mu guards what follows. It is held for no I/O.
	mu       sync.Mutex
	state    fillState
	changed  chan struct{} // closed and replaced at each change
	began    bool          // obj is known
	obj      origin.Object
	memory   []byte        // the readable bytes while reserving, and after a refusal
	staged   *store.Staged // the readable bytes afterwards
	clients  int
	segments []*segment       // parts that are ahead of state.have, or were
	suspects []origin.Suspect // who sent them
	sums     *digester        // of the readable bytes; run's own until the fill is over
	rest     *fetch           // detached: the origin's stream from state.have on, for the first taker
	image    *index.Image     // done: what was stored, held open; nil: nothing
	wanted   bool             // the queue wants the image, whether clients stay or not
	queued   bool             // the queue began it
	asked    int              // requests that reportRequests has still to tell of
	askedFor bool             // the one that began the fill is among them
	finished bool             // run has ended

	ended        func() // called when the fill is over; run's own
	refused      error  // why the image is not to be stored, however much room there is; known when it began
	room         *space.Reservation
	parked       *parkedFill // what an earlier fill left of the image; run's own
	resumedBytes int64       // bytes of it that were right
	answered     time.Time   // when the origin said that it has what is fetched; run's own
}

func newFill(c *Cache, id string, o origin.Origin, name string, cancel context.CancelCauseFunc) *fill {
	return &fill{
		c: c, id: id, name: name, origin: o, started: time.Now(), cancel: cancel,
		state:   fillState{size: -1},
		changed: make(chan struct{}),
		room:    space.NewReservation(c.pool, c.free),
		ended:   func() {},
	}
}

// update changes the state under the mutex and tells everybody who waits.
func (f *fill) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// run carries the fill from the first request to the origin to its end.
func (f *fill) run(ctx context.Context) {
	defer f.ended()
	leave, err := f.c.enterFill(ctx)
	if err != nil {
		f.fail(err)
		return
	}
	defer leave()
	src, err := f.start(ctx)
	if err != nil {
		f.fail(err)
		return
	}
	src.onBreak = func(err error, offset int64) {
		f.c.log.Log(ctx, f.level(slog.LevelWarn), "origin transfer broke off; resuming", "image", f.id, "offset", offset, "error", err)
	}
	err = f.transfer(ctx, src)
	f.mu.Lock()
	src.suspects = append(src.suspects, f.suspects...)
	f.mu.Unlock()
	src.blameIfWrong(err)
	switch {
	case err == nil:
		src.Close()
		f.commit()
	case errors.Is(err, errDetached):
		f.detach(src, err)
	default:
		src.Close()
		f.fail(err)
	}
}

// level is at which level the log has what goes wrong: the queue counts failures
// for which nobody else waits.
func (f *fill) level(l slog.Level) slog.Level {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queued && f.asked == 0 {
		return slog.LevelDebug
	}
	return l
}

// errDetached is how the steps of a fill say that it cannot be stored; what
// it wraps says why.
var errDetached = errors.New("not stored")

// start opens the origin's stream: behind what an earlier fill left, if the
// origin still has that version, or at the beginning.
func (f *fill) start(ctx context.Context) (*fetch, error) {
	if f.parked != nil {
		src, err := f.resume(ctx, *f.parked)
		if src != nil || err != nil {
			return src, err
		}
	}
	retries := f.c.cfg.Fill.Retries
	if f.replaces {
		retries = 0 // whoever waits is served what is stored
	}
	src, err := openFetch(ctx, f.origin, f.name, retries)
	if err != nil {
		return nil, err
	}
	f.answered = f.c.cfg.Now()
	f.update(func() {
		f.began, f.obj, f.state.size = true, src.obj, src.obj.Size
		f.sums = newDigester(src.obj.Digests)
		f.refused = cmp.Or(refusedBy(src.obj), f.refused, f.c.admits(src.obj.Size), f.c.disk.broken())
	})
	return src, nil
}

// transfer brings every byte to the disk and checks size and digest.
func (f *fill) transfer(ctx context.Context, src *fetch) error {
	if f.refused != nil {
		return notStored(ctx, f.refused)
	}
	r := f.c.seekRoom(ctx, f.obj.Size, f.room)
	defer r.end()
	if err := f.copy(ctx, src, r); err != nil {
		return err
	}
	return f.verify()
}

// copy brings every byte to the disk. The digester has seen them all when it
// returns.
func (f *fill) copy(ctx context.Context, src *fetch, r *roomSearch) error {
	h := newHasher(f.sums)
	in := inflow{f, src}
	buf, used := blocks.get(), 0
	defer func() {
		h.wait()
		blocks.put(buf)
	}()
	for ended := false; !ended; {
		n, stored, err := in.read(ctx, buf[used:])
		ended = errors.Is(err, io.EOF)
		if err != nil && !ended {
			return err
		}
		p := buf[used : used+n]
		if stored {
			err = f.publish(p, func() {})
		} else if err = f.store(ctx, p, ended, r); errors.Is(err, errDetached) {
			src.unread(p)
		}
		if err != nil {
			return err
		}
		if used += n; len(buf)-used < leastRead {
			h.in <- piece{p, buf}
			buf, used = blocks.get(), 0
		} else {
			h.in <- piece{p: p}
		}
		if err := f.c.throttle(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// leastRead is how much of a buffer must be free for another read to be worth
// its call.
const leastRead = 64 << 10

// store makes p readable, in memory while room is sought and on disk
// afterwards. After an error none of p is readable.
func (f *fill) store(ctx context.Context, p []byte, last bool, r *roomSearch) error {
	if err := f.c.admits(f.state.have + int64(len(p))); err != nil {
		return notStored(ctx, err)
	}
	if f.staged != nil && f.resumedBytes > 0 {
		if _, err := r.poll(ctx, true); err != nil { // there is no other place for the rest
			return notStored(ctx, err)
		}
	}
	if f.staged == nil {
		full := last || len(f.memory)+len(p) > memoryPrefix
		if len(f.memory) == 0 {
			r.soon(ctx)
		}
		granted, err := r.poll(ctx, full)
		switch {
		case err != nil:
			return notStored(ctx, err)
		case !granted:
			return f.publish(p, func() { f.memory = append(f.memory, p...) })
		}
		if err := f.grow(ctx, int64(len(p))); err != nil {
			return err
		}
		if err := f.toDisk(); err != nil {
			return err
		}
	} else if err := f.grow(ctx, int64(len(p))); err != nil {
		return err
	}
	if _, err := f.staged.Write(p); err != nil {
		return notStored(ctx, err)
	}
	return f.publish(p, func() {})
}

// notStored makes err a reason to detach, unless the service is stopping.
func notStored(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", errDetached, err)
}

// publish lets clients read p, which keep has put where they find it.
func (f *fill) publish(p []byte, keep func()) (err error) {
	f.update(func() {
		keep()
		if !f.state.wrote(int64(len(p))) {
			err = f.state.err
		}
	})
	f.taken()
	return err
}

// taken tells how much of the reservation the file system counts.
func (f *fill) taken() {
	if f.staged != nil {
		f.room.OnDisk(f.staged.Size(), max(f.state.have, f.staged.Allocated())-f.resumedBytes)
	}
}

// toDisk ends the reserving phase: the prefix moves from memory to a staged
// file.
func (f *fill) toDisk() error {
	staged, err := f.c.store.Stage(f.id)
	if err != nil {
		return fmt.Errorf("%w: %w", errDetached, err)
	}
	if f.obj.Size >= 0 {
		staged.Preallocate(min(f.room.Bytes(), f.obj.Size))
	}
	f.checkpoint(staged)
	if _, err := staged.Write(f.memory); err != nil {
		f.c.removeStaged(staged)
		staged.Release()
		return fmt.Errorf("%w: %w", errDetached, err)
	}
	f.update(func() {
		f.staged, f.memory = staged, nil
		f.state.granted()
	})
	f.taken()
	return nil
}

// grow reserves more when n more bytes would pass what is reserved.
func (f *fill) grow(ctx context.Context, n int64) error {
	f.mu.Lock()
	short, have := f.neededLocked()+n-f.room.Bytes(), f.state.have
	f.mu.Unlock()
	if short <= 0 {
		return nil
	}
	n = max(short, f.c.step(f.obj.Size, f.room.Bytes(), have))
	if err := f.c.reserve(ctx, n, f.room); err != nil {
		return notStored(ctx, err)
	}
	f.mu.Lock()
	staged := f.staged
	f.mu.Unlock()
	if staged != nil && f.obj.Size >= 0 {
		staged.Preallocate(min(f.room.Bytes(), f.obj.Size))
	}
	return nil
}

// neededLocked returns how many bytes there are, in order and ahead. The caller
// holds f.mu.
func (f *fill) neededLocked() int64 {
	n := f.state.have
	for _, s := range f.segments {
		n += max(0, s.have-max(s.from, f.state.have))
	}
	return n
}

// verify checks length and digest, and that an image whose size nobody announced
// is not too small for one.
func (f *fill) verify() (err error) {
	f.update(func() {
		if !f.state.ended() {
			err = f.state.err
		}
	})
	if err != nil {
		return err
	}
	if least := f.origin.Terms().Expect.MinSize; f.state.have < least {
		return fmt.Errorf("%w: it has %d bytes, an image of this origin has at least %d", ErrVerify, f.state.have, least)
	}
	return f.sums.verify()
}

// commit publishes the verified image in the cache. A failure costs the
// cache, not the clients.
func (f *fill) commit() {
	var bar error
	f.update(func() {
		if !f.state.verified() {
			bar = f.state.bar
		}
	})
	if bar != nil {
		f.c.history.Happened(slog.LevelInfo, f.id, NotStored, bar.Error())
		f.finish()
		return
	}
	im, err := f.c.commitStaged(f.staged, f.meta(), f.room, f.answered, f.origin.Terms().TrustFor(f.obj.Caching))
	if err != nil {
		f.c.storeFailed(f.id, err, f.level)
	}
	f.reportRequests(im != nil)
	f.update(func() {
		f.image = im
		f.state.committed()
	})
	f.finish()
}

// refusal says why what comes is not to be stored, by the word of the origin.
func (f *fill) refusal() origin.Refusal {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.obj.Refused
}

func (f *fill) meta() store.Meta {
	return store.Meta{
		Version:       f.obj.Version,
		SHA256:        f.sums.sha256(),
		URL:           f.obj.URL,
		Name:          hiddenName(f.id, f.name),
		OriginModTime: f.obj.LastModified,
		Label:         known{Validators: f.obj.Validators(), MustRevalidate: f.obj.Caching.MustRevalidate}.label(),
		FetchMS:       uint32(min(time.Since(f.started).Milliseconds(), math.MaxUint32)),
	}
}

// detach lets the clients go on by themselves; one of them takes the
// transfer over where it stands.
func (f *fill) detach(src *fetch, err error) {
	f.c.forget(f)
	f.c.storeFailed(f.id, err, f.level)
	var refused notAdmitted
	if errors.As(err, &refused) {
		f.c.passed.add(f.id, f.obj, refused, f.c.cfg.Now())
	}
	given := false
	f.update(func() {
		f.state.detach(err)
		if src.offset == f.state.have && f.clients > 0 {
			f.rest, given = src, true
		}
	})
	if !given {
		src.Close()
	}
	f.finish()
}

// fail ends the fill for all its clients.
func (f *fill) fail(err error) {
	f.c.forget(f)
	f.c.fetchFailed(f.id, err, f.level)
	f.c.absent.add(f.id, err, f.origin.Terms(), f.c.cfg.Now())
	f.update(func() {
		if f.state.phase != failed {
			f.state.fail(err)
		}
	})
	f.finish()
}

// finish takes the name of a file that was not committed away, and leaves the
// rest to the last client.
func (f *fill) finish() {
	f.c.forget(f)
	f.room.Written()
	if f.staged != nil && f.image == nil {
		f.putAway()
	}
	if f.state.phase != failed {
		f.reportRequests(f.image != nil)
	}
	f.mu.Lock()
	f.finished = true
	last := f.clients == 0
	f.mu.Unlock()
	if last {
		f.release()
	}
}

// putAway finds the place for a file that is not stored: where it can be
// looked at, where the next fill goes on with it, or none.
func (f *fill) putAway() {
	f.mu.Lock()
	ended, err := f.state.phase, f.state.err
	f.mu.Unlock()
	switch {
	case ended != failed:
		f.c.removeStaged(f.staged)
	case errors.Is(err, ErrVerify), errors.Is(err, errAbandoned):
		f.c.keepStaged(f.staged)
	case errors.Is(err, sdk.ErrUnavailable) && f.staged.Resumable():
		f.c.park(f.staged, f.obj)
		f.mu.Lock()
		barred := f.state.bar != nil
		f.mu.Unlock()
		if barred {
			f.c.unpark(f.id)
		}
	default:
		f.c.removeStaged(f.staged)
	}
}

// leave ends a client's use of the fill.
func (f *fill) leave() {
	f.mu.Lock()
	f.clients--
	last := f.finished && f.clients == 0
	idle := f.clients == 0 && !f.finished && !f.wanted && !f.c.cfg.Fill.KeepFilling
	f.mu.Unlock()
	if idle {
		f.cancel(errAbandoned)
	}
	if last {
		f.release()
	}
}

// errAbandoned ends a fill that nobody follows where the configuration does
// not let it go on.
var errAbandoned = fmt.Errorf("every client left, and keep_filling is off: %w", sdk.ErrUnavailable)

// release is called once, when the fill is over and nobody reads it.
func (f *fill) release() {
	if f.rest != nil {
		f.rest.Close()
	}
	f.cancel(nil)
	if f.staged != nil {
		f.staged.Release()
	}
	if f.image != nil {
		f.c.index.Close(f.image)
	}
	f.room.Release()
}

// reportRequests tells of the requests that have come to the fill so far. The one that
// began it missed; for those that followed it the origin was not asked again, so
// that they are hits if the image is stored.
func (f *fill) reportRequests(stored bool) {
	f.mu.Lock()
	n, began, size := f.asked, f.askedFor, f.state.size
	f.asked, f.askedFor = 0, false
	f.mu.Unlock()
	for i := range n {
		outcome := trace.Hit
		switch {
		case size < 0:
			return
		case !stored:
			outcome = trace.Passed
		case began && i == 0:
			outcome = trace.Stored
		}
		f.c.requests.Report(sdk.KeyOf(f.id), size, outcome, f.c.cfg.Now())
	}
}

// storeFailed tells that an image could not be stored. Its clients do not
// notice. The log has it at the level that is made of the usual one.
func (c *Cache) storeFailed(id string, err error, of func(slog.Level) slog.Level) {
	refused := errors.Is(err, errNotAdmitted) // which is as it should be
	level := slog.LevelWarn
	if refused {
		level = slog.LevelInfo
	}
	reason := strings.TrimPrefix(err.Error(), errDetached.Error()+": ")
	c.history.Happened(of(level), id, NotStored, reason)
	if !refused && !errors.Is(err, ErrNoSpace) && !errors.Is(err, store.ErrTaken) {
		c.disk.fail(storeError{reason, err})
	}
}

// fetchFailed tells that an image could not be fetched, as storeFailed does.
func (c *Cache) fetchFailed(id string, err error, of func(slog.Level) slog.Level) {
	switch {
	case errors.Is(err, errStopped):
		c.history.Happened(slog.LevelInfo, id, Interrupted, "the service stopped while the image was fetched")
	case errors.Is(err, ErrNotFound): // an answer like any other
		c.history.Happened(of(slog.LevelInfo), id, NotFetched, err.Error())
	default:
		c.history.Happened(of(slog.LevelWarn), id, NotFetched, err.Error())
	}
}
