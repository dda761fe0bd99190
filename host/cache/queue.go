package cache

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// queue fetches queued images. The queue itself consists of the markers, the files
// in queue/, so it outlives the process. What is in them is remembered here, so that
// they need not be read again.
type queue struct {
	c       *Cache
	wake    chan struct{}
	slots   chan struct{} // one for each prefetcher
	results chan fetched

	// reading is held while the directory is read and while markers are made and
	// removed, so that turns agrees with the directory. It is taken before mu.
	reading sync.Mutex

	mu    sync.Mutex // guards what follows; not held during I/O
	turns turns
	known bool // the directory was read
	tally tally
}

// fetched is the result of a prefetch.
type fetched struct {
	image *queued
	err   error
}

// queuePoll is how often the directory is read, since other programs may add and
// remove markers.
const queuePoll = 5 * time.Second

func newQueue(c *Cache) *queue {
	return &queue{
		c: c, wake: make(chan struct{}, 1), slots: make(chan struct{}, c.cfg.Prefetch.Workers),
		turns: newTurns(), results: make(chan fetched),
	}
}

// Queue adds an image to the queue, to be fetched ahead of its use. It returns false
// if the image is cached, filling or queued already. If it is queued and could not
// be fetched, it is tried again at once.
func (c *Cache) Queue(id string) (bool, error) {
	if !sdk.ValidID(id) {
		return false, badID(id)
	}
	if s := c.state(id); s != StateAbsent && s != StateQueued {
		return false, nil
	}
	c.absent.forget(id)
	added, err := c.queue.add(id, c.nameToKeep(id))
	if err != nil {
		return false, fmt.Errorf("queue %q: %w", id, err)
	}
	if added {
		c.history.Happened(slog.LevelInfo, id, Queued, "by request")
	}
	c.queue.nudge()
	return added, nil
}

// Queued returns the queued images in the order in which they were queued.
func (c *Cache) Queued() ([]QueueEntry, error) {
	if err := c.queue.refresh(); err != nil {
		return nil, err
	}
	entries := c.queue.entries()
	for i, e := range entries {
		if entries[i].Name = c.nameOf(e.ID, ""); entries[i].Name == "" {
			entries[i].Name = c.nameOf(e.ID, c.store.QueueNote(e.ID))
		}
	}
	return entries, nil
}

// RetryQueued ends the pauses after failed tries, so that all queued images are
// tried again, and returns how many there are. The pause after the next failure
// still depends on all tries before.
func (c *Cache) RetryQueued() (int, error) {
	if err := c.queue.refresh(); err != nil {
		return 0, err
	}
	return c.queue.hurry(), nil
}

// Unqueue removes an id from the queue. An absent one is not an error. A fetch that
// is already running goes on.
func (c *Cache) Unqueue(id string) error {
	if !sdk.ValidID(id) {
		return badID(id)
	}
	return c.queue.remove(id)
}

// UnqueueAll empties the queue and returns how many ids were in it.
func (c *Cache) UnqueueAll() (int, error) { return c.queue.clear() }

// add makes a marker and reports whether it did. If there was one already, the failed
// tries of its image are forgotten, and it keeps its place.
func (q *queue) add(id, note string) (bool, error) {
	q.reading.Lock()
	defer q.reading.Unlock()
	m, added, err := q.c.store.Enqueue(id, note)
	if err != nil {
		return false, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turns.add(m)
	if !added {
		q.turns.renew(id)
	}
	return added, nil
}

// remove removes a marker.
func (q *queue) remove(id string) error {
	q.reading.Lock()
	defer q.reading.Unlock()
	if err := q.c.store.Dequeue(id); err != nil {
		return err
	}
	q.removed(id)
	return nil
}

// removed forgets an image whose marker is gone.
func (q *queue) removed(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turns.remove(id)
}

// clear removes all markers and returns how many there were.
func (q *queue) clear() (int, error) {
	q.reading.Lock()
	n, err := q.c.store.DequeueAll()
	q.reading.Unlock()
	if refreshed := q.refresh(); err == nil {
		err = refreshed
	}
	return n, err
}

// refresh reads which markers there are. It opens only new ones.
func (q *queue) refresh() error {
	q.reading.Lock()
	defer q.reading.Unlock()
	list, err := q.c.store.Queue(q.knows)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turns.agree(list)
	q.known = true
	return nil
}

func (q *queue) knows(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.turns.byID[id] != nil
}

// count returns how many images are queued; 0 if the directory cannot be read.
func (q *queue) count() int {
	q.mu.Lock()
	n, known := len(q.turns.byID), q.known
	q.mu.Unlock()
	if known || q.refresh() != nil {
		return n
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.turns.byID)
}

// entries returns the queued images in the order in which they were queued.
func (q *queue) entries() []QueueEntry {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.turns.list()
	entries := make([]QueueEntry, len(list))
	for i, image := range list {
		entries[i] = image.entry()
	}
	return entries
}

// entry returns what is known about an image in the queue.
func (q *queue) entry(id string) QueueEntry {
	q.mu.Lock()
	defer q.mu.Unlock()
	if image := q.turns.byID[id]; image != nil {
		return image.entry()
	}
	return QueueEntry{ID: id}
}

func (q *queued) entry() QueueEntry {
	e := QueueEntry{ID: q.ID, Tries: q.tries, Running: q.busy}
	if q.err != nil {
		e.Error = q.err.Error()
	}
	if !q.busy && !q.next.IsZero() {
		e.Next = q.next.UTC()
	}
	return e
}

// hurry ends the pauses after failed attempts and returns how many images are
// queued.
func (q *queue) hurry() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turns.hurry()
	q.nudge()
	return len(q.turns.byID)
}

func (q *queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run fetches the queued images until the context ends.
func (q *queue) run(ctx context.Context) {
	tick := time.NewTicker(queuePoll)
	defer tick.Stop()
	defer q.tell(true)
	q.poll()
	for {
		timer := time.NewTimer(min(q.startAll(ctx), q.tell(false)))
		select {
		case r := <-q.results:
			q.ended(r)
		case <-q.wake:
		case <-tick.C:
			q.poll()
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

func (q *queue) poll() {
	if err := q.refresh(); err != nil {
		q.c.disk.fail(err)
	}
}

// startAll begins as many prefetches as there are free slots, and returns how long
// to wait before it is called again. While nothing can be stored it begins none,
// since all would fail.
func (q *queue) startAll(ctx context.Context) time.Duration {
	if q.c.disk.broken() != nil {
		return queuePoll
	}
	for {
		select {
		case q.slots <- struct{}{}:
		default:
			return queuePoll // the end of a prefetch comes before
		}
		now := q.c.cfg.Now()
		q.mu.Lock()
		image, next := q.turns.begin(now)
		q.mu.Unlock()
		if image == nil {
			<-q.slots
			return until(now, next)
		}
		q.c.work.Go(func() {
			err := q.c.prefetch(ctx, image.ID)
			<-q.slots
			select {
			case q.results <- fetched{image, err}:
			case <-ctx.Done():
			}
		})
	}
}

// until returns how long to wait for the time at, but at most queuePoll. A zero time
// never comes.
func until(now, at time.Time) time.Duration {
	if at.IsZero() {
		return queuePoll
	}
	return max(0, min(at.Sub(now), queuePoll))
}

// ended notes the result of a prefetch. If the image was stored, the commit has
// removed its marker.
func (q *queue) ended(r fetched) {
	now := q.c.cfg.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.err == nil {
		q.turns.end(r.image, nil, time.Time{})
		return
	}
	kind := kindOf(r.err)
	pause := kind.pause(r.image.tries)
	if q.turns.end(r.image, r.err, now.Add(pause)) {
		q.tally.add(now, kind, r.image.ID, r.err)
		q.c.log.Debug("a queued image could not be fetched", "image", r.image.ID, "tries", r.image.tries, "pause", pause, "error", r.err)
	}
}

// tell logs the counted failures if their minute is over or atOnce is set. It
// returns how long to wait before it is called again.
func (q *queue) tell(atOnce bool) time.Duration {
	now := q.c.cfg.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if due := q.tally.due(); atOnce || !due.IsZero() && !due.After(now) {
		q.tally.tell(q.c.log, len(q.turns.byID))
	}
	return until(now, q.tally.due())
}

// prefetch brings an image into the cache, with the running fill or a new one, and
// returns when it is stored or no longer queued. If it is cached already, its marker
// is removed.
func (c *Cache) prefetch(ctx context.Context, id string) error {
	if !c.store.Queued(id) {
		return nil
	}
	if c.state(id) == StateCached {
		return c.store.Dequeue(id)
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
	defer f.leave()
	return f.wait(ctx, c.cfg.Prefetch.MinRate)
}
