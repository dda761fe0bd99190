package space

import (
	"sync"
	"sync/atomic"
	"time"
)

// Reservation is the room for one file that is being written: bytes of the pool,
// and as many of the file system until they are written. It ends once, with Commit
// or Release; later calls have no effect.
type Reservation struct {
	pool *Pool
	free *Free

	claim claim // on the file system

	written atomic.Int64 // of bytes: those that are in the file

	mu    sync.Mutex // guards what follows; taken before those of pool and free
	bytes int64      // charged to the pool
	ended bool
}

// claim is what one file may still take of the file system.
type claim struct {
	bytes int64        // granted; guarded by the mutex of Free
	used  atomic.Int64 // of these, those that the file system counts as used
}

// NewReservation returns an empty reservation, which must be ended.
func NewReservation(p *Pool, f *Free) *Reservation {
	r := &Reservation{pool: p, free: f}
	p.opened(r)
	return r
}

// Bytes returns how many bytes of the pool are reserved.
func (r *Reservation) Bytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}

// Grow reserves n bytes more, if both the pool and the file system have them.
// Otherwise nothing is reserved, and short is how many bytes are missing on the
// file system; 0 or fewer: the pool is full. The error is that of a look at the
// file system.
func (r *Reservation) Grow(n int64) (ok bool, short int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return false, 0, nil
	}
	if short, err := r.free.take(&r.claim, n); err != nil || short > 0 {
		return false, short, err
	}
	if !r.pool.reserve(n) {
		r.free.giveBack(&r.claim, n)
		return false, 0, nil
	}
	r.bytes += n
	return true, 0, nil
}

// Adopt adds n bytes to the reservation that are already charged to the pool and
// on disk.
func (r *Reservation) Adopt(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes += n
	r.written.Add(n)
}

// OnDisk says how many bytes the file has, and how many of those that Grow reserved
// the file system counts as used.
func (r *Reservation) OnDisk(written, used int64) {
	r.written.Store(written)
	r.claim.used.Store(used)
}

// Written says that nothing more will be written. It returns the bytes that are
// reserved but not in the file to the pool, and ends the claim on the file system.
func (r *Reservation) Written() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.free.end(&r.claim)
	if more := r.bytes - r.written.Load(); more > 0 {
		r.bytes -= more
		r.pool.Release(more)
	}
}

// unwritten returns how many bytes are reserved and not in the file.
func (r *Reservation) unwritten() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return 0
	}
	return max(0, r.bytes-r.written.Load())
}

// Commit ends the reservation of a file that has become an image of size bytes,
// which stay charged.
func (r *Reservation) Commit(size int64) { r.end(size) }

// Release ends the reservation of a file that is gone.
func (r *Reservation) Release() { r.end(0) }

func (r *Reservation) end(kept int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	r.free.end(&r.claim)
	r.pool.ended(r)
	r.pool.Release(r.bytes - kept)
}

// take adds n bytes to a claim if there are enough, and returns how many are
// missing.
func (f *Free) take(c *claim, n int64) (short int64, err error) {
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

// giveBack removes n bytes from a claim.
func (f *Free) giveBack(c *claim, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.bytes -= n; c.bytes <= 0 {
		delete(f.claims, c)
	}
	f.at = time.Time{}
}

// end removes all bytes from a claim.
func (f *Free) end(c *claim) {
	f.mu.Lock()
	n := c.bytes
	f.mu.Unlock()
	f.giveBack(c, n)
}
