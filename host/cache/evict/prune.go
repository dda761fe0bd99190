package evict

import (
	"context"
	"sync"
	"time"
)

// Prune evicts images that the rule allows to leave. It calls plan, when no other
// question to the policy runs, for the number of bytes and the purpose, which is
// logged. If dry is set, nothing leaves. It returns the victims when their files
// are gone, except those that are still being read. The error is that of the
// context.
func (e *Evictor) Prune(ctx context.Context, r Rule, dry bool, plan func() (need int64, purpose string)) ([]Victim, error) {
	if err := e.lockAdvisor(ctx); err != nil {
		return nil, err
	}
	defer e.unlockAdvisor()
	need, purpose := plan()
	if need <= 0 {
		return nil, nil
	}
	var unlinked sync.WaitGroup
	leave := func(v Victim) bool {
		if !e.takeOut(v.Image, r, time.Time{}) {
			return false
		}
		unlinked.Add(1)
		return e.evict(v, purpose, unlinked.Done) == nil
	}
	if dry {
		leave = nil
	}
	list, err := e.advise(ctx, need, r, leave)
	e.noteVerdict(err)
	unlinked.Wait()
	return list, ctx.Err()
}

// Next returns the images in the order in which they would leave: all of them
// with a scoring policy, and the standing list with a stateful policy, whose
// state a question would change.
func (e *Evictor) Next(ctx context.Context) ([]Victim, error) {
	if e.newest().Stateful != nil {
		return e.standingList(), nil
	}
	if err := e.lockAdvisor(ctx); err != nil {
		return nil, err
	}
	defer e.unlockAdvisor()
	total, _ := e.pool.State()
	list, err := e.advise(ctx, total, Rule{MinAge: e.minAge}, nil)
	e.noteVerdict(err)
	return list, ctx.Err()
}
