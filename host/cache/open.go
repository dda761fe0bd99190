package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// Open opens an image for a GET: from the cache, from a running fill, or from a new
// one. The error wraps [ErrBadID] or an error of package origin.
func (c *Cache) Open(ctx context.Context, id string) (Content, error) {
	if !sdk.ValidID(id) {
		return nil, badID(id)
	}
	o, name, err := c.cfg.Origins.ByID(id)
	if err != nil {
		return nil, fmt.Errorf("find the origin of %q: %w", id, err)
	}
	for {
		k, stale, err := c.openFresh(ctx, id, o, name)
		if err != nil {
			return nil, err
		}
		if k != nil {
			c.index.Access(k.im, c.cfg.Now())
			return k, nil
		}
		if err := c.absent.err(id, c.cfg.Now()); err != nil && !c.filling(id) {
			return nil, err
		}
		if stale == nil && !c.filling(id) {
			if content, err := c.openParts(ctx, id, o, name, nil); content != nil || err != nil {
				return content, err
			}
		}
		f, collapsed, refused := c.follow(id, stale, c.requestOf(ctx, id), o, name)
		switch {
		case refused != nil:
			if content, err := c.openParts(ctx, id, o, name, refused); content != nil || err != nil {
				return content, err
			}
			f = c.passThrough(id, o, name, refused)
		case f == nil:
			continue // it was committed just now
		}
		content, err := f.open(ctx, collapsed)
		if errors.Is(err, errAlone) && f.refusal().NotAnImage() {
			continue // the next answer may be the image
		}
		if errors.Is(err, errAlone) {
			content, err = c.passThrough(id, o, name, notAdmitted{DetailNotShared, errAlone.Error()}).open(ctx, false)
		}
		if stale != nil {
			return c.orStale(content, err, stale, o, name)
		}
		return content, err
	}
}

// openFresh opens a cached image after asking the origin, if that is due, whether
// it still has that version. It returns neither an image nor an error if the image
// has to be fetched; stale is then the cached image that is to be replaced, or nil.
func (c *Cache) openFresh(ctx context.Context, id string, o origin.Origin, name string) (k *cachedContent, stale *index.Image, err error) {
	if WantsFresh(ctx) {
		c.absent.forget(id)
	}
	k, err = c.openCached(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case err != nil:
		c.unopened(id, err)
		return nil, c.index.Get(id), nil // it is there, but cannot be opened now
	}
	k.source, k.name, k.client = o, name, clientOf(ctx)
	found, err := c.revalidate(ctx, k)
	if err == nil {
		err = found.err
	}
	if err != nil || found.changed {
		return nil, k.im, errors.Join(err, k.Close())
	}
	k.outcome = Outcome{Hit: true}
	k.tell(found.stale)
	return k, nil, nil
}

// orStale returns what a fill brings to replace a cached image or, if it brings
// nothing, the cached image.
func (c *Cache) orStale(content Content, err error, stale *index.Image, o origin.Origin, name string) (Content, error) {
	if f, ok := content.(*fillContent); ok {
		if refusal := f.f.refusal(); refusal.NotAnImage() {
			err = fmt.Errorf("%w: it did not send an image: %s", origin.ErrUnavailable, refusal)
		}
	}
	if err == nil || !c.deliversNothing(stale, o, err) {
		return content, err
	}
	k, cachedErr := c.openCached(stale.ID)
	if cachedErr != nil {
		return content, err
	}
	if content != nil {
		_ = content.Close() // never fails
	}
	k.source, k.name, k.outcome = o, name, Outcome{Hit: true}
	k.tell(true)
	c.index.Access(k.im, c.cfg.Now())
	return k, nil
}

// tell sets in the outcome what is special about a hit.
func (k *cachedContent) tell(stale bool) {
	switch {
	case stale:
		k.c.stats.stale.Add(1)
		k.outcome.Detail, k.outcome.Confirmed = DetailStale, k.im.Check.Confirmed()
	case !k.info.Verified:
		k.outcome.Detail = DetailUnverified
	}
}

func badID(id string) error {
	return fmt.Errorf("%w: %.40q: expected a letter or digit, then at most 127 letters, digits, dots, dashes or underscores, and no reserved name", ErrBadID, id)
}

// OpenCached opens an image as it is cached, without asking its origin. It counts
// as an access, as Open does. The error wraps [ErrNotFound] if the image is not
// cached.
func (c *Cache) OpenCached(ctx context.Context, id string) (Content, error) {
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
	k.outcome, k.client = Outcome{Hit: true}, clientOf(ctx)
	c.index.Access(k.im, c.cfg.Now())
	return k, nil
}

// openCached opens the file of an image. The error wraps fs.ErrNotExist if there is
// no file, or if it was quarantined just now because its block table is damaged.
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

// vanished forgets an image whose file was removed by another program.
func (c *Cache) vanished(id string) {
	im := c.index.Get(id)
	if im == nil || !c.index.RemoveExactly(im, sdk.ReasonDeleted, c.cfg.Now()) {
		return
	}
	c.history.Happened(slog.LevelWarn, id, Vanished, "another program removed its file")
	c.index.Unlinked(im)
}

// Stat describes an image for a HEAD: from the cache, if the image is cached and
// the origin still has that version, and otherwise from the origin. It never starts
// a fill, and does not count as an access. CopyTo of the Content always fails. The
// error wraps [ErrBadID] or an error of package origin.
func (c *Cache) Stat(ctx context.Context, id string) (Content, error) {
	if !sdk.ValidID(id) {
		return nil, badID(id)
	}
	o, name, err := c.cfg.Origins.ByID(id)
	if err != nil {
		return nil, fmt.Errorf("find the origin of %q: %w", id, err)
	}
	k, _, err := c.openFresh(ctx, id, o, name)
	if err != nil {
		return nil, err
	}
	if k != nil {
		defer k.Close()
		return &statContent{k.meta}, nil
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
