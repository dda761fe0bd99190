package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Policy is the eviction policy that advises the cache: exactly one of Scorer
// and Stateful is set, or none while the policy is only known by name.
type Policy struct {
	Name     string
	Scorer   sdk.Scorer
	Stateful sdk.Stateful
	// Epoch counts the starts of the policy. When it changes a stateful
	// policy has lost its state and is rebuilt. Nil: it never changes.
	Epoch func() uint64
}

// missing says why there is nobody to ask, or nil.
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

// errAdvice is what the host holds against an answer.
var errAdvice = errors.New("the policy's answer is refused")

// advisor asks the policy and validates what it says. One goroutine uses it.
type advisor struct {
	policy Policy
	index  *index
	events *events
	max    int64
	now    func() time.Time

	epoch uint64
	built bool // a stateful policy has seen everything up to the last take
}

// candidate is an image as the policy and the host judge it.
type candidate struct {
	im     *image
	record sdk.Record
	score  float64
}

// byAccess is least-recently-used order: the host's own policy when the
// plugin cannot be asked, and how equal scores are decided.
func byAccess(a, b candidate) int {
	return cmp.Or(cmp.Compare(a.record.Accessed, b.record.Accessed), cmp.Compare(a.record.Key, b.record.Key))
}

func byScore(a, b candidate) int {
	return cmp.Or(cmp.Compare(a.score, b.score), byAccess(a, b))
}

// rank returns the candidates in the order in which a scoring policy lets
// them go.
func (a *advisor) rank(ctx context.Context, list []candidate) error {
	records := make([]sdk.Record, min(len(list), sdk.MaxBatch))
	scores := make([]float64, len(records))
	now := a.now()
	for chunk := range slices.Chunk(list, sdk.MaxBatch) {
		for i := range chunk {
			records[i] = chunk[i].record
		}
		if err := a.policy.Scorer.Score(ctx, now, records[:len(chunk)], scores[:len(chunk)]); err != nil {
			return fmt.Errorf("score %d images: %w", len(chunk), err)
		}
		for i := range chunk {
			if math.IsNaN(scores[i]) {
				return fmt.Errorf("%w: a score is NaN", errAdvice)
			}
			chunk[i].score = scores[i]
		}
	}
	slices.SortFunc(list, byScore)
	return nil
}

// observe brings a stateful policy up to date, from the events since the last
// call or, when it has lost its state, by replaying the images in order of
// access.
func (a *advisor) observe(ctx context.Context, refused []*image) error {
	if a.policy.Stateful == nil {
		return nil
	}
	var epoch uint64
	if a.policy.Epoch != nil {
		epoch = a.policy.Epoch()
	}
	list, lost, _ := a.events.take()
	if !a.built || lost || epoch != a.epoch {
		list, refused = a.replay(), nil
	}
	at := a.now().UnixNano()
	for _, im := range refused {
		list = append(list, sdk.Event{Kind: sdk.EventRefused, Key: im.key, Size: uint64(im.size), At: at})
	}
	a.built = false // until the policy has taken them all
	for chunk := range slices.Chunk(list, sdk.MaxBatch) {
		if err := a.policy.Stateful.Observe(ctx, chunk); err != nil {
			return fmt.Errorf("observe %d events: %w", len(chunk), err)
		}
	}
	a.built, a.epoch = true, epoch
	return nil
}

func (a *advisor) replay() []sdk.Event {
	var list []candidate
	a.index.mu.Lock()
	a.events.take() // what happened up to here is in the index
	for _, im := range a.index.images {
		list = append(list, candidate{im: im, record: im.record()})
	}
	a.index.mu.Unlock()
	slices.SortFunc(list, byAccess)
	events := []sdk.Event{{Kind: sdk.EventCapacity, Size: uint64(a.max), At: a.now().UnixNano()}}
	for _, c := range list {
		events = append(events, sdk.Event{Kind: sdk.EventAdmitted, Key: c.record.Key, Size: c.record.Size, At: c.record.Admitted})
		if c.record.Hits > 0 {
			events = append(events, sdk.Event{
				Kind: sdk.EventAccessed, Key: c.record.Key, Size: c.record.Size, At: c.record.Accessed,
				Count: uint32(min(c.record.Hits, math.MaxUint32)),
			})
		}
	}
	return events
}

// propose asks a stateful policy for images worth need bytes. Keys that it
// made up, or named twice, are counted against it.
func (a *advisor) propose(ctx context.Context, need int64) (list []*image, foreign int, err error) {
	keys, err := a.policy.Stateful.Select(ctx, a.now(), uint64(need), selectLimit)
	if err != nil {
		a.built = a.built && !errors.Is(err, sdk.ErrUnavailable)
		return nil, 0, fmt.Errorf("select %d bytes: %w", need, err)
	}
	seen := map[sdk.Key]bool{}
	a.index.mu.Lock()
	defer a.index.mu.Unlock()
	for _, key := range keys[:min(len(keys), selectLimit)] {
		im := a.index.byKey[key]
		if im == nil || seen[key] {
			foreign++
			continue
		}
		seen[key] = true
		list = append(list, im)
	}
	return list, foreign, nil
}
