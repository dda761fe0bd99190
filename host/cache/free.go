package cache

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
)

// free keeps a part of the file system free, which others fill too.
type free struct {
	store *store.Store
	now   func() time.Time
	least int64 // bytes that stay free; 0: no matter

	mu      sync.Mutex // held for no I/O
	claims  map[*claim]struct{}
	at      time.Time // of the last look; zero: it does not count any more
	bytes   int64     // free then, less what was claimed and not yet on disk
	granted int64     // claimed since
	looks   int       // made so far
}

// claim is what one file may take of the file system.
type claim struct {
	bytes int64        // granted; under the mutex of free
	used  atomic.Int64 // of these, no longer free in the eyes of the file system
}

// freeAge is how long a look at the file system counts. Our own claims count
// at once, so in that time only others can fill it.
const freeAge = time.Second

// short returns how many bytes are missing for n more and least to stay free;
// 0 or fewer: none.
func (f *free) short(n int64) (int64, error) {
	if f.least <= 0 {
		return 0, nil
	}
	if err := f.look(); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shortLocked(n), nil
}

// scarce reports whether n more bytes would be too many.
func (f *free) scarce(n int64) bool {
	short, err := f.short(n)
	return err == nil && short > 0
}

func (f *free) shortLocked(n int64) int64 { return f.least + n - (f.bytes - f.granted) }

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

// look asks the file system, unless that was done just now.
func (f *free) look() error {
	f.mu.Lock()
	fresh := !f.at.IsZero() && f.now().Sub(f.at) < freeAge
	known, looks := f.granted, f.looks
	var promised int64
	for c := range f.claims {
		promised += max(0, c.bytes-c.used.Load())
	}
	f.mu.Unlock()
	if fresh {
		return nil
	}
	bytes, err := f.store.Free()
	if err != nil {
		return fmt.Errorf("look at the free space: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.looks != looks {
		return nil // somebody else looked meanwhile
	}
	f.looks++
	f.at, f.bytes = f.now(), bytes-promised
	f.granted -= known
	return nil
}

// stale makes the next question look again.
func (f *free) stale() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = time.Time{}
}

// tooLittleFree says why room for n bytes cannot be had.
func (c *Cache) tooLittleFree(n, short int64) error {
	return fmt.Errorf("%w: the file system lacks %d bytes for %d more and the %d of min_free", ErrNoSpace, short, n, c.cfg.MinFree)
}
