package cache

import "sync"

// pool counts the bytes of images wherever they lie: complete, incomplete,
// invalid, in trash, unlinked but open, and reserved ones that are not yet
// written. With a hard limit the sum never exceeds max.
type pool struct {
	mu      sync.Mutex
	max     int64
	hard    bool
	total   int64
	freeing int64         // of total, in trash or otherwise on its way out
	changed chan struct{} // closed and replaced when bytes are released
}

func newPool(limit int64, hard bool) *pool {
	return &pool{max: limit, hard: hard, changed: make(chan struct{})}
}

// reserve charges n bytes if the limit allows it.
func (p *pool) reserve(n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hard && p.total+n > p.max {
		return false
	}
	p.total += n
	return true
}

// charge counts n bytes that are there already, whatever the limit.
func (p *pool) charge(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total += n
}

// beginFreeing says that n charged bytes are on their way out.
func (p *pool) beginFreeing(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freeing += n
}

// endFreeing takes back what leave said: the bytes are released, or stay after all.
func (p *pool) endFreeing(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freeing -= n
}

// release returns n bytes and wakes those who wait for room.
func (p *pool) release(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total -= n
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait returns a channel that is closed at the next release.
func (p *pool) wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// state returns all charged bytes and, of these, those on their way out.
func (p *pool) state() (total, pending int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total, p.freeing
}
