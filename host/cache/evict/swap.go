package evict

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/host/ranking"
	"github.com/imgcache/imgcache-host/sdk"
)

// ErrRestore says that a policy refused the snapshot of the policy before it.
var ErrRestore = errors.New("the snapshot was not restored")

// Succession says how a new policy replaces the current one.
type Succession struct {
	Next Policy // the new policy, as it is asked until it has replaced the current one
	// Replay builds its state from the images even where it could restore a
	// snapshot of the current policy.
	Replay bool
	// Take replaces the current policy and returns the new one as it is asked
	// from then on.
	Take func() Policy
}

// Swap gives the state of the current policy to a new policy, or a new version of
// it, and asks that a test question. If its answers are good it replaces the
// current policy; otherwise everything stays as it was. Meanwhile nobody gets
// advice, and neither policy misses an event. If the error wraps [ErrRestore], the
// new policy must be started again and get its state by a replay.
func (e *Evictor) Swap(ctx context.Context, s Succession) error {
	if err := e.lockAdvisor(ctx); err != nil {
		return fmt.Errorf("wait for the policy that advises: %w", err)
	}
	defer e.unlockAdvisor()
	ctx, cancel := context.WithTimeout(ctx, adviceTimeout)
	defer cancel()
	heir, err := e.advisor.heir(ctx, s)
	if err == nil {
		err = heir.examine(ctx, e.standingWant())
	}
	if err != nil {
		e.advisor.owed = append(e.advisor.owed, heir.owed...)
		if e.advisor.policy.Stateful == nil {
			e.events().Restart(false)
		}
		return err
	}
	e.succeed(heir, s.Take())
	return nil
}

// heir returns an advisor whose policy has the same state as this one's: by a
// snapshot if both policies support that, otherwise by a replay. The replay takes
// events that this advisor's policy has not seen; they are in the owed field of
// the heir.
func (a *advisor) heir(ctx context.Context, s Succession) (*advisor, error) {
	h := &advisor{policy: s.Next, index: a.index, events: a.events, max: a.max, now: a.now}
	if h.policy.Stateful == nil {
		return h, nil
	}
	if a.policy.Snapshotter != nil && h.policy.Snapshotter != nil && !s.Replay {
		if ok, err := a.bequeath(ctx, h); ok || err != nil {
			return h, err
		}
	}
	if a.policy.Stateful == nil {
		h.events.Restart(true)
	}
	list, missed, lost := h.replay()
	h.owed = missed
	a.built = a.built && !lost
	if err := h.observeAll(ctx, list); err != nil {
		return h, err
	}
	h.built = true
	return h, nil
}

// bequeath restores a snapshot of this advisor's policy in the policy of h. If
// this policy gives no snapshot, ok is false and a replay has to do.
func (a *advisor) bequeath(ctx context.Context, h *advisor) (ok bool, err error) {
	if err := a.observe(ctx, nil); err != nil {
		return false, nil
	}
	state, err := a.policy.Snapshotter.Snapshot(ctx)
	if err != nil {
		return false, nil
	}
	if err := h.policy.Snapshotter.Restore(ctx, state); err != nil {
		return false, fmt.Errorf("%w: %w", ErrRestore, err)
	}
	h.built, h.position = true, a.position
	return true, nil
}

// examine asks the policy a test question, for images of need bytes together.
func (a *advisor) examine(ctx context.Context, need int64) error {
	if a.policy.Stateful == nil {
		_, err := ranking.Score(ctx, a.policy.Scorer, a.now(), a.sample())
		return err
	}
	_, foreign, err := a.propose(ctx, need)
	if err == nil && foreign > 0 {
		err = fmt.Errorf("%w: it names %d images that are not in the cache or that it named twice", errAdvice, foreign)
	}
	return err
}

// sample returns records for a test question. There is always at least one.
func (a *advisor) sample() []sdk.Record {
	now := a.now().UnixNano()
	return append(a.index.Sample(sdk.MaxBatch-1), sdk.Record{Size: 1, Admitted: now, Accessed: now})
}

// succeed makes p, whose state the heir has built, the current policy. The caller
// holds the advisor's token.
func (e *Evictor) succeed(heir *advisor, p Policy) {
	e.advisor.policy, e.advisor.built, e.advisor.owed = p, heir.built, nil
	e.advisor.position, e.advisor.saved = heir.position, nil
	if p.Epoch != nil {
		e.advisor.epoch = p.Epoch()
	}
	if p.Stateful == nil {
		e.events().Restart(false)
	}
	e.mu.Lock()
	e.policy, e.brought = p, false
	e.standing, e.at = nil, time.Time{} // advice of the policy before
	e.mu.Unlock()
	e.events().Stir()
	select {
	case e.used <- struct{}{}:
	default:
	}
}
