package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/cache/internal/history"
	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/records"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// infoOf returns what callers may know about an image.
func infoOf(v index.View) ImageInfo {
	return ImageInfo{
		ID:           v.ID,
		State:        StateCached,
		Size:         v.Size,
		Hits:         v.Hits,
		LastAccessed: v.Accessed.UTC(),
		LastModified: v.Admitted.UTC(),
		Version:      v.File.Version,
		SHA256:       v.File.SHA256,
		Verified:     v.File.Verified,
		Readers:      v.Readers,
		URL:          v.File.URL,
	}
}

// Images returns every cached image, ordered by id, without the fields that only
// [Cache.Image] sets.
func (c *Cache) Images() []ImageInfo {
	var list []ImageInfo
	now := c.cfg.Now()
	for _, v := range c.index.All() {
		info := infoOf(v)
		info.Name = c.nameOf(info.ID, v.File.Name)
		if pin, ok := c.pins.Get(info.ID, now); ok {
			info.Pinned, info.PinnedUntil = true, pin.Until
		}
		list = append(list, info)
	}
	return list
}

// Image returns what is known about one image. If nothing is known, its state is
// [StateAbsent].
func (c *Cache) Image(id string) (ImageInfo, error) {
	if !sdk.ValidID(id) {
		return ImageInfo{}, badID(id)
	}
	past := c.history.Of(id)
	info := ImageInfo{ID: id, State: c.state(id), Size: -1, Error: history.Trouble(past)}
	if o, name, err := c.cfg.Origins.ByID(id); err == nil {
		info.URL = o.Name() + ":" + name
	}
	switch info.State {
	case StateQueued:
		info.Error = cmp.Or(c.queue.entry(id).Error, info.Error)
	case StateCached:
		if im := c.index.Get(id); im != nil {
			info = infoOf(c.index.View(im))
		} else if onDisk, err := c.store.Stat(id); err == nil {
			if im := c.index.Found(onDisk); im != nil {
				info = infoOf(c.index.View(im))
			} else {
				info.State = StateAbsent
			}
		}
		if at := c.store.Checked(id); !at.IsZero() {
			info.LastChecked = at.UTC()
		}
	case StateFilling:
		c.mu.Lock()
		f := c.fills[id]
		c.mu.Unlock()
		if f != nil {
			f.mu.Lock()
			info.Size, info.Written, info.Version = f.state.size, f.state.have, f.obj.Version
			f.mu.Unlock()
		} else if w := c.writes.find(id); w != nil {
			info.Size, info.Written = w.size, c.writes.written(w)
		}
	}
	info.Name = c.nameOf(id, c.keptName(id))
	pin, pinned := c.pins.Get(id, c.cfg.Now())
	info.Pinned, info.PinnedUntil = pinned, pin.Until
	info.History = past
	return info, nil
}

// state returns the first state, in the order of [State], that applies to an image.
func (c *Cache) state(id string) State {
	if c.index.Get(id) != nil {
		return StateCached
	}
	if _, err := c.store.Stat(id); err == nil {
		return StateCached
	}
	c.mu.Lock()
	_, filling := c.fills[id]
	c.mu.Unlock()
	switch {
	case filling, c.writes.has(id), c.store.HasForeign(id):
		return StateFilling
	case c.store.Queued(id):
		return StateQueued
	}
	return StateAbsent
}

// Delete removes an image and prevents a running fill or write of it from
// committing: after it has returned, what was being fetched or written cannot
// become an image. An absent image is not an error. A pin does not prevent the
// delete and stays, so that the image is pinned when it comes back.
func (c *Cache) Delete(ctx context.Context, id string) error {
	if !sdk.ValidID(id) {
		return badID(id)
	}
	if err := c.bar(ctx, id); err != nil {
		return err
	}
	if err := c.writes.bar(ctx, id); err != nil {
		return err
	}
	c.unpark(id)
	im := c.index.Remove(id, sdk.ReasonDeleted, c.cfg.Now())
	if im == nil {
		info, err := c.store.Stat(id)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("delete %q: %w", id, err)
		}
		c.index.Found(info) // the scan had not reached it
		if im = c.index.Remove(id, sdk.ReasonDeleted, c.cfg.Now()); im == nil {
			return nil // another call deleted it meanwhile
		}
	}
	c.pool.BeginFreeing(im.Size)
	if err := c.evictor.Discard(im, nil); err != nil {
		return fmt.Errorf("delete %q: %w", id, err)
	}
	reason := "by request"
	if c.pins.Holds(id, c.cfg.Now()) {
		reason += "; its pin stays"
	}
	c.history.Happened(slog.LevelInfo, id, Deleted, reason)
	return nil
}

// bar prevents the running fill of id from storing it. If the fill is being
// committed already, it waits for that.
func (c *Cache) bar(ctx context.Context, id string) error {
	c.mu.Lock()
	f := c.fills[id]
	delete(c.fills, id)
	c.mu.Unlock()
	if f == nil {
		return nil
	}
	f.mu.Lock()
	committing := f.state.barTo(errDeleted)
	f.mu.Unlock()
	for committing {
		f.mu.Lock()
		over, changed := f.state.over(), f.changed
		f.mu.Unlock()
		if over {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// DeleteAll deletes every cached image and returns how many it deleted, also with
// an error. It waits until the scan has found all images.
func (c *Cache) DeleteAll(ctx context.Context) (int, error) {
	if !c.store.IsOpen() {
		return 0, fmt.Errorf("%w: %s", store.ErrNotOpen, c.disk.state())
	}
	select { // images that the scan has not reached yet must go too
	case <-c.scanned:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	n := 0
	for _, im := range c.Images() {
		if err := c.Delete(ctx, im.ID); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// Usage says how full the cache is.
func (c *Cache) Usage() Usage {
	total, _ := c.pool.State()
	u := Usage{
		Bytes: total, MaxBytes: c.cfg.MaxSize, Limit: "prune",
		Images: c.index.Count(), Unsent: c.recorder.Unsent(),
		Records: c.recorder.Records(), RecordsError: c.recorder.Why(), UnsentSince: c.recorder.Since(),
		Hits: c.stats.hits.Load(), Misses: c.stats.misses.Load(),
		BytesServed: c.stats.served.Load(), BytesFetched: c.stats.fetched.Load(),
		Quarantined: c.stats.quarantined.Load(), Stale: c.stats.stale.Load(), Scrub: c.scrubs.progress(),
		Policy: c.evictor.Decided(), Disk: c.disk.state(), Origins: c.reach.list(),
	}
	u.MinFree = c.cfg.Prune.MinFree
	if free, err := c.store.Free(); err == nil {
		u.Free = free
	} else {
		u.Free = -1
	}
	u.Allocated = c.index.OnDisk()
	u.Pinned, u.PinnedBytes = c.pinned()
	u.PinsFull = c.full(u.PinnedBytes)
	if c.cfg.hard() {
		u.Limit = "hard"
	}
	u.Queued, u.Writes, u.Reserved = c.queue.count(), c.writes.count(), c.pool.Unwritten()
	c.mu.Lock()
	defer c.mu.Unlock()
	u.Fills = len(c.fills)
	return u
}

// SwapPolicy gives the state of the current policy to a new policy, or a new
// version of it, and asks that a test question. If its answers are good it
// replaces the current policy; otherwise everything stays as it was. Meanwhile
// nobody gets advice, and neither policy misses an event. If the error wraps
// [evict.ErrRestore], the new policy must be started again and get its state by a
// replay.
func (c *Cache) SwapPolicy(ctx context.Context, s evict.Succession) error {
	return c.evictor.Swap(ctx, s)
}

// Migrate moves the records to another driver, which keeps them from then on,
// while images are served. The records that it had before are replaced. Migrate
// calls tell regularly, and returns when every record was read back and compared;
// only then is the new driver in use. After an error nothing has changed, except
// for what is in the store of the new driver, and the next call begins from the
// start.
//
// The record log of the driver of the configuration is continued, as if that
// driver were away, so that nothing is missing after a restart with it.
func (c *Cache) Migrate(ctx context.Context, to records.Target, tell func(records.Progress)) (records.Report, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.ctx, func() { cancel(errStopped) })()
	report, err := c.recorder.Migrate(ctx, to, tell)
	if errors.Is(err, records.ErrMoving) {
		err = fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return report, err
}

// Migration returns how far a move of the records to another driver is, or nil if
// there is none.
func (c *Cache) Migration() *records.Progress { return c.recorder.Migration() }

// RecordsWith returns the name of the driver that keeps the records.
func (c *Cache) RecordsWith() string { return c.recorder.KeptBy() }
