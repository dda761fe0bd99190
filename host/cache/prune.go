package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
)

// Prune removes images until the cache holds at most the wanted number of
// bytes: o.MaxSize, which ignores watermarks and minimum age, or by default
// the low watermark if the high one is passed. Pinned images stay. It returns
// when the files are gone, except those that are still being read. In a dry run
// it only says what it would remove.
func (c *Cache) Prune(ctx context.Context, o PruneOptions) (Result, error) {
	if o.MaxSize != nil && *o.MaxSize < 0 {
		return Result{}, fmt.Errorf("max_size is %d, want 0 or more bytes", *o.MaxSize)
	}
	r := evict.Rule{MinAge: c.cfg.Prune.MinAge}
	if o.MaxSize != nil {
		r = evict.Rule{InUse: true}
	}
	var held, target int64
	list, err := c.evictor.Prune(ctx, r, o.DryRun, func() (int64, string) {
		var why string
		held, target, why = c.excess(o)
		return held - target, fmt.Sprintf("%s from %d to %d bytes", why, held, target)
	})
	var done Result
	for _, v := range list {
		done.Files++
		done.Bytes += v.Image.Size
	}
	if held > target && !o.DryRun {
		c.log.Info("pruned", "files", done.Files, "bytes", done.Bytes, "target", target)
	}
	return done, err
}

// excess returns what the cache holds in the eyes of a prune, what it is to
// hold afterwards, which is as much when nothing has to leave, and why.
func (c *Cache) excess(o PruneOptions) (held, target int64, why string) {
	target, start := c.cfg.lowMark(), c.cfg.highMark()
	if o.MaxSize != nil {
		target, start = *o.MaxSize, *o.MaxSize
	}
	bound := c.cfg.hard() && o.MaxSize == nil
	held, why = c.held(bound), "by a prune"
	if held <= start { // only what min_free needs has to leave
		target = held
	}
	if missing := c.missing(); o.MaxSize == nil && held-missing < target {
		target = max(0, held-missing)
		why += " for min_free"
	}
	for bound && !o.DryRun && held > target && c.dropInvalid(held-target) {
		held = c.held(bound)
	}
	return max(held, target), target, why
}

// held is what a prune compares with its limit. A bound is on all usage; what
// Glance compares is without files that no prune of its own removes, be they
// ever so large: else it would empty the cache because of them, again and
// again.
func (c *Cache) held(bound bool) int64 {
	total, pending := c.pool.State()
	if bound {
		return total - pending
	}
	others, _ := c.others.sizes()
	return total - pending - others
}

// missing is how many bytes of min_free somebody else has filled, and images
// have to give.
func (c *Cache) missing() int64 {
	short, err := c.free.Short(0)
	if err != nil {
		c.log.Warn("min_free is not kept", "error", err)
		return 0
	}
	_, pending := c.pool.State()
	return short - pending
}

// Victims returns who would leave next, in order, at most limit of them. A
// stateful policy is not asked, since a question moves it on: its standing
// list is shown, which is empty while the cache is not half full.
func (c *Cache) Victims(ctx context.Context, limit int) ([]Victim, error) {
	list, err := c.evictor.Next(ctx)
	victims := []Victim{}
	for _, v := range list[:min(limit, len(list))] {
		victims = append(victims, Victim{ID: v.Image.ID, Name: c.nameOf(v.Image.ID, c.index.View(v.Image).File.Name), Size: v.Image.Size, Why: v.Why})
	}
	return victims, err
}

// pruneByItself prunes when the high watermark is passed, once the records
// are there or have had their time.
func (c *Cache) pruneByItself(ctx context.Context) {
	patience := time.NewTimer(recordsPatience)
	defer patience.Stop()
	select {
	case <-c.recorder.Merged:
	case <-patience.C:
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(c.cfg.Prune.Interval)
	defer tick.Stop()
	for {
		c.recount()
		if _, err := c.Prune(ctx, PruneOptions{}); err != nil && ctx.Err() == nil {
			c.log.Error("prune", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// recordsPatience is how long the automatic prune waits for the records: it
// must not guess at what is least used while that is about to be known.
const recordsPatience = time.Minute
