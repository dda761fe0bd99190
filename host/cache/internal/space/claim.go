package space

import (
	"sync/atomic"
	"time"
)

// Claim is what one file may take of the file system.
type Claim struct {
	bytes int64        // granted; under the mutex of free
	used  atomic.Int64 // of these, no longer free in the eyes of the file system
}

// OnDisk says how many bytes of the claim the file system counts as used.
func (c *Claim) OnDisk(n int64) { c.used.Store(n) }

// Take adds n bytes to a claim if none is short, and returns how many are.
func (f *Free) Take(c *Claim, n int64) (short int64, err error) {
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
		f.claims = map[*Claim]struct{}{}
	}
	f.claims[c] = struct{}{}
	c.bytes += n
	f.granted += n
	return 0, nil
}

// GiveBack takes n bytes, or all, off a claim.
func (f *Free) GiveBack(c *Claim, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.bytes -= n; c.bytes <= 0 {
		delete(f.claims, c)
	}
	f.at = time.Time{}
}

// End takes all bytes off a claim.
func (f *Free) End(c *Claim) {
	f.mu.Lock()
	n := c.bytes
	f.mu.Unlock()
	f.GiveBack(c, n)
}
