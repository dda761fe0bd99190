package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/space"
)

// roomSearch is a reservation that is sought beside a transfer.
type roomSearch struct {
	done   chan struct{} // closed when err stands
	cancel context.CancelFunc
	err    error
}

// seekRoom starts to reserve the first part of an image of size bytes; -1:
// unknown.
func (c *Cache) seekRoom(ctx context.Context, size int64, to *space.Reservation) *roomSearch {
	ctx, cancel := context.WithCancel(ctx)
	r := &roomSearch{done: make(chan struct{}), cancel: cancel}
	c.work.Go(func() {
		defer close(r.done)
		if r.err = c.fits(size); r.err == nil {
			r.err = c.reserve(ctx, c.step(size, to.Bytes(), to.Bytes()), to)
		}
	})
	return r
}

const (
	// growthStep is what is reserved at least at a time; less in a small cache.
	growthStep = 16 << 20
	// maxStep is what is reserved at most at a time: what a fast link brings
	// while an image is evicted.
	maxStep = 256 << 20
)

// growth is the least that is reserved at a time.
func (c *Cache) growth() int64 { return min(growthStep, c.cfg.MaxSize/16) }

// step returns how many bytes are reserved next for an image of size bytes, or
// -1, of which have bytes came and reserved ones are reserved. It is as much
// again as has come: nobody makes others leave by what he announces.
func (c *Cache) step(size, reserved, have int64) int64 {
	n := min(max(have, c.growth()), maxStep)
	if size >= 0 {
		n = min(n, max(0, size-reserved))
	}
	return n
}

// fits returns why there can never be room for an image of size bytes, or nil. To
// evict others would not help.
func (c *Cache) fits(size int64) error {
	if !c.cfg.hard() {
		return nil
	}
	if size > c.cfg.MaxSize {
		return fmt.Errorf("%w: the image needs %d bytes, max_size is %d", ErrNoSpace, size, c.cfg.MaxSize)
	}
	if _, pinned := c.pinned(); size > c.cfg.MaxSize-pinned {
		return fmt.Errorf("%w: the image needs %d bytes, and pinned images hold %d of the %d of max_size", ErrNoSpace, size, pinned, c.cfg.MaxSize)
	}
	return nil
}

// roomKnown is how long the first bytes wait for the answer, so that clients are
// told with them whether the image is stored: where nothing has to leave it takes
// less, and nobody notices more.
const roomKnown = 20 * time.Millisecond

// soon returns when the answer is there, or will be long in coming.
func (r *roomSearch) soon(ctx context.Context) {
	limit := time.NewTimer(roomKnown)
	defer limit.Stop()
	select {
	case <-r.done:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// poll reports whether the room is granted; with wait it waits for the
// answer, which comes within roomPatience. The error is the refusal.
func (r *roomSearch) poll(ctx context.Context, wait bool) (bool, error) {
	if wait {
		<-r.done
	}
	select {
	case <-r.done:
		return r.err == nil, r.err
	case <-ctx.Done():
		return false, context.Cause(ctx)
	default:
		return false, nil
	}
}

// end ends the search.
func (r *roomSearch) end() {
	r.cancel()
	<-r.done
}

// reserve adds n bytes to a reservation, for which victims leave if need be.
// It gives up after roomPatience, at once when nothing can be evicted, with an
// error wrapping ErrNoSpace. After a start nothing is reserved before the files
// are counted.
func (c *Cache) reserve(ctx context.Context, n int64, to *space.Reservation) error {
	if err := c.fits(to.Bytes() + n); err != nil {
		return err
	}
	if reason := c.disk.broken(); reason != nil {
		return reason
	}
	patience := time.NewTimer(roomPatience)
	defer patience.Stop()
	if c.cfg.hard() { // what the directory holds is known only then
		select {
		case <-c.scanned:
		case <-patience.C:
			return fmt.Errorf("%w: the files were not counted within %v of the start", ErrNoSpace, roomPatience)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for {
		released := c.pool.Wait()
		ok, short, err := to.Grow(n)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		if ok {
			return nil
		}
		if c.dropParked() || c.dropInvalid(n) {
			c.free.Stale()
			continue
		}
		if short > 0 && short > c.evictor.Evictable() {
			return c.tooLittleFree(n, short) // to evict all would not help
		}
		if !c.evictor.MakeRoom(n, short, fmt.Sprintf("to make room for %d bytes", to.Bytes()+n)) {
			return fmt.Errorf("%w: %d bytes are wanted and nothing can be evicted", ErrNoSpace, n)
		}
		select {
		case <-released:
			c.free.Stale()
		case <-patience.C:
			return fmt.Errorf("%w: %d bytes were not freed within %v", ErrNoSpace, n, roomPatience)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tooLittleFree says why room for n bytes cannot be had.
func (c *Cache) tooLittleFree(n, short int64) error {
	return fmt.Errorf("%w: the file system lacks %d bytes for %d more and the %d of min_free", ErrNoSpace, short, n, c.cfg.Prune.MinFree)
}
