package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/imgcache/imgcache-host/sdk"
)

// quarantine takes an image whose bytes are wrong out of the cache and keeps
// the file for inspection. It reports whether the image was still there; of
// several readers who find the same, one does it.
func (c *Cache) quarantine(im *image, why error) bool {
	if !c.index.removeExactly(im, sdk.ReasonCorrupt, c.cfg.Now()) {
		return false
	}
	c.stats.quarantined.Add(1)
	c.history.tell(slog.LevelError, im.id, Quarantined, why.Error()+"; the file is in invalid/")
	if err := c.store.Quarantine(im.info); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Error("quarantine", "image", im.id, "error", err)
	}
	c.recount()
	c.index.unlinked(im)
	return true
}

// condemn quarantines an image that cannot be opened because nothing vouches
// for its bytes. It returns fs.ErrNotExist, as if there were no image.
func (c *Cache) condemn(id string, why error) error {
	info, err := c.store.Stat(id)
	if err == nil {
		c.quarantine(c.index.found(info), why)
		err = fs.ErrNotExist
	}
	return fmt.Errorf("%w: %w", err, why)
}
