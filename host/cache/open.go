package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// Open serves a GET: from the cache, from a running fill, or by a new one. The
// error wraps [ErrBadID] or one of package origin.
func (c *Cache) Open(ctx context.Context, id string) (Content, error) {
	if !sdk.ValidID(id) {
		return nil, badID(id)
	}
	o, name, err := c.cfg.Origins.ByID(id)
	if err != nil {
		return nil, fmt.Errorf("find the origin of %q: %w", id, err)
	}
	for {
		var stale *index.Image
		k, err := c.openCached(id)
		if k != nil {
			k.source, k.name = o, name
			changed, detail, err := c.revalidate(ctx, k)
			if err == nil && !changed {
				k.outcome = Outcome{Hit: true, Detail: detail}
				c.index.Access(k.im, c.cfg.Now())
				return k, nil
			}
			stale = k.im
			k.Close()
			if err != nil {
				return nil, err
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			c.unopened(id, err)
			stale = c.index.Get(id) // there, but of no use now
		}
		if err := c.absent.err(id, c.cfg.Now()); err != nil && !c.filling(id) {
			return nil, err
		}
		f, collapsed := c.follow(id, o, name, stale, c.requestOf(ctx, id))
		if f == nil {
			continue // it was committed just now
		}
		return f.open(ctx, collapsed)
	}
}

func badID(id string) error {
	return fmt.Errorf("%w: %.40q: want a letter or digit, then at most 127 letters, digits, dots, dashes or underscores, and no reserved name", ErrBadID, id)
}

// OpenCached opens an image as it is cached, without asking its origin; that is
// an access as by Open. The error wraps [ErrNotFound] unless it is cached.
func (c *Cache) OpenCached(_ context.Context, id string) (Content, error) {
	if !sdk.ValidID(id) {
		return nil, badID(id)
	}
	k, err := c.openCached(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("image %q is not cached: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	c.cfg.Origins.Learn(id, k.file.Info().Name)
	if o, name, err := c.cfg.Origins.ByID(id); err == nil {
		k.source, k.name = o, name
	}
	k.outcome = Outcome{Hit: true}
	c.index.Access(k.im, c.cfg.Now())
	return k, nil
}

// openCached opens the file of an image. An error wraps fs.ErrNotExist when
// there is none, or none any more, because nothing vouched for its bytes.
func (c *Cache) openCached(id string) (*cachedContent, error) {
	released := c.index.Releases()
	file, err := c.store.OpenImage(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.vanished(id)
		return nil, err
	case errors.Is(err, store.ErrCorrupt):
		return nil, c.quarantineUnopened(id, err)
	case err != nil:
		return nil, err
	}
	im, stale := c.index.Opened(file.Info(), released)
	switch {
	case stale:
		file.Close()
		return c.openCached(id)
	case im == nil:
		return nil, errors.Join(fmt.Errorf("image %q is corrupt: %w", id, fs.ErrNotExist), file.Close())
	}
	info := infoOf(c.index.View(im))
	return &cachedContent{
		meta: meta{info: info, modTime: file.Info().OriginModTime},
		c:    c, im: im, file: file,
	}, nil
}

// vanished forgets an image whose file was taken away by somebody else.
func (c *Cache) vanished(id string) {
	im := c.index.Get(id)
	if im == nil || !c.index.RemoveExactly(im, sdk.ReasonDeleted, c.cfg.Now()) {
		return
	}
	c.history.Happened(slog.LevelWarn, id, Vanished, "somebody else took its file away")
	c.index.Unlinked(im)
}

// revalidate asks the origin, if that is due, whether the cached version is
// still its own. An origin that does not answer is no reason not to serve.
// The error is the origin's refusal.
func (c *Cache) revalidate(ctx context.Context, k *cachedContent) (changed bool, detail string, err error) {
	if !k.info.Verified {
		detail = "unverified"
	}
	now := c.cfg.Now()
	if digestVersion(k.info.Version) || !due(c.index.CheckedAt(k.im), now, k.source.Terms().RevalidateAfter) {
		return false, detail, nil
	}
	limited, cancel := context.WithTimeout(ctx, originTimeout)
	defer cancel()
	obj, err := c.ask(limited, k.info.ID, k.source, k.name)
	switch {
	case ctx.Err() != nil:
		return false, "", context.Cause(ctx)
	case errors.Is(err, origin.ErrNotFound), errors.Is(err, origin.ErrDenied):
		return false, "", err
	case err != nil && k.source.Terms().FailWhenDown:
		return false, "", fmt.Errorf("the origin cannot confirm the cached image, and on_origin_down is \"fail\": %w", err)
	case err != nil:
		c.log.Warn("the origin cannot confirm a cached image; it is served all the same", "image", k.info.ID, "error", err)
		return false, "stale", nil
	case k.info.Version == "" && obj.Size == k.info.Size, obj.Version == k.info.Version:
		c.index.Confirm(k.im, now)
		return false, detail, nil
	}
	c.log.Info("the origin has another version", "image", k.info.ID, "cached", k.info.Version, "origin", obj.Version)
	return true, "", nil
}

// ask asks an origin for an image, unless it answered just now that it has
// none.
func (c *Cache) ask(ctx context.Context, id string, o origin.Origin, name string) (origin.Object, error) {
	if err := c.absent.err(id, c.cfg.Now()); err != nil {
		return origin.Object{}, err
	}
	obj, err := o.Stat(ctx, name)
	c.absent.add(id, err, o.Terms(), c.cfg.Now())
	return obj, err
}

// digestVersion reports whether a version is a digest: it can never change.
func digestVersion(v string) bool {
	for algorithm := range strength {
		if len(v) > len(algorithm) && v[:len(algorithm)] == algorithm && v[len(algorithm)] == ':' {
			return true
		}
	}
	return false
}

func due(checked, now time.Time, after time.Duration) bool {
	return checked.IsZero() || now.Sub(checked) >= after
}

// Stat answers a HEAD: from the cache, if the image is cached and the origin
// still has that version, else from the origin. It never starts a fill, and
// moves no last access. The Content answers everything but CopyTo. The error
// wraps [ErrBadID] or one of package origin.
func (c *Cache) Stat(ctx context.Context, id string) (Content, error) {
	if !sdk.ValidID(id) {
		return nil, badID(id)
	}
	o, name, err := c.cfg.Origins.ByID(id)
	if err != nil {
		return nil, fmt.Errorf("find the origin of %q: %w", id, err)
	}
	if k, err := c.openCached(id); err == nil {
		defer k.Close()
		k.source, k.name = o, name
		changed, detail, err := c.revalidate(ctx, k)
		if err != nil {
			return nil, err
		}
		if !changed {
			k.outcome = Outcome{Hit: true, Detail: detail}
			return &statContent{k.meta}, nil
		}
	}
	obj, err := c.ask(ctx, id, o, name)
	if err != nil {
		return nil, err
	}
	m := originMeta(id, obj, Outcome{})
	m.info.State = StateAbsent
	return &statContent{m}, nil
}

func originMeta(id string, obj origin.Object, out Outcome) meta {
	info := ImageInfo{ID: id, State: StateFilling, Size: obj.Size, Version: obj.Version, URL: obj.URL}
	for _, d := range obj.Digests {
		if d.Algorithm == "sha256" {
			info.SHA256 = fmt.Sprintf("%x", d.Sum)
		}
	}
	return meta{info: info, modTime: obj.LastModified, outcome: out}
}

// originTimeout bounds a question to the origin on behalf of a cached image:
// after it the image is served as it is.
const originTimeout = 5 * time.Second
