package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/space"
)

// roomSearch is the search for room for a transfer that is already running.
type roomSearch struct {
	done   chan struct{} // closed when err is final
	cancel context.CancelFunc
	err    error
}

// seekRoom starts to reserve room for the first part of an image of size bytes; -1:
// the size is not known.
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
	// growthStep is how many bytes are reserved at least at a time; in a small
	// cache it is less.
	growthStep = 16 << 20
	// maxStep is how many bytes are reserved at most at a time: a fast link
	// brings so many while an image is evicted.
	maxStep = 256 << 20
)

// growth returns the least number of bytes that are reserved at a time.
func (c *Cache) growth() int64 { return min(growthStep, c.cfg.MaxSize/16) }

// step returns how many bytes are reserved next for an image of size bytes; -1: the
// size is not known. have is how many bytes have come, and reserved how many are
// reserved. As many are reserved again as have come, so that an origin cannot make
// other images leave by announcing a large size.
func (c *Cache) step(size, reserved, have int64) int64 {
	n := min(max(have, c.growth()), maxStep)
	if size >= 0 {
		n = min(n, max(0, size-reserved))
	}
	return n
}

// fits returns why there can never be room for an image of size bytes, however many
// images are evicted, or nil.
func (c *Cache) fits(size int64) error {
	if !c.cfg.hard() {
		return nil
	}
	if size > c.cfg.MaxSize {
		return fmt.Errorf("%w: the image needs %d bytes, but max_size is %d", ErrNoSpace, size, c.cfg.MaxSize)
	}
	if _, pinned := c.pinned(); size > c.cfg.MaxSize-pinned {
		return fmt.Errorf("%w: the image needs %d bytes, but pinned images hold %d of the %d of max_size", ErrNoSpace, size, pinned, c.cfg.MaxSize)
	}
	return nil
}

// roomKnown is how long the first bytes wait for the answer, so that the response
// can say whether the image is stored. If nothing has to leave, the answer comes
// sooner, and a client does not notice such a delay.
const roomKnown = 20 * time.Millisecond

// soon waits for the answer, but at most for roomKnown.
func (r *roomSearch) soon(ctx context.Context) {
	limit := time.NewTimer(roomKnown)
	defer limit.Stop()
	select {
	case <-r.done:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// poll reports whether there is room already. With wait it waits for the answer,
// which comes within roomPatience. The error says why there is no room.
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

// reserve adds n bytes to a reservation, and evicts images for them if necessary.
// It gives up after roomPatience, or at once if nothing can be evicted; the error
// wraps ErrNoSpace. After a start nothing is reserved until the files are counted.
func (c *Cache) reserve(ctx context.Context, n int64, to *space.Reservation) error {
	if err := c.fits(to.Bytes() + n); err != nil {
		return err
	}
	if reason := c.disk.broken(); reason != nil {
		return reason
	}
	patience := time.NewTimer(roomPatience)
	defer patience.Stop()
	if c.cfg.hard() { // only after the scan is it known what the directory holds
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
			return c.tooLittleFree(n, short) // evicting all images would not help
		}
		if !c.evictor.MakeRoom(n, short, fmt.Sprintf("to make room for %d bytes", to.Bytes()+n)) {
			return fmt.Errorf("%w: %d bytes are needed, but nothing can be evicted", ErrNoSpace, n)
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

// tooLittleFree says why the file system has no room for n bytes.
func (c *Cache) tooLittleFree(n, short int64) error {
	return fmt.Errorf("%w: %d bytes are needed and %d must stay free (min_free), but the file system has %d too few", ErrNoSpace, n, c.cfg.Prune.MinFree, short)
}
