package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// queue fetches queued images, in the order in which they were queued. The
// queue itself is the files of queue/, so it outlives the process.
type queue struct {
	c       *Cache
	wake    chan struct{}
	slots   chan struct{} // one for each prefetcher
	results chan fetched

	mu      sync.Mutex // guards what follows; held for no I/O
	retries map[string]*retry
}

// retry says when an image that could not be fetched is tried again. It is
// kept in memory alone: after a restart every image is tried at once.
type retry struct {
	tries int // that failed
	err   error
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
		c: c, wake: make(chan struct{}, 1), slots: make(chan struct{}, c.cfg.Prefetch.Workers),
		retries: map[string]*retry{}, results: make(chan fetched),
	}
}

// Queue asks for an image to be fetched ahead of its use. It reports false
// when the image is cached, filling or queued already; one that is queued and
// could not be fetched is tried at once.
func (c *Cache) Queue(id string) (bool, error) {
	if !sdk.ValidID(id) {
		return false, badID(id)
	}
	switch c.state(id) {
	case StateAbsent:
	case StateQueued:
		c.absent.forget(id)
		c.queue.forget(id)
		c.queue.nudge()
		return false, nil
	default:
		return false, nil
	}
	c.absent.forget(id)
	queued, err := c.store.Enqueue(id, c.nameToKeep(id))
	if err != nil {
		return false, fmt.Errorf("queue %q: %w", id, err)
	}
	if queued {
		c.history.Happened(slog.LevelInfo, id, Queued, "by request")
	}
	c.queue.nudge()
	return queued, nil
}

// Queued returns what is queued, in the order of queueing.
func (c *Cache) Queued() ([]QueueEntry, error) {
	ids, err := c.store.Queue()
	if err != nil {
		return nil, err
	}
	entries := make([]QueueEntry, len(ids))
	for i, id := range ids {
		entries[i] = c.queue.entry(id)
		if entries[i].Name = c.nameOf(id, ""); entries[i].Name == "" {
			entries[i].Name = c.nameOf(id, c.store.QueueNote(id))
		}
	}
	return entries, nil
}

// entry says how the fetching of a queued image goes.
func (q *queue) entry(id string) QueueEntry {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := QueueEntry{ID: id}
	r := q.retries[id]
	if r == nil {
		return e
	}
	e.Tries, e.Running = r.tries, r.busy
	if r.err != nil {
		e.Error = r.err.Error()
	}
	if !r.busy {
		e.Next = r.next.UTC()
	}
	return e
}

// RetryQueued begins to fetch what is queued without waiting for the pauses
// after failed attempts, and returns how many images are queued.
func (c *Cache) RetryQueued() (int, error) {
	ids, err := c.store.Queue()
	if err != nil {
		return 0, fmt.Errorf("list queue: %w", err)
	}
	c.queue.hurry()
	return len(ids), nil
}

// Unqueue takes an id out of the queue. An absent one is no error; a fetch
// that runs already goes on.
func (c *Cache) Unqueue(id string) error {
	if !sdk.ValidID(id) {
		return badID(id)
	}
	c.queue.forget(id)
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
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forgetOthers(ids)
	now, pause := q.c.cfg.Now(), queuePoll
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

// hurry ends the pauses after failed attempts.
func (q *queue) hurry() {
	q.mu.Lock()
	for _, r := range q.retries {
		r.next = time.Time{}
	}
	q.mu.Unlock()
	q.nudge()
}

// forget lets an image that is asked for again begin without the failures of
// before.
func (q *queue) forget(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.retries[id]; r != nil && !r.busy {
		delete(q.retries, id)
	}
}

// forgetOthers forgets the failures of images that are queued no more. The
// caller holds q.mu.
func (q *queue) forgetOthers(ids []string) {
	queued := make(map[string]bool, len(ids))
	for _, id := range ids {
		queued[id] = true
	}
	maps.DeleteFunc(q.retries, func(id string, r *retry) bool { return !r.busy && !queued[id] })
}

// ended takes in how a prefetch went. A marker of an image that is cached was
// removed by the commit.
func (q *queue) ended(r fetched) {
	q.mu.Lock()
	if r.err == nil {
		delete(q.retries, r.id)
		q.mu.Unlock()
		return
	}
	t := q.retries[r.id]
	pause := min(firstPrefetchRetry<<min(t.tries, 10), maxPrefetchRetry)
	t.busy, t.err, t.next = false, r.err, q.c.cfg.Now().Add(pause)
	t.tries++
	tries := t.tries
	q.mu.Unlock()
	q.c.log.Warn("a queued image could not be fetched and is tried again", "image", r.id, "tries", tries, "pause", pause, "error", r.err)
}

// prefetch brings an image into the cache, by the fill that runs or by a new
// one, and returns when it is there. The marker of an image that is cached
// already is removed.
func (c *Cache) prefetch(ctx context.Context, id string) error {
	if c.state(id) == StateCached {
		return c.store.Dequeue(id)
	}
	if !sdk.ValidID(id) {
		return badID(id)
	}
	if note := c.store.QueueNote(id); note != "" {
		c.cfg.Origins.Learn(id, note)
	}
	o, name, err := c.cfg.Origins.ByID(id)
	if err != nil {
		return err
	}
	f, _, _ := c.follow(id, nil, request{wanted: true, queued: true}, o, name)
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
