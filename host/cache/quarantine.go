package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
)

// quarantine removes an image with wrong bytes from the cache and keeps the file for
// inspection. It reports whether the image was still there: if several readers find
// wrong bytes, only one of them quarantines it. A file that cannot be moved stays,
// but is not served.
func (c *Cache) quarantine(im *index.Image, why error) bool {
	if im = c.index.Quarantine(im, c.cfg.Now()); im == nil {
		return false
	}
	c.stats.quarantined.Add(1)
	c.history.Happened(slog.LevelError, im.ID, Quarantined, why.Error()+"; the file is in invalid/")
	quarantine := func() error { return c.store.Quarantine(c.index.View(im).File) }
	if err := c.moveToInvalid(im.ID, quarantine); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Error("could not move a corrupt image to invalid/; it is not served, but its file stays", "image", im.ID, "error", err)
	}
	c.index.Unlinked(im)
	return true
}

// quarantineUnopened quarantines an image that could not be opened because its block
// table is damaged or does not fit. The error wraps fs.ErrNotExist, as if there were
// no image.
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
