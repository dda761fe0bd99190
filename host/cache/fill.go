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

// blockSize is the unit in which images are verified and copied.
const blockSize = store.BlockSize

const (
	// memoryPrefix is what a fill holds in memory while room is sought: at
	// the speed of a gigabit link it is a thirtieth of a second.
	memoryPrefix = 4 << 20
	// roomPatience is how long a fill waits for room before its image is
	// passed through: evicting a GiB takes a quarter of a second.
	roomPatience = 2 * time.Second
)

// errDeleted says why a fill or write is not committed: its image was deleted.
var errDeleted = errors.New("the image was deleted while it was fetched")

// fill is one transfer of an image from its origin into the store. Any number of
// clients read behind the write position. It belongs to the service, and goes on
// when clients leave. One goroutine, in run, drives it.
type fill struct {
	c        *Cache
	id       string
	name     string // the origin's name of the image
	replaces bool   // it replaces a cached image
	origin   origin.Origin
	started  time.Time
	cancel   context.CancelCauseFunc

	// mu guards what follows. It is not held during I/O.
	mu       sync.Mutex
	state    fillState
	changed  chan struct{} // closed and replaced at each change
	began    bool          // obj is known
	obj      origin.Object
	memory   []byte        // the readable bytes while reserving, and after a refusal
	staged   *store.Staged // the readable bytes afterwards
	clients  int
	segments []*segment       // parts that are, or were, ahead of state.have
	suspects []origin.Suspect // those who sent them
	sums     *digester        // of the readable bytes; only run uses it until the fill is over
	rest     *fetch           // detached: the origin's stream from state.have on; the first client that needs it takes it
	image    *index.Image     // done: what was stored, with the fill as a reader; nil: nothing
	wanted   bool             // the queue wants the image, even if all clients leave
	queued   bool             // the queue began it
	asked    int              // number of requests that reportRequests has still to report
	askedFor bool             // the request that began the fill is among them
	finished bool             // run has ended

	ended        func() // called when the fill is over; only run uses it
	refused      error  // why the image is not to be stored even if there is room; known when began is set
	room         *space.Reservation
	parked       *parkedFill // what an earlier fill left of the image; only run uses it
	resumedBytes int64       // number of bytes taken over from parked
	answered     time.Time   // when the origin answered with the version that is fetched; only run uses it
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

// update changes the state under the mutex and wakes everybody who waits.
func (f *fill) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// run does the whole work of the fill, from the request to the origin to the end.
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
		f.c.log.Log(ctx, f.level(slog.LevelWarn), "the transfer from the origin broke off; it is continued", "image", f.id, "offset", offset, "error", err)
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

// level returns the level at which a failure is logged. It is l, or lower if only
// the queue waits for the image: the queue logs a count of its failures.
func (f *fill) level(l slog.Level) slog.Level {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queued && f.asked == 0 {
		return slog.LevelDebug
	}
	return l
}

// errDetached is the error of a step of a fill when the image cannot be stored. It
// is wrapped together with the reason.
var errDetached = errors.New("not stored")

// start opens the origin's stream: after the bytes that an earlier fill left, if
// the origin still has that version, or else at the beginning.
func (f *fill) start(ctx context.Context) (*fetch, error) {
	if f.parked != nil {
		src, err := f.resume(ctx, *f.parked)
		if src != nil || err != nil {
			return src, err
		}
	}
	retries := f.c.cfg.Fill.Retries
	if f.replaces {
		retries = 0 // clients that wait can be served the cached image
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

// transfer copies every byte to the disk and checks size and digest.
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

// copy copies every byte to the disk. When it returns, the digester has seen them
// all.
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

// leastRead is how many bytes of a buffer must be free for another read into it.
// For fewer a call is not worth its cost.
const leastRead = 64 << 10

// store makes p readable: in memory while room is sought, and on disk afterwards.
// After an error nothing of p is readable.
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

// notStored makes err a reason to detach the fill, unless the service is stopping.
func notStored(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", errDetached, err)
}

// publish lets clients read p. It calls keep, which puts p where they find it.
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

// taken tells the reservation how many of its bytes the file system counts as used.
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

// grow reserves more bytes if n more bytes do not fit into the reservation.
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

// neededLocked returns how many bytes have come, in order and in segments. The
// caller holds f.mu.
func (f *fill) neededLocked() int64 {
	n := f.state.have
	for _, s := range f.segments {
		n += max(0, s.have-max(s.from, f.state.have))
	}
	return n
}

// verify checks size and digest, and that the image has the least size that is
// configured for its origin.
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
		return fmt.Errorf("%w: it has %d bytes; expected at least the %d of min_size", ErrVerify, f.state.have, least)
	}
	return f.sums.verify()
}

// commit makes the verified image part of the cache. If that fails, the clients get
// the image all the same.
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

// refusal says why the origin's answer is not to be stored.
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

// detach lets the clients continue by themselves. One of them takes over the
// transfer at its current offset.
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

// finish puts away a file that was not committed. The last client to leave does the
// rest.
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

// putAway moves a file that is not stored to where somebody can examine it, parks
// it for the next fill, or removes it.
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

// errAbandoned ends a fill that nobody follows any more, if keep_filling is off.
var errAbandoned = fmt.Errorf("every client left, and keep_filling is off: %w", sdk.ErrUnavailable)

// release frees what the fill holds. It is called once, when the fill is over and
// nobody reads it.
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

// reportRequests reports the requests that have come to the fill since the last
// call. The one that began it was a miss. For the others the origin was not asked
// again, so they are hits if the image is stored.
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

// storeFailed logs and remembers that an image could not be stored, which its
// clients do not notice. of returns the level to log at for the usual one.
func (c *Cache) storeFailed(id string, err error, of func(slog.Level) slog.Level) {
	refused := errors.Is(err, errNotAdmitted) // nothing is wrong then
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

// fetchFailed logs and remembers that an image could not be fetched, as storeFailed
// does.
func (c *Cache) fetchFailed(id string, err error, of func(slog.Level) slog.Level) {
	switch {
	case errors.Is(err, errStopped):
		c.history.Happened(slog.LevelInfo, id, Interrupted, "the service stopped while the image was fetched")
	case errors.Is(err, ErrNotFound): // nothing is wrong then
		c.history.Happened(of(slog.LevelInfo), id, NotFetched, err.Error())
	default:
		c.history.Happened(of(slog.LevelWarn), id, NotFetched, err.Error())
	}
}
