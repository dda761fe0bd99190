package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/sdk"
)

// errNotAdmitted says that an image is not to be stored, even if there is room. It
// is passed through.
var errNotAdmitted = errors.New("not admitted")

type clientKey struct{}

// WithClient names the client of the requests that are made with the context, for
// the bound on how many fills one client may start at once. There is no bound for
// an empty name.
func WithClient(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, clientKey{}, name)
}

// clientOf returns the name that [WithClient] gave, or "".
func clientOf(ctx context.Context) string {
	name, _ := ctx.Value(clientKey{}).(string)
	return name
}

// request says who asks for an image.
type request struct {
	client string // "": unknown
	wanted bool   // the image is stored in any case
	queued bool   // the queue asks
}

// requestOf returns the request of a client for an image that is not cached. An
// image that is pinned, queued or partly fetched is stored in any case.
func (c *Cache) requestOf(ctx context.Context, id string) request {
	wanted := c.admission.open() || c.pins.Holds(id, c.cfg.Now()) || c.parked.has(id) || c.store.Queued(id)
	return request{client: clientOf(ctx), wanted: wanted}
}

// admission decides whether an image that is not cached is stored: it must be
// asked for often enough, and one client may not start too many fills at once. So
// a client that reads every image once does not displace the others.
type admission struct {
	after     int // an image is stored from this request on, counted from 1
	perClient int // number of fills that one client may start at once; 0: no bound

	mu      sync.Mutex
	asked   map[sdk.Key]int // requests of images that were not stored, by key
	before  map[sdk.Key]int // older ones
	running map[string]int  // number of running fills that a client has started
}

// remembered is for how many images requests are counted at least; they take some
// MiB. The count of an image starts again once requests for so many others came
// after its last one.
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

// begin counts a fill of a client until end is called.
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

// admits returns why an image that has at least size bytes is not to be stored, or
// nil.
func (c *Cache) admits(size int64) error {
	if most := c.cfg.MaxImageSize; most > 0 && size > most {
		return notAdmitted{DetailMaxImageSize, fmt.Sprintf("larger than the %d bytes of max_image_size", most)}
	}
	return nil
}

// passThrough starts a transfer for one client that is not stored: a fill that is
// detached as soon as the origin answers.
func (c *Cache) passThrough(id string, o origin.Origin, name string, why error) *fill {
	ctx, cancel := context.WithCancelCause(c.ctx)
	f := newFill(c, id, o, name, cancel)
	f.refused, f.clients, f.asked, f.askedFor = why, 1, 1, true
	c.work.Go(func() { f.run(ctx) })
	return f
}
