package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
)

// queue fetches queued images, in the order in which they were queued. The
// queue itself is the files of queue/, so it outlives the process.
type queue struct {
	c       *Cache
	wake    chan struct{}
	slots   chan struct{} // one for each prefetcher
	retries map[string]*retry
	results chan fetched
	anew    atomic.Bool // the pauses of retries are over
}

// retry says when an image that could not be fetched is tried again.
type retry struct {
	tries int
	next  time.Time
	busy  bool
}

// fetched is the end of a prefetch.
type fetched struct {
	id  string
	err error
}

const (
	// queuePoll is how often the directory is looked at, as others may add
	// markers.
	queuePoll = 5 * time.Second
	// firstPrefetchRetry and maxPrefetchRetry bound the pause after a failed
	// prefetch: a poison image costs a request in five minutes.
	firstPrefetchRetry = time.Second
	maxPrefetchRetry   = 5 * time.Minute
)

func newQueue(c *Cache) *queue {
	return &queue{
		c: c, wake: make(chan struct{}, 1), slots: make(chan struct{}, c.cfg.Prefetchers),
		retries: map[string]*retry{}, results: make(chan fetched),
	}
}

// Queue asks for an image to be fetched ahead of its use. It reports false
// when the image is cached, filling or queued already.
func (c *Cache) Queue(id string) (bool, error) {
	if !store.ValidID(id) {
		return false, badID(id)
	}
	if c.state(id) != StateAbsent {
		return false, nil
	}
	c.absent.forget(id)
	queued, err := c.store.Enqueue(id)
	if err != nil {
		return false, fmt.Errorf("queue %q: %w", id, err)
	}
	if queued {
		c.history.tell(slog.LevelInfo, id, Queued, "by request")
	}
	c.queue.nudge()
	return queued, nil
}

// Queued returns the queued ids in the order in which they were queued.
func (c *Cache) Queued() ([]string, error) { return c.store.Queue() }

// RetryQueued begins to fetch what is queued without waiting for the pauses
// after failed attempts, and returns how many images are queued.
func (c *Cache) RetryQueued() (int, error) {
	ids, err := c.store.Queue()
	if err != nil {
		return 0, fmt.Errorf("list queue: %w", err)
	}
	c.queue.anew.Store(true)
	c.queue.nudge()
	return len(ids), nil
}

// Unqueue takes an id out of the queue. An absent one is no error; a fetch
// that runs already goes on.
func (c *Cache) Unqueue(id string) error {
	if !store.ValidID(id) {
		return badID(id)
	}
	return c.store.Dequeue(id)
}

// UnqueueAll empties the queue and returns how many ids were in it.
func (c *Cache) UnqueueAll() (int, error) { return c.store.DequeueAll() }

func (q *queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run fetches what is queued until the context ends.
func (q *queue) run(ctx context.Context) {
	tick := time.NewTicker(queuePoll)
	defer tick.Stop()
	for {
		if q.anew.Swap(false) {
			for _, r := range q.retries {
				r.next = time.Time{}
			}
		}
		pause := q.startAll(ctx)
		timer := time.NewTimer(pause)
		select {
		case r := <-q.results:
			q.ended(r)
		case <-q.wake:
		case <-tick.C:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// startAll begins as many prefetches as there are free slots and returns when
// to look again.
func (q *queue) startAll(ctx context.Context) time.Duration {
	ids, err := q.c.store.Queue()
	if err != nil {
		q.c.disk.fail(fmt.Errorf("list queue: %w", err))
		return queuePoll
	}
	now, pause := time.Now(), queuePoll
	for _, id := range ids {
		r := q.retries[id]
		if r == nil {
			r = &retry{}
			q.retries[id] = r
		}
		if r.busy {
			continue
		}
		if wait := r.next.Sub(now); wait > 0 {
			pause = min(pause, wait)
			continue
		}
		select {
		case q.slots <- struct{}{}:
		default:
			return pause // the end of one will wake us
		}
		r.busy = true
		q.c.work.Go(func() {
			err := q.c.prefetch(ctx, id)
			<-q.slots
			select {
			case q.results <- fetched{id, err}:
			case <-ctx.Done():
			}
		})
	}
	return pause
}

// ended notes how a prefetch went. A marker of an image that is cached was
// removed by the commit.
func (q *queue) ended(r fetched) {
	if r.err == nil {
		delete(q.retries, r.id)
		return
	}
	t := q.retries[r.id]
	t.busy = false
	t.next = time.Now().Add(min(firstPrefetchRetry<<min(t.tries, 10), maxPrefetchRetry))
	t.tries++
	q.c.log.Warn("prefetch", "image", r.id, "tries", t.tries, "next", t.next, "error", r.err)
}

// prefetch brings an image into the cache, by the fill that runs or by a new
// one, and returns when it is there. The marker of an image that is cached
// already is removed.
func (c *Cache) prefetch(ctx context.Context, id string) error {
	if c.state(id) == StateCached {
		return c.store.Dequeue(id)
	}
	if !store.ValidID(id) {
		return badID(id)
	}
	o, name, err := c.cfg.Origins.ByID(id)
	if err != nil {
		return err
	}
	f, _ := c.follow(id, o, name, nil)
	if f == nil {
		return c.store.Dequeue(id)
	}
	f.mu.Lock()
	f.wanted = true
	f.mu.Unlock()
	defer f.leave()
	return f.wait(ctx)
}

// errNotStored says that the image was fetched whole but is not in the cache.
var errNotStored = errors.New("the image could not be stored")

// wait returns when the fill is over: nil when the image is stored.
func (f *fill) wait(ctx context.Context) error {
	for {
		f.mu.Lock()
		over, stored, err, changed := f.state.over(), f.image != nil, f.state.err, f.changed
		f.mu.Unlock()
		switch {
		case stored:
			return nil
		case over && err != nil:
			return err
		case over:
			return errNotStored
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
