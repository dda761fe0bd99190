package records

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/drivertest"
	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/internal/journal"
	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
	"github.com/imgcache/imgcache-host/sdk"
)

// TestRecordsEqualHits lets images come, be hit and go while the driver fails
// and the host is killed now and then, and wants every record to be exact in
// the end. A kill may cost what was not flushed yet: the test flushes first,
// as a second without a kill does.
func TestRecordsEqualHits(t *testing.T) {
	seeds := uint64(60)
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			fsys := storetest.TempFS(t)
			synctest.Test(t, func(t *testing.T) { recordsEqualHits(t, seed, fsys) })
		})
	}
}

func recordsEqualHits(t *testing.T, seed uint64, fsys store.FS) {
	rng := rand.New(rand.NewPCG(seed, 4))
	d := drivertest.NewFaulty(seed)
	want := map[string]uint64{}
	files := map[string]store.Info{}
	for life := range 4 {
		h := startRecorder(t, fsys, d, files)
		for range 30 {
			id := fmt.Sprintf("img%d", rng.IntN(5))
			info, cached := files[id]
			switch n := rng.IntN(10); {
			case !cached:
				info = store.Info{ID: id, Size: 1, ModTime: time.Now()}
				info.Version = fmt.Sprintf("v%d-%d", life, rng.Int())
				files[id], want[id] = info, 0
				h.pool.Charge(1)
				im, _ := h.index.Commit(info, time.Now())
				h.index.Close(im)
			case n == 0:
				h.index.Remove(id, sdk.ReasonDeleted, time.Now())
				delete(files, id)
				delete(want, id)
			default:
				h.index.Hit(h.index.Get(id))
				want[id]++
			}
			time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
		}
		if life%2 == 0 {
			h.kill()
		} else {
			h.stop()
		}
	}
	d.Settle()
	h := startRecorder(t, fsys, d, files)
	time.Sleep(5 * time.Minute)
	h.wantRecords(t, d, want, files)
	h.stop()
}

// wantRecords checks that driver and index have exactly these hits.
func (h *recording) wantRecords(t *testing.T, d *drivertest.Faulty, want map[string]uint64, files map[string]store.Info) {
	t.Helper()
	entries := d.Records()
	for id, hits := range want {
		if got := entries[id]; got.Hits != hits || got.Version != files[id].Version {
			t.Errorf("driver has %d hits of %s %q, want %d of %q", got.Hits, id, got.Version, hits, files[id].Version)
		}
		if got := h.index.View(h.index.Get(id)); got.Hits != hits {
			t.Errorf("index has %d hits of %s, want %d", got.Hits, id, hits)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("driver has %d records, want %d", len(entries), len(want))
	}
	if n := h.j.Unsent(); n != 0 {
		t.Errorf("%d operations were not sent", n)
	}
}

// TestLostRecordsAreRebuilt empties the driver's store while the host lives:
// the driver sees a gap, and everything is told again.
func TestLostRecordsAreRebuilt(t *testing.T) {
	fsys := storetest.TempFS(t)
	synctest.Test(t, func(t *testing.T) {
		d := drivertest.NewFaulty(1)
		d.Settle()
		files := map[string]store.Info{}
		want := map[string]uint64{}
		for i := range 3 {
			id := fmt.Sprintf("img%d", i)
			files[id], want[id] = store.Info{ID: id, Size: 1, ModTime: time.Now(), Meta: store.Meta{Version: "v"}}, 0
		}
		h := startRecorder(t, fsys, d, files)
		for i := range 20 {
			if i%7 == 3 {
				d.Wipe()
			}
			for id := range want {
				h.index.Hit(h.index.Get(id))
				want[id]++
			}
			time.Sleep(2500 * time.Millisecond)
		}
		time.Sleep(5 * time.Minute)
		h.wantRecords(t, d, want, files)
		h.stop()
	})
}

// recording is a host reduced to index, journal and recorder.
type recording struct {
	index  *index.Index
	pool   *space.Pool
	j      *journal.Journal
	driver *drivertest.Severable
	stop   func()
}

func startRecorder(t *testing.T, fsys store.FS, d sdk.Driver, files map[string]store.Info) *recording {
	t.Helper()
	j := journal.New(fsys, "records.log", "")
	p := space.NewPool(1<<30, true)
	x := index.New(time.Now, p, j, index.NewEvents(false, false), index.NewRequests(nil))
	scanned := make(chan struct{})
	cut := &drivertest.Severable{Driver: d}
	r := New(Config{Driver: cut, Journal: j, Index: x, Now: time.Now, Log: slog.New(slog.DiscardHandler), Scanned: scanned, FS: fsys})
	for _, info := range files {
		x.Found(info)
	}
	close(scanned)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	h := &recording{index: x, pool: p, j: j, driver: cut}
	h.stop = func() {
		cancel()
		<-done
	}
	return h
}

// kill ends the host without a goodbye: nothing of it reaches the driver any
// more. What happened before has been flushed, as after a second without a
// kill.
func (h *recording) kill() {
	time.Sleep(2 * applyTimeout)
	h.driver.Severed.Store(true)
	h.stop()
}

// TestOlderRecordsAreMended gives the driver a store as it was some time ago, as
// a backup or a database that lost its last second: the hits of which the host
// knows come back.
func TestOlderRecordsAreMended(t *testing.T) {
	fsys := storetest.TempFS(t)
	synctest.Test(t, func(t *testing.T) {
		d := drivertest.NewFaulty(1)
		d.Settle()
		files := map[string]store.Info{"a": {ID: "a", Size: 1, ModTime: time.Now(), Meta: store.Meta{Version: "v"}}}
		h := startRecorder(t, fsys, d, files)
		hit := func(n int) {
			for range n {
				h.index.Hit(h.index.Get("a"))
			}
			time.Sleep(time.Minute)
		}
		hit(3)
		var entries map[string]sdk.Entry
		var last map[string]uint64
		d.Change(func(e map[string]sdk.Entry, l map[string]uint64) { entries, last = drivertest.Clone(e), maps.Clone(l) })
		hit(4)
		d.Wipe()
		d.Change(func(e map[string]sdk.Entry, l map[string]uint64) {
			maps.Copy(e, entries)
			maps.Copy(l, last)
		})
		hit(5)
		h.wantRecords(t, d, map[string]uint64{"a": 12}, files)
		h.stop()
	})
}

// garbage is a driver whose lists cannot be believed. It refuses batches that
// break the contract, and counts them.
type garbage struct {
	*drivertest.Faulty
	lists   [][]sdk.Entry // of the first lists; later ones are right
	refused int
}

func (d *garbage) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	if len(d.lists) == 0 {
		return d.Faulty.List(ctx, yield)
	}
	list := d.lists[0]
	d.lists = d.lists[1:]
	return yield(list)
}

func (d *garbage) Apply(ctx context.Context, b sdk.Batch) error {
	err := d.Faulty.Apply(ctx, b)
	if err != nil {
		d.refused++
	}
	return err
}

// TestDriverListsGarbage lists strangers, ids that are none, one image twice,
// impossible sizes, hits and times. The host counts its own hits, and sends
// nothing that a driver may not accept.
func TestDriverListsGarbage(t *testing.T) {
	far := time.Unix(1<<40, 0)
	a := sdk.Entry{ID: "a", Version: "v", Size: 1}
	for name, list := range map[string][]sdk.Entry{
		"no ids":      {{}, {ID: strings.Repeat("x", sdk.MaxIDLen+1)}, {ID: "../a"}, {ID: "\xff\x00"}, {ID: "queue"}},
		"strangers":   {{ID: "b", Size: 1}, {ID: "c"}},
		"twice":       {a, a, {ID: "a", Version: "other", Size: 1}, a},
		"sizes":       {{ID: "a", Version: "v", Size: -1}, {ID: "b", Size: math.MinInt64}, {ID: "a", Version: "v", Size: math.MaxInt64}},
		"times":       {{ID: "a", Version: "v", Size: 1, LastAccessed: far, LastModified: far}, {ID: "a", Version: "v", Size: 1, LastAccessed: time.Unix(-1<<40, 0)}},
		"no version":  {{ID: "a", Size: 1}, {ID: "a"}},
		"wrong bytes": {{ID: "a", Version: "\xff", Size: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := storetest.TempFS(t)
			synctest.Test(t, func(t *testing.T) {
				d := &garbage{Faulty: drivertest.NewFaulty(1), lists: [][]sdk.Entry{list}}
				d.Settle()
				d.Change(func(entries map[string]sdk.Entry, _ map[string]uint64) { entries["a"] = a })
				files := map[string]store.Info{"a": {ID: "a", Size: 1, ModTime: time.Now(), Meta: store.Meta{Version: "v"}}}
				h := startRecorder(t, fsys, d, files)
				for range 5 {
					h.index.Hit(h.index.Get("a"))
					time.Sleep(time.Minute)
				}
				if d.refused > 0 {
					t.Errorf("%d batches were refused", d.refused)
				}
				if info := h.index.View(h.index.Get("a")); info.Hits != 5 || info.Size != 1 || info.Accessed.After(time.Now()) {
					t.Errorf("the image is %+v", info)
				}
				h.stop()

				h = startRecorder(t, fsys, d, files) // the driver has come to its senses
				time.Sleep(time.Minute)
				h.wantRecords(t, d.Faulty, map[string]uint64{"a": 5}, files)
				h.stop()
			})
		})
	}
}

// TestDriverListsStrangers lists more strangers than the host wants to know of
// at once. It has them deleted piece by piece.
func TestDriverListsStrangers(t *testing.T) {
	fsys := storetest.TempFS(t)
	synctest.Test(t, func(t *testing.T) {
		d := drivertest.NewFaulty(1)
		d.Settle()
		for i := range maxUnknown + 1000 {
			id := fmt.Sprint("stranger", i)
			d.Change(func(entries map[string]sdk.Entry, _ map[string]uint64) { entries[id] = sdk.Entry{ID: id, Size: 1} })
		}
		files := map[string]store.Info{"a": {ID: "a", Size: 1, ModTime: time.Now(), Meta: store.Meta{Version: "v"}}}
		h := startRecorder(t, fsys, inPieces{d}, files)
		time.Sleep(time.Minute)
		h.wantRecords(t, d, map[string]uint64{"a": 0}, files)
		h.stop()
	})
}

// inPieces lists as drivers do, some records at a time.
type inPieces struct{ *drivertest.Faulty }

func (d inPieces) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	return d.Faulty.List(ctx, func(all []sdk.Entry) error {
		for piece := range slices.Chunk(all, 1000) {
			if err := yield(piece); err != nil {
				return err
			}
		}
		return nil
	})
}
