package cache_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// noOrigin has nothing.
type noOrigin struct{}

func (noOrigin) ByID(string) (origin.Origin, string, error) { return nil, "", origin.ErrNotFound }
func (noOrigin) Learn(string, string)                       {}
func (noOrigin) NameOf(id string) string                    { return id }

// onlooker is a scoring policy that remembers with which flags each record came
// since it was last asked.
type onlooker struct {
	mu      sync.Mutex
	offered map[sdk.Key]sdk.Flags
}

func (o *onlooker) Score(_ context.Context, _ time.Time, records []sdk.Record, scores []float64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.offered == nil {
		o.offered = map[sdk.Key]sdk.Flags{}
	}
	for i, r := range records {
		o.offered[r.Key] |= r.Flags
		scores[i] = float64(r.Accessed)
	}
	return nil
}

// taken returns what was offered since the last call.
func (o *onlooker) taken() map[sdk.Key]sdk.Flags {
	o.mu.Lock()
	defer o.mu.Unlock()
	offered := o.offered
	o.offered = nil
	return offered
}

// openCache opens a cache that holds images with these ids and is advised by a
// policy. It fetches nothing and prunes nothing by itself.
func openCache(t *testing.T, policy sdk.Scorer, pins []cache.Pin, ids ...string) *cache.Cache {
	t.Helper()
	dir := t.TempDir()
	for _, id := range ids {
		if err := os.WriteFile(filepath.Join(dir, id), make([]byte, 100), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	files, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cache.New(cache.Config{
		Store: files, Origins: noOrigin{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Offline: true,
		Options: options.Options{MaxSize: 1 << 20}, Pins: pins, Policy: evict.Policy{Name: "onlooker", Scorer: policy},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Start()
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), files.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := c.Scanned(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPinnedImagesAreNotOffered: a policy is never asked about a pinned image to
// choose among those that may leave, and no record that it sees, not even in the
// trial of a reload, bears the flag of one. That an image is being read is said
// where such images may leave too.
func TestPinnedImagesAreNotOffered(t *testing.T) {
	policy := &onlooker{}
	pins := []cache.Pin{{ID: "pinned", From: "config.hcl"}, {ID: "pinned-and-read", From: "config.hcl"}}
	c := openCache(t, policy, pins, "idle", "read", "pinned", "pinned-and-read")
	for _, id := range []string{"read", "pinned-and-read"} {
		content, err := c.OpenCached(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = content.Close() })
	}
	idle, read := sdk.KeyOf("idle"), sdk.KeyOf("read")
	pinned, both := sdk.KeyOf("pinned"), sdk.KeyOf("pinned-and-read")

	if victims, err := c.Victims(t.Context(), 10); err != nil || len(victims) != 1 {
		t.Fatalf("%v, %v would leave, want the one that is idle", err, victims)
	}
	want := map[sdk.Key]sdk.Flags{idle: 0}
	if got := policy.taken(); !maps.Equal(got, want) {
		t.Errorf("asked who would leave it was offered %v, want %v", got, want)
	}

	trial := &onlooker{}
	next := evict.Policy{Name: "onlooker", Scorer: trial}
	if err := c.SwapPolicy(t.Context(), evict.Succession{Next: next, Take: func() evict.Policy { return next }}); err != nil {
		t.Fatal(err)
	}
	sample := trial.taken()
	for _, key := range []sdk.Key{idle, read, pinned, both} {
		if flags, ok := sample[key]; !ok || flags&sdk.FlagPinned != 0 {
			t.Errorf("the trial has the record of %x: %v, with the flags %b; want it without bit 0", key, ok, flags)
		}
	}

	none := int64(0)
	pruned, err := c.Prune(t.Context(), cache.PruneOptions{MaxSize: &none})
	if err != nil || pruned.Files != 2 {
		t.Fatalf("Prune() = %+v, %v, want two files", pruned, err)
	}
	want = map[sdk.Key]sdk.Flags{idle: 0, read: sdk.FlagInUse}
	if got := trial.taken(); !maps.Equal(got, want) {
		t.Errorf("in a prune to nothing it was offered %v, want %v", got, want)
	}
	left := []string{}
	for _, i := range c.Images() {
		left = append(left, i.ID)
	}
	if !slices.Equal(left, []string{"pinned", "pinned-and-read"}) {
		t.Errorf("%v are left", left)
	}
}
