package cache

import (
	"sync/atomic"
	"time"
)

// claim is what one file may take of the file system.
type claim struct {
	bytes int64        // granted; under the mutex of free
	used  atomic.Int64 // of these, no longer free in the eyes of the file system
}

// onDisk says how many bytes of the claim the file system counts as used.
func (c *claim) onDisk(n int64) { c.used.Store(n) }

// take adds n bytes to a claim if none is short, and returns how many are.
func (f *free) take(c *claim, n int64) (short int64, err error) {
	if f.least <= 0 {
		return 0, nil
	}
	if err := f.look(); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if short := f.shortLocked(n); short > 0 {
		return short, nil
	}
	if f.claims == nil {
		f.claims = map[*claim]struct{}{}
	}
	f.claims[c] = struct{}{}
	c.bytes += n
	f.granted += n
	return 0, nil
}

// giveBack takes n bytes, or all, off a claim.
func (f *free) giveBack(c *claim, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.bytes -= n; c.bytes <= 0 {
		delete(f.claims, c)
	}
	f.at = time.Time{}
}

func (f *free) end(c *claim) {
	f.mu.Lock()
	n := c.bytes
	f.mu.Unlock()
	f.giveBack(c, n)
}
