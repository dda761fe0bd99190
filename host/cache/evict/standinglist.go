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
			_ = e.Inform(ctx) // the verdict has the error
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

// wantsAdvice reports whether the standing list is worth a question: when the
// cache, or the file system, is filling up and the list is half used, or a
// scoring policy's is old. A stateful policy moves on with each question, so it
// is not asked for its list's age.
func (e *Evictor) wantsAdvice() bool {
	if total, _ := e.pool.State(); total < e.max/2 && !e.free.Scarce(e.standingWant()) {
		return false
	}
	e.mu.Lock()
	old := e.policy.Scorer != nil && e.now().Sub(e.at) > standingAge
	e.mu.Unlock()
	return old || e.standingBytes() < e.standingWant()/2
}

// standingList returns those of the standing list that may still leave.
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
