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

// keepDirectory puts the cache directory in order regularly until the context ends:
// other programs may empty, replace or remount it while the service runs.
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

// takeStock makes the engine's knowledge fit a directory that was emptied or
// replaced: it forgets images and partial files that are gone and returns their
// bytes, has the engine's own files written again, and takes up what another
// directory holds.
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
		c.log.Warn("another program emptied or replaced the cache directory; its images are fetched again when they are requested",
			"images", images, "bytes", bytes)
	}
	if m.Reopened {
		c.resumeParked()
	}
}

// forgetVanished forgets the images whose files are gone, and returns their number
// and bytes.
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
		// The file may have been committed since the directory was listed.
		if _, err := c.store.Stat(view.ID); im == nil || !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !c.index.RemoveExactly(im, sdk.ReasonDeleted, c.cfg.Now()) {
			continue
		}
		c.history.Happened(slog.LevelDebug, im.ID, Vanished, "another program emptied the cache directory")
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
