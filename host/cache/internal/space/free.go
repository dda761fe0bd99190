package space

import (
	"fmt"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
)

// Free keeps a part of the file system free, which other programs fill too.
type Free struct {
	store *store.Store
	now   func() time.Time
	least int64 // bytes that stay free; 0: no minimum

	mu      sync.Mutex // not held during I/O
	claims  map[*claim]struct{}
	at      time.Time // of the last look; zero: the next question looks again
	bytes   int64     // that were free then, less claimed ones that were not yet on disk
	granted int64     // claimed since
	looks   int       // how many there were
}

// NewFree returns a Free that keeps least bytes of the store's file system free;
// 0: no minimum.
func NewFree(s *store.Store, now func() time.Time, least int64) *Free {
	return &Free{store: s, now: now, least: least}
}

// FreeAge is how long a look at the file system is used. Claims count at once, so
// in that time only other programs can take space unnoticed.
const FreeAge = time.Second

// Short returns how many bytes are missing if n more are used and the minimum is
// to stay free; 0 or fewer: none.
func (f *Free) Short(n int64) (int64, error) {
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

// Scarce reports whether n more bytes are too many for the file system.
func (f *Free) Scarce(n int64) bool {
	short, err := f.Short(n)
	return err == nil && short > 0
}

func (f *Free) shortLocked(n int64) int64 { return f.least + n - (f.bytes - f.granted) }

// look asks the file system, unless that was done just now.
func (f *Free) look() error {
	f.mu.Lock()
	fresh := !f.at.IsZero() && f.now().Sub(f.at) < FreeAge
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
		return nil // another goroutine has looked in the meantime
	}
	f.looks++
	f.at, f.bytes = f.now(), bytes-promised
	f.granted -= known
	return nil
}

// Stale makes the next question look again.
func (f *Free) Stale() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = time.Time{}
}
