package cache

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Prune removes images until the cache holds at most the wanted number of
// bytes: o.MaxSize, which ignores watermarks and minimum age, or by default
// the low watermark if the high one is passed. Pinned images stay. It returns
// when the files are gone, except those that are still being read.
func (c *Cache) Prune(ctx context.Context, o PruneOptions) (Result, error) {
	target, r := c.cfg.lowMark(), rule{minAge: c.cfg.MinAge}
	start := c.cfg.highMark()
	if o.MaxSize != nil {
		if *o.MaxSize < 0 {
			return Result{}, fmt.Errorf("max_size is %d, want 0 or more bytes", *o.MaxSize)
		}
		target, start, r = *o.MaxSize, *o.MaxSize, rule{inUse: true}
	}
	if err := c.evictor.lockAdvisor(ctx); err != nil {
		return Result{}, err
	}
	defer c.evictor.unlockAdvisor()
	bound := c.cfg.Hard && o.MaxSize == nil
	held := c.held(bound)
	if held <= start { // only what min_free needs has to leave
		target = held
	}
	purpose := "by a prune"
	if missing := c.missing(); o.MaxSize == nil && held-missing < target {
		target = max(0, held-missing)
		purpose += " for min_free"
	}
	if held <= target {
		return Result{}, nil
	}
	for bound && !o.DryRun && held > target && c.dropInvalid() {
		held = c.held(bound)
	}
	var unlinked sync.WaitGroup
	purpose = fmt.Sprintf("%s from %d to %d bytes", purpose, held, target)
	leave := func(v victim) bool {
		if !c.evictor.takeOut(v.im, r, time.Time{}) {
			return false
		}
		unlinked.Add(1)
		return c.evictor.evict(v, purpose, unlinked.Done) == nil
	}
	if o.DryRun {
		leave = nil
	}
	list, err := c.evictor.advise(ctx, held-target, r, leave)
	c.evictor.noteVerdict(err)
	var done Result
	for _, v := range list {
		done.Files++
		done.Bytes += v.im.size
	}
	unlinked.Wait()
	if !o.DryRun {
		c.log.Info("pruned", "files", done.Files, "bytes", done.Bytes, "target", target)
	}
	return done, ctx.Err()
}

// held is what a prune compares with its limit. A bound is on all usage; what
// Glance compares is without files that no prune of its own removes, be they
// ever so large: else it would empty the cache because of them, again and
// again.
func (c *Cache) held(bound bool) int64 {
	total, pending := c.pool.state()
	if bound {
		return total - pending
	}
	others, _ := c.others.sizes()
	return total - pending - others
}

// missing is how many bytes of min_free somebody else has filled, and images
// have to give.
func (c *Cache) missing() int64 {
	short, err := c.free.short(0)
	if err != nil {
		c.log.Warn("min_free is not kept", "error", err)
		return 0
	}
	_, pending := c.pool.state()
	return short - pending
}

// Victims returns who would leave next, in order, at most limit of them. A
// stateful policy is not asked, since a question moves it on: its standing
// list is shown, which is empty while the cache is not half full.
func (c *Cache) Victims(ctx context.Context, limit int) ([]Victim, error) {
	if c.evictor.newest().Stateful != nil {
		return shown(c.evictor.standingList(), limit), nil
	}
	if err := c.evictor.lockAdvisor(ctx); err != nil {
		return nil, err
	}
	defer c.evictor.unlockAdvisor()
	total, _ := c.pool.state()
	list, err := c.evictor.advise(ctx, total, rule{minAge: c.cfg.MinAge}, nil)
	c.evictor.noteVerdict(err)
	return shown(list, limit), ctx.Err()
}

func shown(list []victim, limit int) []Victim {
	victims := []Victim{}
	for _, v := range list[:min(limit, len(list))] {
		victims = append(victims, Victim{ID: v.im.id, Size: v.im.size, Why: v.why})
	}
	return victims
}

// pruneByItself prunes when the high watermark is passed, once the records
// are there or have had their time.
func (c *Cache) pruneByItself(ctx context.Context) {
	patience := time.NewTimer(recordsPatience)
	defer patience.Stop()
	select {
	case <-c.recorder.merged:
	case <-patience.C:
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(c.cfg.PruneInterval)
	defer tick.Stop()
	for {
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
