package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/space"
)

// room is a reservation that is sought beside a transfer.
type room struct {
	done   chan struct{} // closed when err and bytes stand
	cancel context.CancelFunc
	err    error
	bytes  int64 // reserved
}

// seekRoom starts to reserve room for an image of size bytes, of which some
// are charged already, or for its first part when the size is not known.
func (c *Cache) seekRoom(ctx context.Context, size, charged int64, claim *space.Claim) *room {
	if size < 0 {
		size = charged + c.growth()
	}
	size = max(0, size-charged)
	ctx, cancel := context.WithCancel(ctx)
	r := &room{done: make(chan struct{}), cancel: cancel}
	c.work.Go(func() {
		defer close(r.done)
		if r.err = c.reserve(ctx, size, claim); r.err == nil {
			r.bytes = size
		}
	})
	return r
}

// growth is what is reserved at a time for an image of unknown size.
func (c *Cache) growth() int64 { return min(growthStep, c.cfg.MaxSize/16) }

// poll reports whether the room is granted; with wait it waits for the
// answer, which comes within roomPatience. The error is the refusal.
func (r *room) poll(ctx context.Context, wait bool) (bool, error) {
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

// end ends the search and returns the bytes that were reserved.
func (r *room) end() int64 {
	r.cancel()
	<-r.done
	return r.bytes
}

// reserve charges the pool with n bytes, and claims them of the file system,
// for which victims leave if need be.
// It gives up after roomPatience, at once when nothing can be evicted, with an
// error wrapping ErrNoSpace. After a start nothing is reserved before the files
// are counted.
func (c *Cache) reserve(ctx context.Context, n int64, claim *space.Claim) error {
	if c.cfg.Hard && n > c.cfg.MaxSize {
		return fmt.Errorf("%w: the image needs %d bytes, max_size is %d", ErrNoSpace, n, c.cfg.MaxSize)
	}
	if _, pinned := c.pinned(); c.cfg.Hard && n > c.cfg.MaxSize-pinned {
		// To evict the others would not help.
		return fmt.Errorf("%w: the image needs %d bytes, and pinned images hold %d of the %d of max_size", ErrNoSpace, n, pinned, c.cfg.MaxSize)
	}
	if reason := c.disk.broken(); reason != nil {
		return reason
	}
	patience := time.NewTimer(roomPatience)
	defer patience.Stop()
	if c.cfg.Hard { // what the directory holds is known only then
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
		short, err := c.free.Take(claim, n)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		if short <= 0 && c.pool.Reserve(n) {
			return nil
		}
		if short <= 0 {
			c.free.GiveBack(claim, n)
		}
		if c.dropParked() || c.dropInvalid() {
			c.free.Stale()
			continue
		}
		if short > 0 && short > c.evictor.Evictable() {
			return c.tooLittleFree(n, short) // to evict all would not help
		}
		if !c.evictor.MakeRoom(n, short) {
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
	return fmt.Errorf("%w: the file system lacks %d bytes for %d more and the %d of min_free", ErrNoSpace, short, n, c.cfg.MinFree)
}
