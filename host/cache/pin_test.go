package cache

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/cache/internal/pins"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/sdk"
)

// pin pins an image for a while; 0 is for ever.
func (e *engine) pin(id string, d time.Duration) PinInfo {
	e.t.Helper()
	var until time.Time
	if d != 0 {
		until = e.cfg.Now().Add(d)
	}
	info, err := e.Pin(id, until)
	if err != nil {
		e.t.Fatalf("pin %s: %v", id, err)
	}
	return info
}

// pinnedIDs returns the ids of the pins that hold.
func (e *engine) pinnedIDs() (ids []string) {
	for _, p := range e.Pins() {
		ids = append(ids, p.ID)
	}
	return ids
}

// TestPinnedImagesStay evicts in every way there is, under each form of
// policy, while the image that all of them would evict first is pinned.
func TestPinnedImagesStay(t *testing.T) {
	everything := func(known []sdk.Key) []sdk.Key { return slices.Clone(known) }
	stateful := &badPolicy{choose: everything}
	for name, policy := range map[string]evict.Policy{
		"no policy":     {},
		"scoring":       {Name: "lru", Scorer: sdk.ScoreFunc(newestLast)},
		"stateful":      {Name: "all", Stateful: stateful},
		"knows nothing": {Name: "none", Stateful: &badPolicy{choose: func([]sdk.Key) []sdk.Key { return nil }}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Options: options.Options{MaxSize: 10_000, Limit: options.LimitHard, Prune: options.Prune{HighWatermark: 0.5, LowWatermark: 0.1, Interval: 100 * time.Hour}}, Policy: policy}
			inEngine(t, cfg, func(t *testing.T, e *engine) {
				if p := e.pin("later", 0); p.Cached {
					t.Error("an absent image is cached")
				}
				e.put("a", 3000)
				if p := e.pin("a", 0); !p.Cached || !p.Until.IsZero() {
					t.Errorf("the pin of a is %+v", p)
				}
				for i := range 20 { // the reserve, and from the second on the standing list
					e.put(fmt.Sprint(i), 3000)
				}
				if _, err := e.store.Stat("a"); err != nil {
					t.Errorf("after fills without room: %v", err)
				}
				if _, err := e.Prune(t.Context(), PruneOptions{}); err != nil {
					t.Error(err)
				}
				e.wantIDs("a")
				e.put("later", 1000)
				e.put("b", 1000)
				victims, err := e.Victims(t.Context(), 10)
				if err != nil || slices.ContainsFunc(victims, func(v Victim) bool { return v.ID != "b" }) {
					t.Errorf("victims are %v, %v; want none but b", victims, err)
				}
				if r := e.prune(0); r != (Result{1, 1000}) {
					t.Errorf("prune to 0 removed %+v, want b alone", r)
				}
				e.wantIDs("a", "later")
				if err := errors.Join(e.Unpin("a"), e.Unpin("later"), e.Unpin("never")); err != nil {
					t.Errorf("unpin: %v", err)
				}
				e.prune(0)
				e.wantIDs()
			})
		})
	}
	if !slices.Contains(stateful.refused, sdk.KeyOf("a")) {
		t.Error("the policy that proposed the pinned image was not told that it stays")
	}
}

// TestPinEnds: from its end on a pin has no effect, and soon it is forgotten.
func TestPinEnds(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.put("a", 10)
		e.pin("a", time.Hour)
		if info, _ := e.Image("a"); !info.Pinned || info.PinnedUntil.IsZero() || !e.Images()[0].Pinned {
			t.Errorf("the image is %+v, which does not tell its pin", info)
		}
		time.Sleep(time.Hour - time.Nanosecond)
		e.prune(0)
		e.wantIDs("a")
		time.Sleep(time.Nanosecond)
		if info, _ := e.Image("a"); info.Pinned || len(e.Pins()) != 0 {
			t.Errorf("after its end the pin is told: %+v, %v", info, e.Pins())
		}
		e.prune(0)
		e.wantIDs()
		time.Sleep(pinsTick)
		if e.pins.IsRequested("a") {
			t.Error("a pin that has ended is remembered")
		}
		e.shut()
		e.open()
		if e.pins.IsRequested("a") {
			t.Error("a restart finds a pin that has ended")
		}
		for _, until := range []time.Time{e.cfg.Now(), e.cfg.Now().Add(-time.Hour)} {
			if _, err := e.Pin("a", until); !errors.Is(err, sdk.ErrInvalid) {
				t.Errorf("a pin until the past: %v", err)
			}
		}
		if _, err := e.Pin("../a", time.Time{}); !errors.Is(err, ErrBadID) {
			t.Errorf("a pin of no id: %v", err)
		}
	})
}

// TestConfiguredPins cannot be taken away by a request, nor made shorter.
func TestConfiguredPins(t *testing.T) {
	from := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // when the clock of a bubble begins
	cfg := Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}, Pins: []Pin{
		{ID: "gold"},
		{ID: "twice", Until: from.Add(2 * time.Hour), From: `pin "b"`},
		{ID: "twice", Until: from.Add(time.Hour), From: `pin "a"`},
		{ID: "over", Until: from.Add(-time.Hour)},
	}}
	inEngine(t, cfg, func(t *testing.T, e *engine) {
		if got := e.pinnedIDs(); !slices.Equal(got, []string{"gold", "twice"}) {
			t.Errorf("pinned are %v, want gold and twice", got)
		}
		e.put("gold", 10)
		if p := e.pin("gold", time.Hour); !p.Until.IsZero() || p.From != pins.FromConfiguration {
			t.Errorf("a shorter pin beside that of the configuration gave %+v", p)
		}
		if err := e.Unpin("gold"); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "the configuration and stays pinned") {
			t.Errorf("unpin: %v", err)
		}
		if err := e.Unpin("twice"); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), `pin "b"`) {
			t.Errorf("unpin: %v", err)
		}
		if err := e.Unpin("over"); err != nil {
			t.Errorf("unpin what has ended: %v", err)
		}
		if p := e.pin("twice", 5*time.Hour); p.From != pins.FromRequest {
			t.Errorf("a longer pin beside that of the configuration gave %+v", p)
		}
		e.prune(0)
		e.wantIDs("gold")
		time.Sleep(3 * time.Hour)
		if err := e.Unpin("twice"); err != nil || slices.Contains(e.pinnedIDs(), "twice") {
			t.Errorf("after the end of the configured pin: %v, pinned are %v", err, e.pinnedIDs())
		}
	})
}

// TestDeletePinned: a pin keeps an image from the policy, not from its
// operator, and is there when the image comes back.
func TestDeletePinned(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.put("a", 10)
		e.pin("a", 0)
		if err := e.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		e.wantIDs()
		if !strings.Contains(e.log.String(), "its pin stays") {
			t.Error("the log does not say that the pin stays")
		}
		e.put("a", 10)
		e.prune(0)
		e.wantIDs("a")
		if n, err := e.DeleteAll(t.Context()); n != 1 || err != nil {
			t.Errorf("delete all: %d, %v", n, err)
		}
		e.wantIDs()
	})
}

// TestPinsFillTheCache: images that find no room beside pinned ones are passed
// through, nothing is evicted for them in vain, and it is said once why.
func TestPinsFillTheCache(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 100_000, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.put("gold", 95_000)
		e.put("small", 2000)
		e.pin("gold", 0)
		time.Sleep(time.Minute)
		if u := e.Usage(); u.Pinned != 1 || u.PinnedBytes != 95_000 || !u.PinsFull {
			t.Errorf("usage is %+v", u)
		}
		e.origin.data = make([]byte, 5001)
		k, err := e.Open(t.Context(), "new")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := k.CopyTo(t.Context(), io.Discard, 0, -1); n != 5001 || err != nil {
			t.Errorf("the client got %d bytes, %v", n, err)
		}
		k.Close()
		e.wantIDs("gold", "small")
		if info, _ := e.Image("new"); !strings.Contains(info.Error, "pinned images hold 95000 of the 100000") {
			t.Errorf("new is not cached because of %q", info.Error)
		}
		time.Sleep(time.Hour)
		if n := strings.Count(e.log.String(), "pinned images fill the cache"); n != 1 {
			t.Errorf("the log says %d times that pinned images fill the cache, want once", n)
		}
		if err := e.Unpin("gold"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if e.Usage().PinsFull || !strings.Contains(e.log.String(), "there is room beside the pinned images again") {
			t.Error("nobody says that there is room again")
		}
	})
}
