// Package space counts the bytes that images take, of the cache's limit and of the
// file system, which other programs fill too.
package space

import (
	"maps"
	"math"
	"slices"
	"sync"
)

// Pool counts the bytes of images wherever they lie: complete, incomplete,
// invalid, in trash, unlinked but open, and reserved ones that are not yet
// written. With a hard limit the sum never exceeds max.
type Pool struct {
	mu      sync.Mutex
	max     int64
	hard    bool
	total   int64
	open    map[*Reservation]struct{} // reservations that have not ended
	freeing int64                     // of total: in trash, or about to be removed
	changed chan struct{}             // closed and replaced when bytes are released
}

// NewPool returns a pool of limit bytes. A hard limit is never exceeded; another
// one only matters to a prune, which looks at it.
func NewPool(limit int64, hard bool) *Pool {
	return &Pool{max: limit, hard: hard, open: map[*Reservation]struct{}{}, changed: make(chan struct{})}
}

// reserve charges n bytes if the limit allows it.
func (p *Pool) reserve(n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n < 0 || n > math.MaxInt64-p.total || p.hard && p.total+n > p.max {
		return false
	}
	p.total += n
	return true
}

// opened notes a reservation that begins.
func (p *Pool) opened(r *Reservation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[r] = struct{}{}
}

// ended forgets a reservation.
func (p *Pool) ended(r *Reservation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, r)
}

// Unwritten returns how many of the charged bytes are reserved and not written.
func (p *Pool) Unwritten() int64 {
	p.mu.Lock()
	open := slices.Collect(maps.Keys(p.open))
	p.mu.Unlock()
	var sum int64
	for _, r := range open { // without p.mu, since mutexes of reservations are taken before it
		sum += r.unwritten()
	}
	return sum
}

// Reservations returns how many reservations have not ended.
func (p *Pool) Reservations() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

// Charge counts n bytes that are on disk already, even beyond the limit.
func (p *Pool) Charge(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total += n
}

// BeginFreeing says that n charged bytes are being freed.
func (p *Pool) BeginFreeing(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freeing += n
}

// EndFreeing ends what BeginFreeing began: the bytes are released, or stay after
// all.
func (p *Pool) EndFreeing(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freeing -= n
}

// Release returns n bytes and wakes everybody who waits for room.
func (p *Pool) Release(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total -= n
	close(p.changed)
	p.changed = make(chan struct{})
}

// Wait returns a channel that is closed at the next release.
func (p *Pool) Wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// State returns the number of charged bytes and of those that are being freed.
func (p *Pool) State() (total, pending int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total, p.freeing
}
