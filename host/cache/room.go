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

// seekRoom starts to reserve what an image of size bytes lacks, or the first
// part of it when the size is not known.
func (c *Cache) seekRoom(ctx context.Context, size int64, to *space.Reservation) *roomSearch {
	has := to.Bytes()
	if size < 0 {
		size = has + c.growth()
	}
	size = max(0, size-has)
	ctx, cancel := context.WithCancel(ctx)
	r := &roomSearch{done: make(chan struct{}), cancel: cancel}
	c.work.Go(func() {
		defer close(r.done)
		r.err = c.reserve(ctx, size, to)
	})
	return r
}

// growth is what is reserved at a time for an image of unknown size.
func (c *Cache) growth() int64 { return min(growthStep, c.cfg.MaxSize/16) }

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
	if c.cfg.hard() && n > c.cfg.MaxSize {
		return fmt.Errorf("%w: the image needs %d bytes, max_size is %d", ErrNoSpace, n, c.cfg.MaxSize)
	}
	if _, pinned := c.pinned(); c.cfg.hard() && n > c.cfg.MaxSize-pinned {
		// To evict the others would not help.
		return fmt.Errorf("%w: the image needs %d bytes, and pinned images hold %d of the %d of max_size", ErrNoSpace, n, pinned, c.cfg.MaxSize)
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
	return fmt.Errorf("%w: the file system lacks %d bytes for %d more and the %d of min_free", ErrNoSpace, short, n, c.cfg.Prune.MinFree)
}
