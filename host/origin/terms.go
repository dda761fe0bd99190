package origin

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/time/rate"
)

// Terms says how much load an origin may get, and how far its answers are trusted.
// The zero value trusts nothing and bounds nothing.
type Terms struct {
	RevalidateAfter time.Duration // how long a version is trusted without asking again; 0: a Stat on each hit
	NegativeTTL     time.Duration // how long it is remembered that there is no such image; 0: not at all
	FailWhenDown    bool          // a cached image that cannot be confirmed is refused; otherwise it is served
	Concurrency     int           // transfers at once; further ones wait; 0: no bound
	Bandwidth       int64         // bytes a second, all transfers together; 0: no bound
	MinRate         int64         // bytes a second, below which a transfer breaks off; 0: no bound

	Immutable  bool        // a name whose image has a declared digest never gets another image
	Validators []Validator // what counts when two answers are compared; nil: everything
	Revalidate Revalidate  // when a hit that has to be confirmed is served; "": RevalidateBefore
	OnDenied   OnDenied    // what happens to a cached image when the origin refuses our credential; "": DeniedRefuse

	IgnoreCacheControl bool   // ignore what the origin says about storing its images
	Expect             Expect // which answers are images
}

// Revalidate says when a cached image that has to be confirmed is served.
type Revalidate string

// The values of [Revalidate].
const (
	RevalidateBefore Revalidate = "before" // after the origin was asked
	RevalidateBehind Revalidate = "behind" // at once; the origin is asked meanwhile
)

// OnDenied says what happens to a cached image when the origin refuses our
// credential: see [Failure].
type OnDenied string

// The values of [OnDenied].
const (
	DeniedRefuse     OnDenied = "refuse"
	DeniedServeStale OnDenied = "serve_stale"
)

// ErrSlow says that a transfer was slower than the terms allow. It is an
// [ErrUnavailable].
var ErrSlow = fmt.Errorf("%w: slower than min_rate", ErrUnavailable)

// Bound returns an origin that is o within the bounds of its terms.
func Bound(o Origin) Origin {
	t := o.Terms()
	if t.Concurrency <= 0 && t.Bandwidth <= 0 && t.MinRate <= 0 {
		return o
	}
	b := &bounded{Origin: o, terms: t}
	if t.Concurrency > 0 {
		b.slots = make(chan struct{}, t.Concurrency)
	}
	if t.Bandwidth > 0 {
		b.rate = rate.NewLimiter(rate.Limit(t.Bandwidth), maxRead)
	}
	return b
}

// maxRead is how many bytes of a bounded transfer are read at once. It is also the
// burst of the bandwidth.
const maxRead = 1 << 20

// bounded is an origin that keeps the bounds of its terms.
type bounded struct {
	Origin
	terms Terms
	slots chan struct{} // nil: no bound
	rate  *rate.Limiter // nil: no bound
}

// Open implements [Origin]. It waits for its turn, which lasts until the body
// is closed.
func (b *bounded) Open(ctx context.Context, r Request) (Object, io.ReadCloser, error) {
	leave, err := b.enter(ctx)
	if err != nil {
		return Object{}, nil, err
	}
	obj, body, err := b.Origin.Open(ctx, r)
	if err != nil {
		leave()
		return obj, nil, err
	}
	return obj, &boundedBody{ReadCloser: body, b: b, ctx: ctx, leave: leave}, nil
}

func (b *bounded) enter(ctx context.Context) (leave func(), err error) {
	if b.slots == nil {
		return func() {}, nil
	}
	select {
	case b.slots <- struct{}{}:
		return func() { <-b.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// boundedBody is the body of a bounded transfer.
type boundedBody struct {
	io.ReadCloser
	b     *bounded
	ctx   context.Context
	leave func()
	pace  pace
	err   error // of the last read; later reads return it again
}

func (r *boundedBody) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	begun := time.Now()
	n, err := r.ReadCloser.Read(p[:min(len(p), maxRead)])
	if err == nil && r.b.terms.MinRate > 0 && r.pace.slow(n, time.Since(begun), r.b.terms.MinRate) {
		err = ErrSlow
	}
	if r.b.rate != nil && n > 0 {
		if wait := r.b.rate.WaitN(r.ctx, n); wait != nil && err == nil {
			err = cause(r.ctx, wait)
		}
	}
	r.err = err
	return n, err
}

// cause returns why a wait ended: the cause of the context if that has ended.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return fmt.Errorf("%w: wait for bandwidth: %w", ErrUnavailable, err)
}

// Close ends the turn. It may be called again.
func (r *boundedBody) Close() error {
	err := r.ReadCloser.Close()
	if r.leave != nil {
		r.leave()
		r.leave = nil
	}
	return err
}

// pace measures the rate of a transfer while it is being read: time between two
// reads does not count.
type pace struct {
	bytes  int64
	waited time.Duration
}

// paceWindow is the time over which the rate is measured: longer than a retransmit
// or a pause of a busy server.
const paceWindow = 10 * time.Second

// slow counts a read. If the read ends a window, slow reports whether that was
// slower than least bytes a second.
func (p *pace) slow(n int, took time.Duration, least int64) bool {
	p.bytes += int64(n)
	p.waited += took
	if p.waited < paceWindow {
		return false
	}
	slow := float64(p.bytes) < float64(least)*p.waited.Seconds()
	*p = pace{}
	return slow
}
