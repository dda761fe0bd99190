package cache

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

type rangeKey struct{}

// WithRange says that the requests of a context ask for ranges of an image. If the
// image is not stored, only these ranges are fetched from the origin.
func WithRange(ctx context.Context) context.Context { return context.WithValue(ctx, rangeKey{}, true) }

func wantsRange(ctx context.Context) bool { return ctx.Value(rangeKey{}) != nil }

// passed remembers for a while which images were passed through because they are
// not to be stored, and what the origin said about them.
type passed struct {
	mu   sync.Mutex
	byID map[string]passedObject
}

type passedObject struct {
	obj   origin.Object
	why   error
	until time.Time
}

const (
	// passedFor is how long what the origin said is used. A client that reads an
	// image in ranges asks every few seconds, and each answer is checked to be
	// of the same version.
	passedFor = time.Minute
	// maxPassed bounds the memory to some MiB.
	maxPassed = 4096
)

func (p *passed) add(id string, obj origin.Object, why error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID == nil || len(p.byID) >= maxPassed {
		p.byID = map[string]passedObject{}
	}
	p.byID[id] = passedObject{obj, why, now.Add(passedFor)}
}

func (p *passed) get(id string, now time.Time) (passedObject, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, ok := p.byID[id]
	if ok && !now.Before(o.until) {
		delete(p.byID, id)
		ok = false
	}
	return o, ok
}

func (p *passed) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byID, id)
}

// openParts opens an image that is not to be stored for a request of ranges. why is
// the reason; nil: openParts looks whether the image was passed through a moment
// ago. It returns nil for other requests, and if the origin cannot be asked for
// parts.
func (c *Cache) openParts(ctx context.Context, id string, o origin.Origin, name string, why error) (Content, error) {
	if !wantsRange(ctx) {
		return nil, nil
	}
	known, ok := c.passed.get(id, c.cfg.Now())
	if !ok {
		if why == nil {
			return nil, nil // it may be stored
		}
		obj, err := c.ask(ctx, id, o, name)
		if err != nil {
			return nil, err
		}
		known = passedObject{obj: obj, why: why}
	}
	if known.obj.Size < 0 || known.obj.Version == "" {
		return nil, nil
	}
	out := Outcome{Detail: detailOf(known.why)}
	return &partContent{meta: originMeta(id, known.obj, out), c: c, origin: o, name: name, obj: known.obj, why: known.why}, nil
}

// partContent is an image that is not stored and is read in ranges.
type partContent struct {
	meta
	c      *Cache
	origin origin.Origin
	name   string
	obj    origin.Object
	why    error // why it is not to be stored
}

// CopyTo implements [Content]. It fails if the range is not of the version in Info.
func (k *partContent) CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if n < 0 || off+n > k.obj.Size {
		n = k.obj.Size - off
	}
	if n <= 0 {
		return 0, nil
	}
	if off == 0 && n == k.obj.Size {
		return k.copyWhole(ctx, w)
	}
	r := part(k.name, k.obj, off, n)
	r.Alone = true
	m, err := copyRange(ctx, w, k.origin, r)
	k.c.stats.served.Add(uint64(m))
	k.c.stats.fetched.Add(uint64(m))
	if err != nil {
		k.c.passed.forget(k.info.ID)
	}
	return m, err
}

// copyWhole copies the whole image, which is verified like any other that is passed
// through.
func (k *partContent) copyWhole(ctx context.Context, w io.Writer) (int64, error) {
	content, err := k.c.passThrough(k.info.ID, k.origin, k.name, k.why).open(ctx, false)
	if err != nil {
		return 0, err
	}
	defer content.Close()
	if now := content.Info().Version; now != k.obj.Version {
		k.c.passed.forget(k.info.ID)
		return 0, fmt.Errorf("%w: version %s became %s", origin.ErrChanged, k.obj.Version, now)
	}
	return content.CopyTo(ctx, w, 0, -1)
}

// Close implements [Content].
func (k *partContent) Close() error { return nil }
