package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
)

// Prune removes images until the cache holds at most o.MaxSize bytes; then
// watermarks and minimum age do not count. By default, if the cache holds more than
// the high watermark, it removes images down to the low one. Pinned images stay. It
// returns when the files are gone, except those that are still being read. A dry
// run only says what it would remove.
func (c *Cache) Prune(ctx context.Context, o PruneOptions) (Result, error) {
	if o.MaxSize != nil && *o.MaxSize < 0 {
		return Result{}, fmt.Errorf("max_size is %d; expected 0 or more bytes", *o.MaxSize)
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

// excess returns how many bytes count for a prune, how many are to be left, and the
// purpose. If nothing has to leave, the two numbers are equal.
func (c *Cache) excess(o PruneOptions) (held, target int64, why string) {
	target, start := c.cfg.lowMark(), c.cfg.highMark()
	if o.MaxSize != nil {
		target, start = *o.MaxSize, *o.MaxSize
	}
	bound := c.cfg.hard() && o.MaxSize == nil
	held, why = c.held(bound), "by a prune"
	if held <= start { // images leave only for min_free
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

// held returns the number of bytes that a prune compares with its limit. A hard
// limit is on all bytes; bound says that it is meant. Otherwise, as with Glance,
// files that no prune removes do not count: a large one would make each prune empty
// the cache.
func (c *Cache) held(bound bool) int64 {
	total, pending := c.pool.State()
	if bound {
		return total - pending
	}
	others, _ := c.others.sizes()
	return total - pending - others
}

// missing returns how many bytes images must give up so that min_free bytes are
// free.
func (c *Cache) missing() int64 {
	short, err := c.free.Short(0)
	if err != nil {
		c.log.Warn("min_free cannot be kept: the free space of the file system is not known", "error", err)
		return 0
	}
	_, pending := c.pool.State()
	return short - pending
}

// Victims returns at most limit images in the order in which they would leave. A
// stateful policy is not asked, since a question would change its state: Victims
// returns its standing list, which is empty until the cache is half full.
func (c *Cache) Victims(ctx context.Context, limit int) ([]Victim, error) {
	list, err := c.evictor.Next(ctx)
	victims := []Victim{}
	for _, v := range list[:min(limit, len(list))] {
		victims = append(victims, Victim{ID: v.Image.ID, Name: c.nameOf(v.Image.ID, c.index.View(v.Image).File.Name), Size: v.Image.Size, Why: v.Why})
	}
	return victims, err
}

// pruneByItself prunes regularly. It begins when the records are merged, or when
// they have not come for recordsPatience.
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
			c.log.Error("the automatic prune failed", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// recordsPatience is how long the automatic prune waits for the records. Without
// them it does not know which images are used least.
const recordsPatience = time.Minute
