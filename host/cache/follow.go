package cache

import (
	"context"
	"errors"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/origin"
)

// follow returns the running fill of id, or a new one, and counts the caller as a
// client of it. It returns nil if the image was committed after the caller looked
// for it; stale is the image that the caller saw then, or nil.
//
// The second look is necessary: when a request that found no file gets here, the
// fill that it would have followed may have committed already.
//
// Only the request that begins a fill is asked whether the image is admitted. If it
// is not, refused says why, and the request needs a transfer of its own, which
// nobody can follow: the next request may be one with which the image is to be
// stored, and it could not store what this one passes through.
func (c *Cache) follow(id string, stale *index.Image, r request, o origin.Origin, name string) (f *fill, collapsed bool, refused error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.fills[id]; f != nil {
		f.mu.Lock()
		f.clients++
		f.wanted = f.wanted || r.queued
		if !r.queued {
			f.asked++
		}
		f.mu.Unlock()
		return f, true, nil
	}
	if im := c.index.Get(id); im != nil && im != stale {
		return nil, false, nil
	}
	c.stats.misses.Add(1)
	if stale == nil && !r.wanted {
		if why := c.admission.ask(id, r.client); why != nil {
			return nil, false, why
		}
	}
	f = c.begin(id, o, name, r.client, stale != nil)
	f.mu.Lock()
	f.clients = 1
	f.wanted, f.queued = r.queued, r.queued
	if !r.queued {
		f.asked, f.askedFor = 1, true
	}
	f.mu.Unlock()
	return f, false, nil
}

// filling reports whether there is a fill that a client can follow.
func (c *Cache) filling(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fills[id] != nil
}

// begin starts a fill for a client. The caller holds c.mu.
func (c *Cache) begin(id string, o origin.Origin, name, client string, replaces bool) *fill {
	ctx, cancel := context.WithCancelCause(c.ctx)
	f := newFill(c, id, o, name, cancel)
	f.replaces = replaces
	f.parked = c.parked.take(id)
	f.ended = c.admission.begin(client)
	c.fills[id] = f
	c.work.Go(func() { f.run(ctx) })
	return f
}

// errAlone says that only the client that began a transfer can have it: it is not
// stored, and the origin cannot be asked for the rest of it.
var errAlone = errors.New("the transfer cannot be followed")

// followable reports whether a client that did not begin the fill may read along.
// If the origin cannot be asked for the rest of an image, the whole image must have
// come, since otherwise the client might be left in the middle. The caller holds
// f.mu.
func (f *fill) followable() bool {
	return origin.Joins(f.obj.Version) || f.state.phase >= committing
}

// forget removes a fill from the map, so that the next request begins a new one.
func (c *Cache) forget(f *fill) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fills[f.id] == f {
		delete(c.fills, f.id)
	}
}

// open waits until the origin has answered and returns the fill's content for one
// client, which must have been counted.
func (f *fill) open(ctx context.Context, collapsed bool) (Content, error) {
	f.mu.Lock()
	for !f.state.over() && !(f.began && (!collapsed || f.followable())) {
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			f.leave()
			return nil, context.Cause(ctx)
		}
		f.mu.Lock()
	}
	began, err, phase, obj := f.began, f.state.err, f.state.phase, f.obj
	f.mu.Unlock()
	if !began {
		f.leave()
		return nil, err
	}
	if collapsed && phase == detached && !origin.Joins(obj.Version) {
		f.leave()
		return nil, errAlone
	}
	return &fillContent{meta: originMeta(f.id, obj, Outcome{Collapsed: collapsed}), f: f}, nil
}

// outcome says whether the image is being stored, and if not, why, as far as that
// is known. While the fill seeks room it is not known.
func (f *fill) outcome() (stored bool, why Detail) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state
	switch {
	case f.refused != nil:
		return false, detailOf(f.refused)
	case s.phase == detached:
		return false, detailOf(s.err)
	case s.bar != nil:
		return false, detailOf(s.bar)
	case s.phase == done && f.image == nil:
		return false, DetailDisk
	}
	return s.phase != reserving && s.phase != failed, ""
}
