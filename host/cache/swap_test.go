package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/sdk"
)

// ledger is a policy that keeps book of the images and evicts them all.
type ledger struct {
	mu       sync.Mutex
	known    map[sdk.Key]bool
	built    int // times that it saw a history from the beginning
	restored int
	refuses  error // to observe
	stranger bool  // it names an image that is none
}

func (l *ledger) Observe(_ context.Context, events []sdk.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		switch e.Kind {
		case sdk.EventCapacity:
			l.built++
			l.known = map[sdk.Key]bool{}
		case sdk.EventAdmitted:
			l.known[e.Key] = true
		case sdk.EventRemoved:
			delete(l.known, e.Key)
		}
	}
	return l.refuses
}

func (l *ledger) Select(context.Context, time.Time, uint64, int) ([]sdk.Key, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	keys := slices.Collect(maps.Keys(l.known))
	if l.stranger {
		keys = append(keys, 1)
	}
	return keys, nil
}

func (l *ledger) Snapshot(context.Context) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return binary.Append(nil, binary.LittleEndian, slices.Sorted(maps.Keys(l.known)))
}

func (l *ledger) Restore(_ context.Context, b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuses != nil {
		return l.refuses
	}
	l.restored++
	keys := make([]sdk.Key, len(b)/8)
	_, err := binary.Decode(b, binary.LittleEndian, keys)
	l.known = map[sdk.Key]bool{}
	for _, key := range keys {
		l.known[key] = true
	}
	return err
}

// wants compares the book with the images, and how often it was begun.
func (l *ledger) wants(t *testing.T, what string, built int, ids ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	ok := len(l.known) == len(ids) && l.built == built
	for _, id := range ids {
		ok = ok && l.known[sdk.KeyOf(id)]
	}
	if !ok {
		t.Errorf("%s: it knows %v and was built %d times, want %v and %d", what, l.known, l.built, ids, built)
	}
}

// swapTo makes a policy the one that advises.
func (e *engine) swapTo(t *testing.T, p evict.Policy, replay bool) error {
	t.Helper()
	return e.SwapPolicy(t.Context(), evict.Succession{Next: p, Replay: replay, Take: func() evict.Policy { return p }})
}

// tell lets the policy hear of everything.
func (e *engine) tell(t *testing.T) {
	t.Helper()
	if err := e.tryTell(t); err != nil {
		t.Fatal(err)
	}
}

// tryTell is tell for a policy that may refuse.
func (e *engine) tryTell(t *testing.T) error {
	t.Helper()
	return e.evictor.Inform(t.Context())
}

// TestSwapPolicy gives policies each other's state, by a snapshot where both
// can, and by a replay, while images come and go.
func TestSwapPolicy(t *testing.T) {
	full := func(l *ledger) evict.Policy { return evict.Policy{Name: "book", Stateful: l, Snapshotter: l} }
	bare := func(l *ledger) evict.Policy { return evict.Policy{Name: "book", Stateful: l} }
	first := &ledger{}
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}, Policy: full(first)}, func(t *testing.T, e *engine) {
		e.put("a", 1000)
		e.tell(t)
		e.put("b", 1000)
		for what, bad := range map[string]*ledger{"refuses": {refuses: errors.New("no")}, "invents": {stranger: true}} {
			for _, replay := range []bool{true, false} {
				if err := e.swapTo(t, full(bad), replay); err == nil || errors.Is(err, evict.ErrRestore) != (bad.refuses != nil && !replay) {
					t.Errorf("a policy that %s, replay %v: %v", what, replay, err)
				}
				e.put(fmt.Sprint(what, replay), 10)
				if err := e.Delete(t.Context(), fmt.Sprint(what, replay)); err != nil {
					t.Error(err)
				}
			}
		}
		e.put("c", 1000)
		e.tell(t)
		first.wants(t, "after policies that were not accepted", 1, "a", "b", "c")

		second := &ledger{}
		if err := e.swapTo(t, full(second), false); err != nil {
			t.Fatal(err)
		}
		e.put("d", 1000)
		e.tell(t)
		second.wants(t, "from a snapshot", 0, "a", "b", "c", "d")
		first.wants(t, "the first, which nobody asks any more", 1, "a", "b", "c")

		third := &ledger{}
		if err := e.swapTo(t, bare(third), false); err != nil {
			t.Fatal(err)
		}
		if err := e.Delete(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
		e.tell(t)
		third.wants(t, "by a replay", 1, "a", "b", "c")

		scorer := sdk.ScoreFunc(func(r *sdk.Record, _ time.Time) float64 { return float64(r.Key) })
		if err := e.swapTo(t, evict.Policy{Name: "book", Scorer: scorer}, false); err != nil {
			t.Fatal(err)
		}
		e.put("e", 1000)
		fourth := &ledger{}
		if err := e.swapTo(t, full(fourth), false); err != nil {
			t.Fatal(err)
		}
		e.put("f", 1000)
		e.tell(t)
		fourth.wants(t, "after a scoring policy", 1, "a", "b", "c", "e", "f")
		e.prune(0)
		e.wantIDs()
		if got := e.Usage().Policy; got != "book" {
			t.Errorf("%s is in charge", got)
		}
	})
}
