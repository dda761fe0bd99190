package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
)

// originTimeout bounds a question to the origin about a cached image. After that
// the image is served without an answer.
const originTimeout = 5 * time.Second

// known is what is stored with an image about what its origin said.
type known struct {
	Validators     origin.Validators `json:"validators"`
	MustRevalidate bool              `json:"must_revalidate,omitempty"` // it must not be served stale
	Written        bool              `json:"written,omitempty"`         // a client wrote it: it does not come from the origin
}

// label returns k as it is stored.
func (k known) label() string {
	b, err := json.Marshal(k)
	if err != nil {
		panic(err) // every field can be written as JSON
	}
	return string(b)
}

// knownOf returns what is known about a stored image. If another program, or an
// older version of this one, stored it, only the version says something.
func knownOf(info store.Info) known {
	var k known
	if info.Label != "" && json.Unmarshal([]byte(info.Label), &k) == nil {
		return k
	}
	k.Validators = origin.ValidatorsOf(info.Version, info.Size)
	if k.Validators.LastModified.IsZero() {
		k.Validators.LastModified = info.OriginModTime
	}
	k.Written = info.URL == "" && info.SHA256 != "" && info.Version == "sha256:"+info.SHA256
	return k
}

// finding is the result of a question to the origin about a cached image.
type finding struct {
	changed bool  // the origin has another version
	stale   bool  // the origin did not answer; the image is served all the same
	err     error // not nil: the image is not to be served
}

// question is a question to an origin. Any number of requests wait for its answer.
type question struct {
	done    chan struct{}
	finding finding // once done is closed
}

// questions holds the questions that were not answered yet, by image.
type questions struct {
	mu      sync.Mutex
	running map[*index.Image]*question
}

// join returns the unanswered question about an image, or a new one. ours says that
// it is new and that the caller has to ask it.
func (qs *questions) join(im *index.Image) (q *question, ours bool) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if q := qs.running[im]; q != nil {
		return q, false
	}
	if qs.running == nil {
		qs.running = map[*index.Image]*question{}
	}
	q = &question{done: make(chan struct{})}
	qs.running[im] = q
	return q, true
}

// end gives the answer to everybody who waits for it.
func (qs *questions) end(im *index.Image, found finding) {
	qs.mu.Lock()
	q := qs.running[im]
	delete(qs.running, im)
	qs.mu.Unlock()
	q.finding = found
	close(q.done)
}

type freshKey struct{}

// WithFresh says that for the requests of a context the origin is asked now, even if
// it was asked a moment ago.
func WithFresh(ctx context.Context) context.Context { return context.WithValue(ctx, freshKey{}, true) }

// WantsFresh reports whether a context comes from [WithFresh].
func WantsFresh(ctx context.Context) bool { return ctx.Value(freshKey{}) != nil }

// revalidate finds out whether a cached image is still that of its origin, and asks
// the origin if that is due. The error is that of the context.
func (c *Cache) revalidate(ctx context.Context, k *cachedContent) (finding, error) {
	now, terms := c.cfg.Now(), k.source.Terms()
	switch {
	case WantsFresh(ctx): // asked in any case
	case terms.Immutable && terms.Frozen(knownOf(k.file.Info()).Validators), !k.im.Check.Due(now, terms.RevalidateAfter):
		return finding{}, nil
	case k.im.Check.Paused(now):
		if found := unconfirmed(knownOf(k.file.Info()), terms, errPaused); found.err == nil {
			return found, nil
		} // if it must not be served stale, the origin is asked all the same
	}
	q, ours := c.questions.join(k.im)
	if ours {
		info, o, name := k.file.Info(), k.source, k.name
		c.work.Go(func() { c.questions.end(k.im, c.confirm(k.im, info, o, name)) })
	}
	if terms.Revalidate == origin.RevalidateBehind && !WantsFresh(ctx) && !k.im.Check.Refuted() {
		return finding{stale: true}, nil
	}
	select {
	case <-q.done:
		return q.finding, nil
	case <-ctx.Done():
		return finding{}, context.Cause(ctx)
	}
}

// confirm asks the origin about an image.
func (c *Cache) confirm(im *index.Image, info store.Info, o origin.Origin, name string) finding {
	stored, terms := knownOf(info), o.Terms()
	if stored.Written {
		im.Check.Confirm(c.cfg.Now(), forever)
		return finding{}
	}
	ctx, cancel := context.WithTimeout(c.ctx, originTimeout)
	defer cancel()
	obj, err := c.ask(ctx, info.ID, o, name)
	if err == nil && obj.Refused.NotAnImage() {
		err = fmt.Errorf("%w: it did not send an image: %s", origin.ErrUnavailable, obj.Refused)
	}
	if err != nil {
		return c.notConfirmed(im, stored, o, err)
	}
	now := c.cfg.Now()
	c.reach.answered(o.Name())
	verdict, why := origin.Judge(stored.Validators, obj.Validators(), terms)
	if verdict == origin.Unknown && info.Label == "" && info.Version == "" {
		verdict = origin.Same // another program stored it, and there is no way to know better
	}
	if verdict == origin.Same {
		im.Check.Confirm(now, terms.TrustFor(obj.Caching))
		return finding{}
	}
	im.Check.Refute()
	c.log.Info("the origin has another version; the image is fetched again", "image", info.ID, "cached", info.Version, "origin", obj.Version, "by", string(why))
	return finding{changed: true}
}

// forever is how long an image that does not come from the origin is trusted.
const forever = time.Duration(1<<63 - 1)

// errPaused says that the origin could not be asked a moment ago.
var errPaused = fmt.Errorf("%w: it could not confirm the image a moment ago", origin.ErrUnavailable)

// notConfirmed says what happens to an image that the origin does not confirm.
func (c *Cache) notConfirmed(im *index.Image, stored known, o origin.Origin, err error) finding {
	var f *origin.Failure
	credential := errors.As(err, &f) && f.Credential
	switch {
	case errors.Is(err, origin.ErrNotFound):
		im.Check.Refute()
		c.reach.answered(o.Name())
		return finding{err: err}
	case errors.Is(err, origin.ErrDenied) && !(credential && o.Terms().OnDenied == origin.DeniedServeStale):
		im.Check.Refute()
		return finding{err: err}
	}
	var least time.Duration
	if f != nil {
		least = f.RetryAfter
	}
	im.Check.Fail(c.cfg.Now(), least)
	c.reach.failed(o.Name(), err)
	return unconfirmed(stored, o.Terms(), err)
}

// unconfirmed says whether an image is served although the origin could not be
// asked about it, because of err.
func unconfirmed(stored known, terms origin.Terms, err error) finding {
	switch {
	case terms.FailWhenDown:
		return finding{err: fmt.Errorf("the origin cannot confirm the cached image, and on_origin_down is \"fail\": %w", err)}
	case stored.MustRevalidate && !terms.IgnoreCacheControl:
		return finding{err: fmt.Errorf("the origin cannot confirm the cached image, and its Cache-Control forbids serving it unconfirmed: %w", err)}
	}
	return finding{stale: true}
}

// ask asks an origin to describe an image, unless it refused that a moment ago.
func (c *Cache) ask(ctx context.Context, id string, o origin.Origin, name string) (origin.Object, error) {
	if err := c.absent.err(id, c.cfg.Now()); err != nil {
		return origin.Object{}, err
	}
	obj, err := o.Stat(ctx, name)
	c.absent.add(id, err, o.Terms(), c.cfg.Now())
	return obj, err
}

// digestVersion reports whether a version is a digest.
func digestVersion(v string) bool {
	algorithm, _, ok := strings.Cut(v, ":")
	return ok && strength[algorithm] > 0
}

// deliversNothing reports whether a cached image is served because a fill to replace
// it failed with err: the origin has announced another version and cannot deliver
// it. The configuration may forbid that.
func (c *Cache) deliversNothing(im *index.Image, o origin.Origin, err error) bool {
	if !errors.Is(err, origin.ErrUnavailable) && !errors.Is(err, origin.ErrChanged) || o.Terms().FailWhenDown {
		return false
	}
	var least time.Duration
	var f *origin.Failure
	if errors.As(err, &f) {
		least = f.RetryAfter
	}
	im.Check.Fail(c.cfg.Now(), least)
	c.reach.failed(o.Name(), err)
	return true
}
