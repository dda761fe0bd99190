package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// keepDirectory has the cache directory put in order, which others may empty,
// replace or remount under the service, until the context ends.
func (c *Cache) keepDirectory(ctx context.Context) {
	tick := time.NewTicker(diskPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.mendDirectory(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// mendDirectory puts the directory in order once.
func (c *Cache) mendDirectory(ctx context.Context) {
	m, err := c.store.Mend()
	if err != nil {
		c.disk.fail(err)
	} else {
		c.disk.inOrder()
	}
	if m.Any() {
		c.takeStock(ctx, m)
	}
}

// takeStock makes what the engine knows fit a directory that was emptied or
// replaced: images and partial files that are gone are forgotten and their bytes
// return, the engine's own files are written anew, and those of another directory
// are taken up.
func (c *Cache) takeStock(ctx context.Context, m store.Mended) {
	if m.Reopened || m.LostTables() {
		c.index.Unguard()
	}
	images, bytes := c.forgetVanished()
	c.forgetParked()
	if m.Reopened {
		c.recover()
		c.scan(ctx)
	} else {
		c.recount()
	}
	c.pins.Renew()
	c.history.Renew()
	c.recorder.Renew()
	if images > 0 {
		c.log.Warn("somebody else emptied the cache directory or put another in its place; its images are fetched anew when they are asked for",
			"images", images, "bytes", bytes)
	}
	if m.Reopened {
		c.resumeParked()
	}
}

// forgetVanished forgets the images whose files are gone, and returns how many
// there were and their bytes.
func (c *Cache) forgetVanished() (images int, bytes int64) {
	names, err := c.store.Names()
	if err != nil {
		c.disk.fail(err)
		return 0, 0
	}
	for _, view := range c.index.All() {
		if names[view.ID] {
			continue
		}
		im := c.index.Get(view.ID)
		// It may have come since the directory was listed.
		if _, err := c.store.Stat(view.ID); im == nil || !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !c.index.RemoveExactly(im, sdk.ReasonDeleted, c.cfg.Now()) {
			continue
		}
		c.history.Happened(slog.LevelDebug, im.ID, Vanished, "somebody else emptied the cache directory")
		c.index.Unlinked(im)
		images++
		bytes += im.Size
	}
	return images, bytes
}

// forgetParked forgets the partial files that are gone.
func (c *Cache) forgetParked() {
	partial, err := c.store.Incomplete()
	if err != nil {
		c.disk.fail(fmt.Errorf("list incomplete files: %w", err))
		return
	}
	there := map[string]bool{}
	for _, p := range partial {
		there[p.Name] = true
	}
	for _, p := range c.parked.list() {
		if !there[p.Name] {
			c.parked.drop(p.ID, p.Name)
		}
	}
}
