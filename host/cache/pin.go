package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/pins"
	"github.com/imgcache/imgcache-host/sdk"
)

// pinsTick is how often pins that have ended are dropped. They have no effect any
// more, so this need not be soon.
const pinsTick = 10 * time.Second

// Pins returns the pins that are in force, ordered by id.
func (c *Cache) Pins() []PinInfo {
	list := []PinInfo{}
	for _, pin := range c.pins.All(c.cfg.Now()) {
		list = append(list, c.pinInfo(pin))
	}
	return list
}

func (c *Cache) pinInfo(pin Pin) PinInfo {
	pin.Name = c.nameOf(pin.ID, pin.Name)
	return PinInfo{Pin: pin, Cached: c.index.Get(pin.ID) != nil}
}

// Pin keeps an image from being evicted until a time; zero: for ever. It replaces
// the pin of an earlier request. It returns the pin of the image that lasts longest,
// which may be one of the configuration. An id may be pinned before its image is
// cached. The error wraps [sdk.ErrInvalid] if the time has passed. After an error
// nothing has changed.
func (c *Cache) Pin(id string, until time.Time) (PinInfo, error) {
	if !sdk.ValidID(id) {
		return PinInfo{}, badID(id)
	}
	pin := Pin{ID: id, Name: c.nameToKeep(id), Until: until.UTC(), From: pins.FromRequest}
	if now := c.cfg.Now(); !pin.Lasts(now) {
		return PinInfo{}, fmt.Errorf("%w: the pin would have ended at %s; expected a time after now, %s",
			sdk.ErrInvalid, pin.End(), now.UTC().Format(time.RFC3339))
	}
	if err := c.pins.Set(pin); err != nil {
		return PinInfo{}, fmt.Errorf("pin %q: %w", id, err)
	}
	c.log.Info("pinned", "image", id, "until", pin.End())
	pin, _ = c.pins.Get(id, c.cfg.Now())
	return c.pinInfo(pin), nil
}

// Unpin removes the pin that a request has set. An absent one is not an error. If
// the configuration pins the image, it stays pinned, and the error wraps
// [ErrConflict].
func (c *Cache) Unpin(id string) error {
	if !sdk.ValidID(id) {
		return badID(id)
	}
	if c.pins.IsRequested(id) {
		if err := c.pins.Remove(id); err != nil {
			return fmt.Errorf("unpin %q: %w", id, err)
		}
		c.log.Info("unpinned", "image", id)
	}
	if pin, ok := c.pins.ConfiguredFor(id, c.cfg.Now()); ok {
		return fmt.Errorf("%w: image %q is pinned by %s and stays pinned until it is removed there", ErrConflict, id, pin.From)
	}
	return nil
}

// pinned returns how many cached images are pinned, and their bytes.
func (c *Cache) pinned() (n int, bytes int64) {
	var held []string // collected first, since the index's mutex is never taken under that of the pins
	c.pins.Each(c.cfg.Now(), func(pin Pin) { held = append(held, pin.ID) })
	for _, id := range held {
		if im := c.index.Get(id); im != nil {
			n++
			bytes += im.Size
		}
	}
	return n, bytes
}

// full reports whether pinned images alone fill the cache: a prune cannot come down
// to the low watermark, or even the first part of an image of unknown size does not
// fit beside them.
func (c *Cache) full(pinned int64) bool {
	return pinned > 0 && pinned > min(c.cfg.lowMark(), c.cfg.MaxSize-c.growth())
}

// watchPins drops pins that have ended, and logs when pinned images begin and cease
// to fill the cache, until the context ends.
func (c *Cache) watchPins(ctx context.Context) {
	tick := time.NewTicker(pinsTick)
	defer tick.Stop()
	for full := false; ; {
		c.pins.Drop()
		n, bytes := c.pinned()
		if now := c.full(bytes); now != full {
			full = now
			if full {
				c.log.Warn("pinned images fill the cache; there is no room for others, which are passed through", "pinned", n, "bytes", bytes, "max_size", c.cfg.MaxSize)
			} else {
				c.log.Info("there is room beside the pinned images again", "pinned", n, "bytes", bytes, "max_size", c.cfg.MaxSize)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
