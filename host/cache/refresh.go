package cache

import (
	"context"
	"fmt"

	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/sdk"
)

// Refresh asks the origin of an image now, even if it was asked a moment ago, and
// fetches its version if another one or none is cached. It returns when that is
// cached. Until then, and after an error, an older version stays. If the context
// ends, a transfer that has begun goes on. Errors wrap [ErrBadID] or an error of
// package origin, or say why the image was not stored.
func (c *Cache) Refresh(ctx context.Context, id string) (ImageInfo, error) {
	if !sdk.ValidID(id) {
		return ImageInfo{}, badID(id)
	}
	o, name, err := c.cfg.Origins.ByID(id)
	if err != nil {
		return ImageInfo{}, fmt.Errorf("find the origin of %q: %w", id, err)
	}
	ctx = WithFresh(ctx)
	for {
		k, stale, err := c.openFresh(ctx, id, o, name)
		if err != nil {
			return ImageInfo{}, err
		}
		if k != nil {
			stale := k.outcome.Detail == DetailStale
			k.Close()
			if stale {
				return ImageInfo{}, fmt.Errorf("%w: %s", origin.ErrUnavailable, c.reach.why(o.Name()))
			}
			return c.Image(id)
		}
		f, _, _ := c.follow(id, stale, request{wanted: true, queued: true}, o, name) // a wanted image is never refused
		if f == nil {
			continue // it was committed just now, and may be the old version
		}
		f.mu.Lock()
		f.wanted = true
		f.mu.Unlock()
		err = f.wait(ctx, 0)
		f.leave()
		if err != nil {
			return ImageInfo{}, err
		}
		return c.Image(id)
	}
}
