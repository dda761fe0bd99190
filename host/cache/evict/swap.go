package evict

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/host/ranking"
	"github.com/imgcache/imgcache-host/sdk"
)

// ErrRestore says that a policy refused the snapshot of another.
var ErrRestore = errors.New("the snapshot was not restored")

// Succession says how a policy takes the place of another.
type Succession struct {
	Next Policy // asked until it has taken the place
	// Replay rebuilds its state from the images even where the snapshot of the
	// other could be restored.
	Replay bool
	// Take puts it in its place and returns it as it is asked from then on.
	Take func() Policy
}

// Swap gives another policy, or another version of it, the state of the one that
// advises, and asks it for trial. When its answers are good it takes the place of
// the other; else everything is as before. Nobody is advised meanwhile, and no
// event is lost to either. The error wraps [ErrRestore] when the other has to be
// started anew and built by a replay.
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

// heir returns an advisor whose policy has the state that this one's has: by a
// snapshot when both can, else by a replay. What the replay took of the events
// is owed to the policy that does not have it yet.
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

// bequeath restores a snapshot of this policy in that of another advisor. One
// that gives no snapshot has no state to lose.
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

// examine asks the policy for trial, for images worth need bytes.
func (a *advisor) examine(ctx context.Context, need int64) error {
	if a.policy.Stateful == nil {
		_, err := ranking.Score(ctx, a.policy.Scorer, a.now(), a.sample())
		return err
	}
	_, foreign, err := a.propose(ctx, need)
	if err == nil && foreign > 0 {
		err = fmt.Errorf("%w: it names %d images that are not in the cache", errAdvice, foreign)
	}
	return err
}

// sample returns records to be scored for trial. There is always one.
func (a *advisor) sample() []sdk.Record {
	now := a.now().UnixNano()
	return append(a.index.Sample(sdk.MaxBatch-1), sdk.Record{Size: 1, Admitted: now, Accessed: now})
}

// succeed makes p, which the heir advised with for trial, the policy. The
// caller holds the advisor's token.
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
	e.standing, e.at = nil, time.Time{} // the other's advice
	e.mu.Unlock()
	e.events().Stir()
	select {
	case e.used <- struct{}{}:
	default:
	}
}
