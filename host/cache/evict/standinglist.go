package evict

import (
	"context"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
)

// keepStanding keeps the policy and the standing list up to date until the
// context ends.
func (e *Evictor) keepStanding(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		if e.events().Pending() {
			_ = e.Inform(ctx) // noteVerdict logs the error
			if e.wantsAdvice() {
				e.refresh(ctx)
			}
		}
		select {
		case <-tick.C:
		case <-e.used:
		case <-ctx.Done():
			return
		}
	}
}

// wantsAdvice reports whether the policy should be asked for a new standing
// list: the cache or the file system is filling up, and half of the list is used
// or, with a scoring policy, the list is old. A stateful policy changes its state
// with each question, so it is not asked only because the list is old.
func (e *Evictor) wantsAdvice() bool {
	if total, _ := e.pool.State(); total < e.max/2 && !e.free.Scarce(e.standingWant()) {
		return false
	}
	e.mu.Lock()
	old := e.policy.Scorer != nil && e.now().Sub(e.at) > standingAge
	e.mu.Unlock()
	return old || e.standingBytes() < e.standingWant()/2
}

// standingList returns the images of the standing list that may still leave.
func (e *Evictor) standingList() []Victim {
	e.mu.Lock()
	list := slices.Clone(e.standing)
	e.mu.Unlock()
	images := make([]*index.Image, len(list))
	for i, v := range list {
		images[i] = v.Image
	}
	_, no := e.index.Among(images, e.may(Rule{MinAge: e.minAge}, e.now()))
	return slices.DeleteFunc(list, func(v Victim) bool { return slices.Contains(no, v.Image) })
}

func (e *Evictor) standingWant() int64 { return e.max/standingShare + 1 }

func (e *Evictor) standingBytes() (n int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, v := range e.standing {
		n += v.Image.Size
	}
	return n
}

// refresh makes a new standing list.
func (e *Evictor) refresh(ctx context.Context) {
	if e.lockAdvisor(ctx) != nil {
		return
	}
	defer e.unlockAdvisor()
	at := e.now()
	asOf := e.index.AsOf(at)
	list, err := e.advise(ctx, e.standingWant(), Rule{MinAge: e.minAge}, nil)
	if ctx.Err() != nil {
		return
	}
	e.noteVerdict(err)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.standing, e.at, e.asOf = list, at, asOf
}
