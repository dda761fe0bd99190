package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
)

// quarantine takes an image whose bytes are wrong out of the cache and keeps
// the file for inspection. It reports whether the image was still there; of
// several readers who find the same, one does it. A file that cannot be moved
// stays, and is not served.
func (c *Cache) quarantine(im *index.Image, why error) bool {
	if im = c.index.Quarantine(im, c.cfg.Now()); im == nil {
		return false
	}
	c.stats.quarantined.Add(1)
	c.history.Happened(slog.LevelError, im.ID, Quarantined, why.Error()+"; the file is in invalid/")
	quarantine := func() error { return c.store.Quarantine(c.index.View(im).File) }
	if err := c.moveToInvalid(im.ID, quarantine); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Error("quarantine", "image", im.ID, "error", err)
	}
	c.index.Unlinked(im)
	return true
}

// quarantineUnopened quarantines an image that cannot be opened because nothing vouches
// for its bytes. It returns fs.ErrNotExist, as if there were no image.
func (c *Cache) quarantineUnopened(id string, why error) error {
	info, err := c.store.Stat(id)
	if err == nil {
		if im := c.index.Found(info); im != nil {
			c.quarantine(im, why)
		}
		err = fs.ErrNotExist
	}
	return fmt.Errorf("%w: %w", err, why)
}
