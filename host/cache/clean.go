package cache

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/store"
)

// strays is the number of bytes, charged to the pool, of files that belong to
// nobody: invalid ones and partial ones that nobody writes.
type strays struct {
	mu      sync.Mutex
	bytes   int64
	invalid int64 // of bytes
	counts  int   // how often all were counted
}

func (o *strays) counted() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts
}

func (o *strays) sizes() (all, invalid int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes, o.invalid
}

// countLocked notes strays that come, or as negative numbers go. The caller holds
// the mutex, and has held it while the files did, so that no recount saw half of it.
func (o *strays) countLocked(p *space.Pool, partial, invalid int64) {
	o.bytes += partial + invalid
	o.invalid += invalid
	if n := partial + invalid; n > 0 {
		p.Charge(n)
	} else {
		p.Release(-n)
	}
}

// moveToInvalid calls move, which gives a file the name of an image in invalid/, and
// counts what that changes. It costs as much whatever else is there.
func (c *Cache) moveToInvalid(id string, move func() error) error {
	c.others.mu.Lock()
	defer c.others.mu.Unlock()
	before := c.store.InvalidSize(id)
	err := move()
	c.others.countLocked(c.pool, 0, c.store.InvalidSize(id)-before)
	return err
}

// recount looks at invalid/ and incomplete/ and corrects the pool. It is called
// now and then, as Glance or an operator may put files there too; what the engine
// does is counted as it happens.
func (c *Cache) recount() {
	c.others.mu.Lock()
	defer c.others.mu.Unlock()
	var sum int64
	invalid, err := c.store.Invalid()
	if err != nil {
		c.disk.fail(fmt.Errorf("list invalid files: %w", err))
		return
	}
	partial, err := c.store.Incomplete()
	if err != nil {
		c.disk.fail(fmt.Errorf("list incomplete files: %w", err))
		return
	}
	for _, p := range invalid {
		sum += p.Size
	}
	c.others.invalid = sum
	for _, p := range partial {
		if !p.Owned { // owned ones are charged by their fill or write
			sum += p.Size
		}
	}
	c.others.countLocked(c.pool, sum-c.others.bytes, 0)
	c.others.counts++
}

// dropInvalid removes invalid files, the oldest first, until n bytes are free or
// none is left, to make room: images serve more than what is kept for inspection.
// It reports whether there was one.
func (c *Cache) dropInvalid(n int64) bool {
	if _, invalid := c.others.sizes(); invalid == 0 {
		return false
	}
	list, err := c.store.Invalid()
	if err != nil {
		c.disk.fail(fmt.Errorf("list invalid files: %w", err))
		return false
	}
	slices.SortFunc(list, func(a, b store.Partial) int { return a.ModTime.Compare(b.ModTime) })
	freed, any := int64(0), false
	for _, p := range list {
		if freed >= n {
			break
		}
		if err := c.store.RemoveInvalid(p.Name); err != nil {
			c.log.Warn("remove invalid file", "file", p.Name, "error", err)
			continue
		}
		c.log.Info("an invalid file leaves to make room", "file", p.Name, "bytes", p.Size)
		freed, any = freed+p.Size, true
	}
	c.recount()
	return any
}

// removeStaged takes the name of a staged file away. Its bytes stay charged
// until it is released.
func (c *Cache) removeStaged(st *store.Staged) {
	if err := st.Remove(); err != nil {
		c.log.Warn("remove staged file", "error", err)
	}
}

// keepStaged moves a staged file to invalid/ for inspection. In an empty one there
// is nothing to see.
func (c *Cache) keepStaged(st *store.Staged) {
	if st.Size() > 0 {
		err := c.moveToInvalid(st.ID(), st.Keep)
		if err == nil {
			return
		}
		c.log.Warn("keep staged file for inspection", "error", err)
	}
	c.removeStaged(st)
}

// Clean removes all invalid files and those incomplete ones that nothing was
// written to for the stall time, see [Cache.age]; nil means the configured one.
// Files that this process writes are never stalled. It goes on after an error and
// returns the first.
func (c *Cache) Clean(ctx context.Context, stall *time.Duration) (Result, error) {
	if stall == nil {
		stall = &c.cfg.StallTime
	}
	if *stall < 0 {
		return Result{}, fmt.Errorf("stall time is %v, want 0 or more", *stall)
	}
	defer c.recount()
	var done Result
	var first error
	remove := func(list []store.Partial, err error, f func(string) error, may func(store.Partial) bool) {
		for _, p := range list {
			if !may(p) || ctx.Err() != nil {
				continue
			}
			if err = f(p.Name); err == nil {
				done.Files++
				done.Bytes += p.Size
				continue
			}
			if first == nil {
				first = fmt.Errorf("clean %s: %w", p.Name, err)
			}
		}
		if err != nil && first == nil {
			first = fmt.Errorf("clean: %w", err)
		}
	}
	invalid, err := c.store.Invalid()
	remove(invalid, err, c.store.RemoveInvalid, func(store.Partial) bool { return true })
	partial, err := c.store.Incomplete()
	remove(partial, err, c.store.RemoveIncomplete, func(p store.Partial) bool {
		return !p.Owned && c.age(p.ModTime) > *stall
	})
	if done.Files > 0 {
		c.log.Info("cleaned", "files", done.Files, "bytes", done.Bytes)
	}
	return done, first
}

// age is how long ago a file got its time. The clock that gave it may have been
// set since, which the engine's own clock does not follow, or have been set
// before, which that on the wall has followed: one of the two is right, and the
// other off by as much as the clock was set. A file that is ahead of both is as
// old as it is ahead, so that none stays for ever, and one that is ahead by
// little, as on a file server, is new.
func (c *Cache) age(at time.Time) time.Duration {
	return min(c.cfg.Now().Sub(at).Abs(), c.store.Now().Sub(at).Abs())
}
