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

// strays counts the bytes of files that are not images and are not being written:
// invalid files and partial ones. They are charged to the pool.
type strays struct {
	mu      sync.Mutex
	bytes   int64
	invalid int64 // of bytes
	counts  int   // how often recount has counted all files
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

// countLocked notes bytes of strays that have come or, as negative numbers, gone. The
// caller holds the mutex, and has held it while the files came or went, so that no
// recount sees half of that.
func (o *strays) countLocked(p *space.Pool, partial, invalid int64) {
	o.bytes += partial + invalid
	o.invalid += invalid
	if n := partial + invalid; n > 0 {
		p.Charge(n)
	} else {
		p.Release(-n)
	}
}

// moveToInvalid calls move, which moves a file of an image to invalid/, and counts
// what that changes. Its cost does not depend on the number of other files.
func (c *Cache) moveToInvalid(id string, move func() error) error {
	c.others.mu.Lock()
	defer c.others.mu.Unlock()
	before := c.store.InvalidSize(id)
	err := move()
	c.others.countLocked(c.pool, 0, c.store.InvalidSize(id)-before)
	return err
}

// recount reads invalid/ and incomplete/ and corrects the pool. It is called from
// time to time, since Glance or an operator may put files there too. What the engine
// does itself is counted at once.
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

// dropInvalid removes invalid files, the oldest first, until n bytes are free or none
// is left, because room for images is worth more than files kept for inspection. It
// reports whether it removed one.
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
			c.log.Warn("could not remove an invalid file", "file", p.Name, "error", err)
			continue
		}
		c.log.Info("an invalid file was removed to make room", "file", p.Name, "bytes", p.Size)
		freed, any = freed+p.Size, true
	}
	c.recount()
	return any
}

// removeStaged removes a staged file. Its bytes stay charged until it is released.
func (c *Cache) removeStaged(st *store.Staged) {
	if err := st.Remove(); err != nil {
		c.log.Warn("could not remove a partial file", "image", st.ID(), "error", err)
	}
}

// keepStaged moves a staged file to invalid/ for inspection. It removes an empty one,
// in which there is nothing to inspect.
func (c *Cache) keepStaged(st *store.Staged) {
	if st.Size() > 0 {
		err := c.moveToInvalid(st.ID(), st.Keep)
		if err == nil {
			return
		}
		c.log.Warn("could not move a partial file to invalid/ for inspection", "image", st.ID(), "error", err)
	}
	c.removeStaged(st)
}

// Clean removes all invalid files, and the incomplete ones to which nothing was
// written for the stall time: see [Cache.age]. nil means the configured stall time.
// Files that this process is writing are never stalled. Clean continues after an
// error and returns the first one.
func (c *Cache) Clean(ctx context.Context, stall *time.Duration) (Result, error) {
	if stall == nil {
		stall = &c.cfg.StallTime
	}
	if *stall < 0 {
		return Result{}, fmt.Errorf("the stall time is %v; expected 0 or more", *stall)
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

// age returns how old a file with the modification time at is. The file's time is
// from the wall clock, which may have been set; the engine's own clock does not
// follow that. Compared with one of the two clocks the age is right, and with the
// other it is off by as much as the clock was set, so the smaller one is used. If
// the time is ahead of both clocks, the difference counts as the age: so no file
// stays for ever, and a file that is slightly ahead, as on a file server, is new.
func (c *Cache) age(at time.Time) time.Duration {
	return min(c.cfg.Now().Sub(at).Abs(), c.store.Now().Sub(at).Abs())
}
