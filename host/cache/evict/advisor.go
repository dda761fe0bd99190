package evict

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/ranking"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// Policy is the eviction policy that advises the cache: exactly one of Scorer
// and Stateful is set, or none while the policy is only known by name.
type Policy struct {
	Name        string
	Scorer      sdk.Scorer
	Stateful    sdk.Stateful
	Snapshotter sdk.Snapshotter // nil unless the policy is stateful and can save its state
	// Epoch counts the starts of the policy. When it changes, a stateful
	// policy has lost its state and is rebuilt. Nil: it never changes.
	Epoch func() uint64
	// Identity names the version of the policy and its options. The policy
	// restores only snapshots with its own identity.
	Identity string
	// Discard ends an instance whose state is unknown; SetPolicy brings a new
	// one then. Nil: the same instance is told everything from the beginning.
	Discard func(why error)
}

// missing says why there is no policy to ask, or nil.
func (p Policy) missing() error {
	switch {
	case p.Scorer != nil, p.Stateful != nil:
		return nil
	case p.Name == "":
		return errors.New("no policy is configured")
	}
	return fmt.Errorf("the policy %s has not started yet", p.Name)
}

// selectLimit is how many keys a stateful policy is asked for at once.
const selectLimit = 4096

// errAdvice says that the host refuses an answer of the policy.
var errAdvice = errors.New("the policy's answer is refused")

// advisor asks the policy and validates what it says. One goroutine uses it.
type advisor struct {
	policy Policy
	index  *index.Index
	events *index.Events
	max    int64
	now    func() time.Time
	log    *slog.Logger
	fs     store.FS
	path   string // where the state is saved

	epoch uint64
	built bool        // a stateful policy has seen everything up to the last Take
	owed  []sdk.Event // except these, which it sees before what is taken next

	position uint64      // where the events that it has seen end
	saved    *savedState // nil: there is none, or it is of no use
}

// candidates are images that the policy and the host choose from: records[i]
// describes images[i].
type candidates struct {
	images  []*index.Image
	records []sdk.Record
}

// byAccess yields the images in least-recently-used order: the host's own
// policy when the plugin cannot be asked.
func (c *candidates) byAccess() iter.Seq[*index.Image] {
	return func(yield func(*index.Image) bool) {
		for i := range ranking.Order(c.records, nil) {
			if !yield(c.images[i]) {
				return
			}
		}
	}
}

// observe brings a stateful policy up to date, from the events since the last
// call or, when it has lost its state, by replaying the images in order of
// access.
func (a *advisor) observe(ctx context.Context, refused []*index.Image) error {
	if a.policy.Stateful == nil {
		return nil
	}
	var epoch uint64
	if a.policy.Epoch != nil {
		epoch = a.policy.Epoch()
	}
	a.takeUpSaved()
	list, lost, position := a.events.Take()
	list, a.owed, a.position = append(a.owed, list...), nil, position
	at := a.now().UnixNano()
	for _, im := range refused {
		list = append(list, sdk.Event{Kind: sdk.EventRefused, Key: im.Key, Size: uint64(im.Size), At: at})
	}
	saved := a.saved.extend(list)
	if a.saved = saved; lost {
		a.saved = nil
	}
	whole := a.built && !lost && epoch == a.epoch
	a.built = false // until the policy has taken them all
	if !whole {
		var err error
		if list, err = a.rebuild(ctx); err != nil {
			return err
		}
	}
	if err := a.observeAll(ctx, list); err != nil {
		return err
	}
	a.built, a.epoch = true, epoch
	return nil
}

func (a *advisor) observeAll(ctx context.Context, list []sdk.Event) error {
	for chunk := range slices.Chunk(list, sdk.MaxBatch) {
		if err := a.policy.Stateful.Observe(ctx, chunk); err != nil {
			return fmt.Errorf("observe %d events: %w", len(chunk), err)
		}
	}
	return nil
}

// replay returns the images in order of access, as events, which stand for
// everything that has happened so far. missed are the events up to now that
// nobody had taken, and lost says that there were more.
func (a *advisor) replay() (events, missed []sdk.Event, lost bool) {
	var records []sdk.Record
	records, missed, lost, a.position = a.index.Replay()
	events = []sdk.Event{a.capacity()}
	for i := range ranking.Order(records, nil) {
		r := &records[i]
		events = append(events, sdk.Event{Kind: sdk.EventAdmitted, Key: r.Key, Size: r.Size, At: r.Admitted})
		if r.Hits > 0 {
			events = append(events, sdk.Event{
				Kind: sdk.EventAccessed, Key: r.Key, Size: r.Size, At: r.Accessed,
				Count: uint32(min(r.Hits, math.MaxUint32)),
			})
		}
	}
	return events, missed, lost
}

func (a *advisor) capacity() sdk.Event {
	return sdk.Event{Kind: sdk.EventCapacity, Size: uint64(a.max), At: a.now().UnixNano()}
}

// propose asks a stateful policy for images of need bytes together. foreign
// counts the keys that it made up or named twice, but not those of images that
// have left since it was last told what happened.
func (a *advisor) propose(ctx context.Context, need int64) (list []*index.Image, foreign int, err error) {
	keys, err := a.policy.Stateful.Select(ctx, a.now(), uint64(need), selectLimit)
	if err != nil {
		a.built = a.built && !errors.Is(err, sdk.ErrUnavailable)
		return nil, 0, fmt.Errorf("select %d bytes: %w", need, err)
	}
	list, foreign = a.index.ImagesOf(keys[:min(len(keys), selectLimit)])
	return list, foreign, nil
}
