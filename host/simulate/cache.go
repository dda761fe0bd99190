// Package simulate runs eviction policies on traces of requests, in caches
// without bytes. Such a cache admits an object on a miss, and evicts only to
// make room for it.
package simulate

import (
	"context"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Stats count the results of the requests so far.
type Stats struct {
	Requests     uint64 `json:"requests"`
	Misses       uint64 `json:"misses"`
	Bytes        uint64 `json:"bytes"` // that were asked for
	MissedBytes  uint64 `json:"missed_bytes"`
	Evictions    uint64 `json:"evictions"`
	EvictedBytes uint64 `json:"evicted_bytes"`
	// Foreign counts the victims proposed by a stateful policy that were not in
	// the cache, and Helped the evictions that least-recently-used order decided
	// because the policy proposed too little. Both are 0 for a policy that
	// keeps its contract.
	Foreign uint64 `json:"foreign"`
	Helped  uint64 `json:"helped"`
}

// MissRatio is the share of requests that missed, 0 without requests.
func (s Stats) MissRatio() float64 { return ratio(s.Misses, s.Requests) }

// ByteMissRatio is the share of requested bytes that missed, 0 without any.
func (s Stats) ByteMissRatio() float64 { return ratio(s.MissedBytes, s.Bytes) }

func ratio(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// chooser decides which objects leave. The cache tells it what happens to them.
type chooser interface {
	admitted(o *object)
	accessed(o *object)
	removed(o *object, why sdk.Reason, at int64)
	// victims returns objects of need bytes in total, first to leave first, or
	// fewer when it knows no more.
	victims(ctx context.Context, now int64, need uint64) ([]*object, error)
}

// object is what the cache holds.
type object struct {
	sdk.Record
	slot  int     // in the order of a chooser
	score float64 // of a scoring policy
}

// Cache is a cache without bytes. It is used by one goroutine.
type Cache struct {
	capacity, used uint64
	objects        map[sdk.Key]*object
	chooser        chooser
	stats          Stats

	// Evicted, if not nil, is called for each object that leaves to make room.
	Evicted func(key sdk.Key)
}

// NewCache returns an empty cache of capacity bytes whose victims the policy
// chooses: an sdk.Scorer or an sdk.Stateful that has seen nothing yet. The error
// wraps sdk.ErrInvalid for anything else.
func NewCache(policy any, capacity uint64) (*Cache, error) {
	c := &Cache{capacity: capacity, objects: map[sdk.Key]*object{}}
	switch p := policy.(type) {
	case sdk.Scorer:
		c.chooser = newScoring(p)
	case sdk.Stateful:
		c.chooser = newStateful(c, p)
	default:
		return nil, fmt.Errorf("%w: %T is not a policy", sdk.ErrInvalid, policy)
	}
	return c, nil
}

// Access makes a request at a time that is never before that of the last one,
// and reports whether it hit. An object whose size has changed is a new object,
// and an object larger than the cache is not admitted. An error comes from the
// policy; after it the cache cannot be used any more.
func (c *Cache) Access(ctx context.Context, key sdk.Key, size uint64, at int64) (hit bool, err error) {
	c.stats.Requests++
	c.stats.Bytes += size
	if o := c.objects[key]; o != nil {
		if o.Size == size {
			o.Hits++
			o.Accessed = at
			c.chooser.accessed(o)
			return true, nil
		}
		c.remove(o, sdk.ReasonReplaced, at)
	}
	c.stats.Misses++
	c.stats.MissedBytes += size
	if size > c.capacity {
		return false, nil
	}
	if err := c.makeRoom(ctx, size, at); err != nil {
		return false, err
	}
	o := &object{Record: sdk.Record{Key: key, Size: size, Admitted: at, Accessed: at}}
	c.objects[key] = o
	c.used += size
	c.chooser.admitted(o)
	return false, nil
}

// makeRoom lets victims leave until size more bytes fit.
func (c *Cache) makeRoom(ctx context.Context, size uint64, at int64) error {
	for c.used > c.capacity-size {
		list, err := c.chooser.victims(ctx, at, c.used-(c.capacity-size))
		if err != nil {
			return fmt.Errorf("choose victims: %w", err)
		}
		if len(list) == 0 {
			list = c.leastRecent()
			c.stats.Helped++
		}
		for _, o := range list {
			if c.used <= c.capacity-size {
				break
			}
			c.stats.Evictions++
			c.stats.EvictedBytes += o.Size
			c.remove(o, sdk.ReasonEvicted, at)
			if c.Evicted != nil {
				c.Evicted(o.Key)
			}
		}
	}
	return nil
}

// leastRecent returns the object that was not requested for the longest time.
func (c *Cache) leastRecent() []*object {
	var least *object
	for _, o := range c.objects {
		if least == nil || before(o, least) {
			least = o
		}
	}
	return []*object{least}
}

func (c *Cache) remove(o *object, why sdk.Reason, at int64) {
	delete(c.objects, o.Key)
	c.used -= o.Size
	c.chooser.removed(o, why, at)
}

// Stats returns the results of the requests so far.
func (c *Cache) Stats() Stats { return c.stats }

// Len returns how many objects the cache holds.
func (c *Cache) Len() int { return len(c.objects) }

// Used returns the bytes of the objects in the cache.
func (c *Cache) Used() uint64 { return c.used }

// Has reports whether an object is in the cache.
func (c *Cache) Has(key sdk.Key) bool { return c.objects[key] != nil }

// before reports whether an object leaves before another in least-recently-used
// order.
func before(a, b *object) bool {
	if a.Accessed != b.Accessed {
		return a.Accessed < b.Accessed
	}
	return a.Key < b.Key
}

// stateful lets a stateful policy choose.
type stateful struct {
	cache  *Cache
	policy sdk.Stateful
	events []sdk.Event // that the policy has not seen
	err    error       // of a batch that was sent because it was full
}

// selectLimit is how many proposals are asked for at once, as the service does.
const selectLimit = 4096

func newStateful(c *Cache, p sdk.Stateful) *stateful {
	return &stateful{cache: c, policy: p, events: []sdk.Event{{Kind: sdk.EventCapacity, Size: c.capacity}}}
}

func (s *stateful) add(e sdk.Event) {
	s.events = append(s.events, e)
	if len(s.events) == sdk.MaxBatch && s.err == nil {
		s.err = s.flush(context.Background())
	}
}

func (s *stateful) admitted(o *object) {
	s.add(sdk.Event{Kind: sdk.EventAdmitted, Key: o.Key, Size: o.Size, At: o.Admitted})
}

func (s *stateful) accessed(o *object) {
	s.add(sdk.Event{Kind: sdk.EventAccessed, Key: o.Key, Size: o.Size, At: o.Accessed, Count: 1})
}

func (s *stateful) removed(o *object, why sdk.Reason, at int64) {
	s.add(sdk.Event{Kind: sdk.EventRemoved, Key: o.Key, Size: o.Size, At: at, Reason: why})
}

func (s *stateful) flush(ctx context.Context) error {
	if s.err != nil || len(s.events) == 0 {
		return s.err
	}
	err := s.policy.Observe(ctx, s.events)
	s.events = s.events[:0]
	return err
}

func (s *stateful) victims(ctx context.Context, now int64, need uint64) ([]*object, error) {
	if err := s.flush(ctx); err != nil {
		return nil, err
	}
	keys, err := s.policy.Select(ctx, time.Unix(0, now), need, selectLimit)
	if err != nil {
		return nil, err
	}
	var list []*object
	seen := map[sdk.Key]bool{}
	for _, key := range keys {
		if o := s.cache.objects[key]; o != nil && !seen[key] {
			list = append(list, o)
		} else {
			s.cache.stats.Foreign++
		}
		seen[key] = true
	}
	return list, nil
}
