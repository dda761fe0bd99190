package cache

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/store"
)

// commitStaged makes a staged file an image and ends its reservation. The caller
// becomes a reader of the image. The origin had it at the time had, and need not
// confirm it for the time trust after that. After an error nothing has changed.
func (c *Cache) commitStaged(st *store.Staged, m store.Meta, room *space.Reservation, had time.Time, trust time.Duration) (*index.Image, error) {
	info, replaced, err := st.Commit(m)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	c.unpark(info.ID)
	c.absent.forget(info.ID)
	c.queue.removed(info.ID)
	im, old := c.index.Commit(info, c.cfg.Now())
	room.Commit(info.Size)
	im.Check.Confirm(had, trust)
	switch {
	case old != nil && replaced != nil:
		c.pool.BeginFreeing(old.Size)
		c.evictor.UnlinkInTrash(*replaced, old)
	case old != nil:
		c.index.Unlinked(old)
	case replaced != nil: // the scan had not reached it
		c.pool.Charge(replaced.Size)
		c.pool.BeginFreeing(replaced.Size)
		c.evictor.UnlinkInTrash(*replaced, nil)
	}
	c.disk.ok()
	if old != nil {
		c.history.Happened(slog.LevelInfo, info.ID, Replaced, replacement(old.Info.Version, info.Version))
	}
	c.history.Happened(slog.LevelInfo, info.ID, Cached, source(m), "bytes", info.Size, "version", info.Version)
	return im, nil
}

// replacement says which version replaced which.
func replacement(before, now string) string {
	if before == now {
		return "the same version was fetched again"
	}
	return fmt.Sprintf("version %s was replaced by version %s", cmp.Or(before, "unknown"), cmp.Or(now, "unknown"))
}

// source says where the bytes of an image came from.
func source(m store.Meta) string {
	if m.URL == "" {
		return "written by a client"
	}
	return fmt.Sprintf("fetched in %v from %s", time.Duration(m.FetchMS)*time.Millisecond, m.URL)
}
