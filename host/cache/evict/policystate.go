package evict

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/lines"
	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// RememberEvery is how often the state of a stateful policy is saved, if
	// something happened. Later events are kept in memory.
	RememberEvery = time.Minute
	// rememberTimeout bounds the time to save it when the service ends.
	rememberTimeout = 5 * time.Second
)

// savedState is the state of a stateful policy at some moment, and the events
// that it has seen since.
type savedState struct {
	stateHeader
	state []byte
	since []sdk.Event
}

// stateHeader is the first line of the file; the state follows.
type stateHeader struct {
	Policy   string `json:"policy"`   // the policy that gave the state: see [Policy.Identity]
	Capacity int64  `json:"capacity"` // of the cache, as the policy was told
	Position uint64 `json:"position"` // of the last event that is in the state
	Sum      string `json:"sha256"`   // of the state
}

// extend adds events that the policy is told. It returns nil if there are too
// many: then a replay of the images is shorter.
func (r *savedState) extend(list []sdk.Event) (kept *savedState) {
	if r == nil || len(r.since)+len(list) > sdk.MaxBatch {
		return nil
	}
	r.since = append(r.since, list...)
	return r
}

// takeUpSaved loads, once, when all records are known, the state that an earlier
// run saved. The state can be used if the images and hits are those with which it
// was saved. The policy is rebuilt in any case, since the order of the images was
// not known before.
func (a *advisor) takeUpSaved() {
	live, loaded, whole, first := a.index.FinishStart()
	if !first {
		return
	}
	a.built = false
	if a.policy.Snapshotter == nil {
		return
	}
	saved, err := a.load()
	switch {
	case lines.Absent(err):
		return
	case err != nil:
		a.log.Warn("the saved state of the policy cannot be used; its state is built again from the images", "policy", a.policy.Name, "error", err)
	case whole && saved.Position == loaded:
		saved.since = live
		a.saved = saved
	default:
		a.log.Info("the saved state of the policy does not fit these images; its state is built again from them", "policy", a.policy.Name)
	}
}

// rebuild returns the events that give a policy its state back. If a saved state
// can be restored, these are the events since; otherwise all images.
func (a *advisor) rebuild(ctx context.Context) ([]sdk.Event, error) {
	saved := a.saved
	a.saved = nil // a state that does not work is not tried again
	if saved == nil || a.policy.Snapshotter == nil || saved.Policy != a.policy.Identity {
		list, _, _ := a.replay()
		return list, nil
	}
	if err := a.policy.Snapshotter.Restore(ctx, saved.state); err != nil {
		if a.policy.Discard != nil {
			a.policy.Discard(fmt.Errorf("it did not restore its own snapshot: %w", err))
		}
		return nil, fmt.Errorf("restore the saved state: %w", err)
	}
	a.log.Info("the state of the policy was restored", "policy", a.policy.Name, "bytes", len(saved.state), "events", len(saved.since))
	list := saved.since
	if saved.Capacity != a.max {
		list = append([]sdk.Event{a.capacity()}, list...)
	}
	return list, nil
}

// remember saves the state of the policy if something happened since the last
// time.
func (a *advisor) remember(ctx context.Context) error {
	if a.policy.Snapshotter == nil || !a.events.StartFinished() {
		return nil
	}
	if err := a.observe(ctx, nil); err != nil {
		return err
	}
	if a.saved != nil && len(a.saved.since) == 0 {
		return nil
	}
	state, err := a.policy.Snapshotter.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	sum := sha256.Sum256(state)
	a.saved = &savedState{state: state, stateHeader: stateHeader{
		Policy: a.policy.Identity, Capacity: a.max, Position: a.position, Sum: hex.EncodeToString(sum[:]),
	}}
	f, err := lines.ReplaceFile(a.fs, "policystate", a.path, append(lines.Append(nil, a.saved.stateHeader), state...))
	if err == nil {
		err = f.Close()
	}
	return err
}

// load reads the last saved state.
func (a *advisor) load() (*savedState, error) {
	data, err := lines.ReadFile(a.fs, "policystate.read", a.path)
	if err != nil {
		return nil, err
	}
	line, state, _ := bytes.Cut(data, []byte("\n"))
	r := &savedState{state: state}
	if !lines.Parse(line, &r.stateHeader) {
		return nil, fmt.Errorf("%s is damaged: its first line cannot be read", a.path)
	}
	if sum := sha256.Sum256(state); hex.EncodeToString(sum[:]) != r.Sum {
		return nil, fmt.Errorf("%s is damaged: its checksum is wrong", a.path)
	}
	return r, nil
}

// SaveAtEnd saves the state of the policy when the service ends.
func (e *Evictor) SaveAtEnd() {
	ctx, cancel := context.WithTimeout(context.Background(), rememberTimeout)
	defer cancel()
	e.remember(ctx)
}

// remember saves the state of the policy. If that fails, the next start only has
// to build the state again from the images.
func (e *Evictor) remember(ctx context.Context) {
	if e.newest().Snapshotter == nil || e.lockAdvisor(ctx) != nil {
		return
	}
	defer e.unlockAdvisor()
	limited, cancel := context.WithTimeout(ctx, adviceTimeout)
	defer cancel()
	if err := e.advisor.remember(limited); err != nil && ctx.Err() == nil {
		e.log.Warn("could not save the state of the policy", "policy", e.advisor.policy.Name, "error", err)
	}
}

// keepState saves the state of the policy regularly until the context ends.
func (e *Evictor) keepState(ctx context.Context) {
	tick := time.NewTicker(RememberEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			e.remember(ctx)
		case <-ctx.Done():
			return
		}
	}
}
