package evict

import (
	"context"
	"sync"
	"time"
)

// Prune lets images leave that a rule allows to: as many bytes as plan says,
// which is asked when nobody else is being advised, and for the purpose that it
// gives. Nothing leaves when dry is set. It returns the victims when their
// files are gone, except those that are still being read. The error is the
// context's.
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

// Next returns who would leave next, first to leave first: the whole order of a
// scoring policy, and the standing list of a stateful one, which a question
// would move on.
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
