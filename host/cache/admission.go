package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/sdk"
)

// errNotAdmitted says that an image is not to be stored, whatever room there
// is. It is passed through.
var errNotAdmitted = errors.New("not admitted")

type clientKey struct{}

// WithClient names the client of the requests that are made with the context,
// for the bound on what one client may have stored at once. An empty name is
// nobody in particular, and has no bound.
func WithClient(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, clientKey{}, name)
}

// clientOf returns the name that [WithClient] gave, or "".
func clientOf(ctx context.Context) string {
	name, _ := ctx.Value(clientKey{}).(string)
	return name
}

// request is who asks for an image.
type request struct {
	client string // "": nobody in particular
	wanted bool   // the image is stored in any case
	queued bool   // it is the queue that asks
}

// requestOf says who asks for an image that is not cached. One that is pinned,
// queued or half fetched is wanted whoever asks.
func (c *Cache) requestOf(ctx context.Context, id string) request {
	wanted := c.admission.open() || c.pins.Holds(id, c.cfg.Now()) || c.parked.has(id) || c.store.Queued(id)
	return request{client: clientOf(ctx), wanted: wanted}
}

// admission decides which images that nobody has yet are stored: those that
// are asked for often enough, and not too many at once for one client, so that
// a scan passes through and leaves the cache as it was.
type admission struct {
	after     int // the request of an image from which on it is stored
	perClient int // images that one client may begin at once; 0: no bound

	mu      sync.Mutex
	asked   map[sdk.Key]int // requests of images that were not stored, by key
	before  map[sdk.Key]int // older ones
	running map[string]int  // fills that a client has begun, by client
}

// remembered is how many images are counted at least: some MiB. What was asked
// for before so many others begins anew.
const remembered = 1 << 16

// open reports whether every image is admitted.
func (a *admission) open() bool { return a.after <= 1 && a.perClient <= 0 }

// ask counts a request for an image that is not cached, by a client, and
// returns why it is not to be stored, or nil.
func (a *admission) ask(id, client string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := a.count(id); n < a.after {
		return notAdmitted{DetailAdmitAfter, fmt.Sprintf("request %d of the %d of admit_after", n, a.after)}
	}
	if client != "" && a.perClient > 0 && a.running[client] >= a.perClient {
		return notAdmitted{DetailColdPerClient, fmt.Sprintf("its client has %d images fetched at once, the bound of cold_per_client", a.running[client])}
	}
	return nil
}

func (a *admission) count(id string) int {
	if a.after <= 1 {
		return 1
	}
	key := sdk.KeyOf(id)
	n := max(a.asked[key], a.before[key]) + 1
	if a.asked == nil || len(a.asked) >= remembered {
		a.asked, a.before = map[sdk.Key]int{}, a.asked
	}
	a.asked[key] = n
	return n
}

// begin counts a fill for its client until end is called.
func (a *admission) begin(client string) (end func()) {
	if client == "" || a.perClient <= 0 {
		return func() {}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running == nil {
		a.running = map[string]int{}
	}
	a.running[client]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.running[client]--; a.running[client] == 0 {
			delete(a.running, client)
		}
	}
}

// admits returns why an image of size bytes, or of at least so many, is not to
// be stored, or nil.
func (c *Cache) admits(size int64) error {
	if most := c.cfg.MaxImageSize; most > 0 && size > most {
		return notAdmitted{DetailMaxImageSize, fmt.Sprintf("larger than the %d bytes of max_image_size", most)}
	}
	return nil
}

// passThrough starts a transfer of which nothing is stored, for one client: a
// fill that is detached as soon as the origin answers.
func (c *Cache) passThrough(id string, o origin.Origin, name string, why error) *fill {
	ctx, cancel := context.WithCancelCause(c.ctx)
	f := newFill(c, id, o, name, cancel)
	f.refused, f.clients, f.asked, f.askedFor = why, 1, 1, true
	c.work.Go(func() { f.run(ctx) })
	return f
}
