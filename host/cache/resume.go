package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
)

// parked holds, by id, the partial files of fills that were interrupted by the end
// of a run or by an origin that went away. The next fill of the image continues
// them. Their bytes are counted with those of other files that are not images: see
// strays.
type parked struct {
	mu   sync.Mutex
	byID map[string]parkedFill
}

// parkedFill is a partial file, and what the origin said about the image.
type parkedFill struct {
	store.Unfinished
	obj origin.Object
}

// checkpoint is what is kept with a partial file.
type checkpoint struct {
	Object origin.Object `json:"object"`
	Name   string        `json:"name,omitempty"`
}

// put adds a partial file and returns the one that it replaces.
func (p *parked) put(f parkedFill) (old parkedFill, replaced bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID == nil {
		p.byID = map[string]parkedFill{}
	}
	old, replaced = p.byID[f.ID]
	p.byID[f.ID] = f
	return old, replaced
}

// take removes and returns the partial file of id, or nil.
func (p *parked) take(id string) *parkedFill {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.byID[id]
	if !ok {
		return nil
	}
	delete(p.byID, id)
	return &f
}

// has reports whether there is a partial file of id.
func (p *parked) has(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.byID[id]
	return ok
}

// drop forgets a partial file, which is gone.
func (p *parked) drop(id, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID[id].Name == name {
		delete(p.byID, id)
	}
}

// list returns all of them, the oldest first.
func (p *parked) list() []parkedFill {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Values(p.byID), func(a, b parkedFill) int { return a.ModTime.Compare(b.ModTime) })
}

// checkpoint lets a later fill continue a file. This needs a version of the origin
// that proves that the two parts belong together.
func (f *fill) checkpoint(staged *store.Staged) {
	if !origin.Joins(f.obj.Version) || f.c.cfg.Fills == options.FillsAbort {
		return
	}
	label, err := json.Marshal(checkpoint{f.obj, hiddenName(f.id, f.name)})
	if err == nil {
		err = staged.Checkpoint(label)
	}
	if err != nil {
		f.c.log.Warn("could not write a checkpoint; a restart would begin this transfer again", "image", f.id, "error", err)
	}
}

// park leaves a staged file for the next fill. Its bytes are charged twice
// until the last client of this one has gone.
func (c *Cache) park(st *store.Staged, obj origin.Object) {
	c.log.Info("the transfer was interrupted; it is continued when the image is requested again", "image", st.ID(), "bytes", st.Size())
	c.others.mu.Lock()
	u := st.Park()
	c.others.countLocked(c.pool, u.Size, 0)
	c.others.mu.Unlock()
	c.addParked(parkedFill{u, obj})
}

// parkAgain takes over a partial file that an earlier run of the service left.
func (c *Cache) parkAgain(u store.Unfinished) {
	var saved checkpoint
	if err := json.Unmarshal(u.Label, &saved); err != nil || saved.Object.Version == "" {
		c.log.Warn("a partial file cannot be continued and is removed", "image", u.ID, "error", err)
		c.dropPartial(u)
		return
	}
	c.cfg.Origins.Learn(u.ID, saved.Name)
	c.addParked(parkedFill{u, saved.Object})
}

// addParked adds a partial file. Of two files of the same image it keeps the
// larger.
func (c *Cache) addParked(f parkedFill) {
	old, replaced := c.parked.put(f)
	if !replaced || old.Name == f.Name {
		return
	}
	if old.Size > f.Size {
		f, old = old, f
		c.parked.put(f)
	}
	c.dropPartial(old.Unfinished)
}

// dropPartial removes a partial file that is counted among the strays.
func (c *Cache) dropPartial(u store.Unfinished) {
	counts := c.others.counted()
	if err := c.store.RemoveIncomplete(u.Name); err != nil { // this may take long
		c.log.Warn("could not remove a partial file", "image", u.ID, "error", err)
		return
	}
	c.others.mu.Lock()
	missed := c.others.counts != counts // a recount in between may have been without the file
	if !missed {
		c.others.countLocked(c.pool, -u.Size, 0)
	}
	c.others.mu.Unlock()
	if missed {
		c.recount()
	}
}

// unpark removes the partial file of an image, which will not be continued.
func (c *Cache) unpark(id string) {
	if f := c.parked.take(id); f != nil {
		c.dropPartial(f.Unfinished)
	}
}

// dropParked removes the oldest parked file to make room: a whole image is worth
// more than a file that may never be continued. It reports whether there was one.
func (c *Cache) dropParked() bool {
	for _, f := range c.parked.list() {
		if f := c.parked.take(f.ID); f != nil {
			c.log.Info("a partial file is removed to make room", "image", f.ID, "bytes", f.Size)
			c.dropPartial(f.Unfinished)
			return true
		}
	}
	return false
}

// resumeParked continues the fills that the end of the last run interrupted.
// Without keep_filling they wait until a client asks for the image.
func (c *Cache) resumeParked() {
	if !c.cfg.Fill.KeepFilling {
		return
	}
	for _, p := range c.parked.list() {
		o, name, err := c.cfg.Origins.ByID(p.ID)
		if err != nil {
			continue // its origin is not known before a request for it
		}
		c.mu.Lock()
		if c.fills[p.ID] == nil && c.ctx.Err() == nil {
			c.begin(p.ID, o, name, "", false)
		}
		c.mu.Unlock()
	}
}

// resume continues what an earlier fill left. It returns neither a stream nor an
// error if the fill has to begin from the start.
func (f *fill) resume(ctx context.Context, p parkedFill) (*fetch, error) {
	f.parked = nil
	sums := newDigester(p.obj.Digests)
	f.c.pool.Charge(p.Size) // until recount has noticed that the file is in use
	staged, err := f.c.store.Resume(p.Name, func(b []byte) error {
		sums.write(b)
		return ctx.Err()
	})
	if err != nil {
		defer f.c.recount() // a recount in between did not count the file, which was in use
		f.c.pool.Release(p.Size)
		if ctx.Err() != nil {
			f.c.addParked(p)
			return nil, context.Cause(ctx)
		}
		f.c.log.Warn("a partial file cannot be continued; the transfer begins from the start", "image", f.id, "error", err)
		f.c.dropPartial(p.Unfinished)
		return nil, nil
	}
	f.c.recount()
	have := staged.Size()
	f.c.pool.Release(p.Size - have)
	src, err := f.continueBehind(ctx, p.obj, have)
	switch {
	case err == nil:
		f.answered = f.c.cfg.Now()
		f.room.Adopt(have)
		f.update(func() {
			f.began, f.obj, f.sums = true, p.obj, sums
			f.staged, f.resumedBytes, f.state.size = staged, have, p.obj.Size
			f.state.resumed(have)
			f.refused = f.c.admits(p.obj.Size)
		})
		f.c.log.Info("an interrupted transfer is continued", "image", f.id, "offset", have, "size", p.obj.Size)
		return src, nil
	case errors.Is(err, origin.ErrUnavailable), ctx.Err() != nil:
		f.c.park(staged, p.obj)
	default:
		f.c.log.Info("an interrupted transfer cannot be continued and begins from the start", "image", f.id, "reason", err)
		f.c.removeStaged(staged)
		err = nil
	}
	staged.Release()
	f.c.pool.Release(have)
	return nil, err
}

// continueBehind opens the rest of the image after have bytes. The rest may be
// empty.
func (f *fill) continueBehind(ctx context.Context, obj origin.Object, have int64) (*fetch, error) {
	switch {
	case obj.Size >= 0 && have > obj.Size:
		return nil, fmt.Errorf("%w: it has %d bytes, but %d were fetched", origin.ErrChanged, obj.Size, have)
	case obj.Size != have:
		return resumeFetch(ctx, f.origin, f.name, obj, have, f.c.cfg.Fill.Retries)
	}
	now, err := f.origin.Stat(ctx, f.name)
	if err == nil {
		if verdict, why := origin.Judge(obj.Validators(), now.Validators(), f.origin.Terms()); verdict != origin.Same {
			err = fmt.Errorf("%w: version %s became %s (%s)", origin.ErrChanged, obj.Version, now.Version, why)
		}
	}
	if err != nil {
		return nil, err
	}
	return endedFetch(obj), nil
}
