package cache

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// faultyDriver is an in-memory driver that keeps the contract and fails in
// every way that the contract allows.
type faultyDriver struct {
	mu      sync.Mutex
	rng     *rand.Rand
	faults  bool
	entries map[string]sdk.Entry
	last    map[string]uint64
}

func newFaultyDriver(seed uint64) *faultyDriver {
	return &faultyDriver{
		rng: rand.New(rand.NewPCG(seed, 3)), faults: true,
		entries: map[string]sdk.Entry{}, last: map[string]uint64{},
	}
}

func (d *faultyDriver) fault() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.faults {
		return 100
	}
	return d.rng.IntN(10)
}

func (d *faultyDriver) Apply(ctx context.Context, b sdk.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	switch d.fault() {
	case 0: // it died before
		return sdk.ErrUnavailable
	case 1: // it applied the batch, and died before it could say so
		if err := d.apply(b); err != nil {
			return err
		}
		return sdk.ErrUnavailable
	case 2: // it is slow, and applies after the caller has given up
		go func() {
			time.Sleep(applyTimeout + time.Second)
			_ = d.apply(b)
		}()
		<-ctx.Done()
		return ctx.Err()
	}
	return d.apply(b)
}

// settle ends the faults.
func (d *faultyDriver) settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = false
}

// records returns a copy of what is stored.
func (d *faultyDriver) records() map[string]sdk.Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return clone(d.entries)
}

// wipe loses everything, as a driver whose store was replaced by an empty one.
func (d *faultyDriver) wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries, d.last = map[string]sdk.Entry{}, map[string]uint64{}
}

func (d *faultyDriver) apply(b sdk.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ok, err := b.Admit(d.last[b.Source])
	if !ok {
		return err
	}
	for _, op := range b.Ops {
		apply(d.entries, op)
	}
	d.last[b.Source] = b.Seq
	return nil
}

func (d *faultyDriver) List(_ context.Context, yield func([]sdk.Entry) error) error {
	if d.fault() == 0 {
		return sdk.ErrUnavailable
	}
	d.mu.Lock()
	var list []sdk.Entry
	for _, e := range d.entries {
		list = append(list, e)
	}
	d.mu.Unlock()
	return yield(list)
}

// TestRecordsEqualHits lets images come, be hit and go while the driver fails
// and the host is killed now and then, and wants every record to be exact in
// the end. A kill may cost what was not flushed yet: the test flushes first,
// as a second without a kill does.
func TestRecordsEqualHits(t *testing.T) {
	seeds := uint64(60)
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			fsys := newTestFS(t)
			synctest.Test(t, func(t *testing.T) { recordsEqualHits(t, seed, fsys) })
		})
	}
}

func recordsEqualHits(t *testing.T, seed uint64, fsys store.FS) {
	rng := rand.New(rand.NewPCG(seed, 4))
	d := newFaultyDriver(seed)
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
				h.index.pool.charge(1)
				im, _ := h.index.commit(info, time.Now())
				h.index.close(im)
			case n == 0:
				h.index.remove(id, sdk.ReasonDeleted, time.Now())
				delete(files, id)
				delete(want, id)
			default:
				h.index.hit(h.index.get(id))
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
	d.settle()
	h := startRecorder(t, fsys, d, files)
	time.Sleep(5 * time.Minute)
	h.wantRecords(t, d, want, files)
	h.stop()
}

// wantRecords checks that driver and index have exactly these hits.
func (h *recording) wantRecords(t *testing.T, d *faultyDriver, want map[string]uint64, files map[string]store.Info) {
	t.Helper()
	entries := d.records()
	for id, hits := range want {
		if got := entries[id]; got.Hits != hits || got.Version != files[id].Version {
			t.Errorf("driver has %d hits of %s %q, want %d of %q", got.Hits, id, got.Version, hits, files[id].Version)
		}
		if got := h.index.view(h.index.get(id)); got.Hits != hits {
			t.Errorf("index has %d hits of %s, want %d", got.Hits, id, hits)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("driver has %d records, want %d", len(entries), len(want))
	}
	if n := h.j.unsent(); n != 0 {
		t.Errorf("%d operations were not sent", n)
	}
}

// TestLostRecordsAreRebuilt empties the driver's store while the host lives:
// the driver sees a gap, and everything is told again.
func TestLostRecordsAreRebuilt(t *testing.T) {
	fsys := newTestFS(t)
	synctest.Test(t, func(t *testing.T) {
		d := newFaultyDriver(1)
		d.settle()
		files := map[string]store.Info{}
		want := map[string]uint64{}
		for i := range 3 {
			id := fmt.Sprintf("img%d", i)
			files[id], want[id] = store.Info{ID: id, Size: 1, ModTime: time.Now(), Meta: store.Meta{Version: "v"}}, 0
		}
		h := startRecorder(t, fsys, d, files)
		for i := range 20 {
			if i%7 == 3 {
				d.wipe()
			}
			for id := range want {
				h.index.hit(h.index.get(id))
				want[id]++
			}
			time.Sleep(2500 * time.Millisecond)
		}
		time.Sleep(5 * time.Minute)
		h.wantRecords(t, d, want, files)
		h.stop()
	})
}

// lateDriver is away until it is up.
type lateDriver struct {
	sdktest.Memory
	up atomic.Bool
}

func (d *lateDriver) Apply(ctx context.Context, b sdk.Batch) error {
	if !d.up.Load() {
		return sdk.ErrUnavailable
	}
	return d.Memory.Apply(ctx, b)
}

func (d *lateDriver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	if !d.up.Load() {
		return sdk.ErrUnavailable
	}
	return d.Memory.List(ctx, yield)
}

// TestRecordWithoutVersion: such a record, as it is taken over from another
// program, is of the image of its size, whether the version of that becomes
// known before the record or after it, and is lost when a new one replaces it.
func TestRecordWithoutVersion(t *testing.T) {
	data := someImage()
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	for what, tt := range map[string]struct {
		size        int
		scrub, late bool
		hits        uint64
		version     string
	}{
		"version stays unknown":       {len(data), false, false, 7, ""},
		"version after the record":    {len(data), true, false, 7, sum},
		"version before the record":   {len(data), true, true, 7, sum},
		"another size":                {1, false, false, 0, ""},
		"another size, then verified": {1, true, false, 0, sum},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			plantBytes(t, dir, "image", data)
			used := before(time.Minute)
			driver := &lateDriver{}
			driver.up.Store(!tt.late)
			record := sdk.Entry{ID: "image", Size: int64(tt.size), Hits: 7, LastAccessed: used}
			if err := driver.Memory.Apply(t.Context(), sdk.Batch{Source: "s", Seq: 1, Ops: []sdk.Op{sdk.Put(record)}}); err != nil {
				t.Fatal(err)
			}
			inEngineAt(t, dir, Config{MaxSize: 1 << 30, Hard: true, Driver: driver}, func(t *testing.T, e *engine) {
				e.origin.data, e.origin.digest = data, true
				if !tt.late {
					<-e.recorder.merged
				}
				if tt.scrub {
					if r := e.scrub(); r.Adopted != 1 {
						t.Fatalf("scrub: %v", r)
					}
				}
				driver.up.Store(true)
				<-e.recorder.merged
				time.Sleep(time.Minute)
				info, _ := e.Image("image")
				if info.Hits != tt.hits || info.Version != tt.version || tt.hits > 0 != info.LastAccessed.Equal(used) {
					t.Errorf("%+v, want %d hits of version %q", info, tt.hits, tt.version)
				}
				got := driver.Entries()
				if len(got) != 1 || got[0].Hits != tt.hits || got[0].Version != tt.version || got[0].Size != int64(len(data)) {
					t.Errorf("the driver has %+v", got)
				}
			})
		})
	}
}

// TestOlderRecordsAreMended gives the driver a store as it was some time ago, as
// a backup or a database that lost its last second: the hits of which the host
// knows come back.
func TestOlderRecordsAreMended(t *testing.T) {
	fsys := newTestFS(t)
	synctest.Test(t, func(t *testing.T) {
		d := newFaultyDriver(1)
		d.settle()
		files := map[string]store.Info{"a": {ID: "a", Size: 1, ModTime: time.Now(), Meta: store.Meta{Version: "v"}}}
		h := startRecorder(t, fsys, d, files)
		hit := func(n int) {
			for range n {
				h.index.hit(h.index.get("a"))
			}
			time.Sleep(time.Minute)
		}
		hit(3)
		d.mu.Lock()
		entries, last := clone(d.entries), maps.Clone(d.last)
		d.mu.Unlock()
		hit(4)
		d.mu.Lock()
		d.entries, d.last = entries, last
		d.mu.Unlock()
		hit(5)
		h.wantRecords(t, d, map[string]uint64{"a": 12}, files)
		h.stop()
	})
}

// garbage is a driver whose lists cannot be believed. It refuses batches that
// break the contract, and counts them.
type garbage struct {
	*faultyDriver
	lists   [][]sdk.Entry // of the first lists; later ones are right
	refused int
}

func (d *garbage) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	if len(d.lists) == 0 {
		return d.faultyDriver.List(ctx, yield)
	}
	list := d.lists[0]
	d.lists = d.lists[1:]
	return yield(list)
}

func (d *garbage) Apply(ctx context.Context, b sdk.Batch) error {
	err := d.faultyDriver.Apply(ctx, b)
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
			fsys := newTestFS(t)
			synctest.Test(t, func(t *testing.T) {
				d := &garbage{faultyDriver: newFaultyDriver(1), lists: [][]sdk.Entry{list}}
				d.settle()
				d.entries["a"] = a
				files := map[string]store.Info{"a": {ID: "a", Size: 1, ModTime: time.Now(), Meta: store.Meta{Version: "v"}}}
				h := startRecorder(t, fsys, d, files)
				for range 5 {
					h.index.hit(h.index.get("a"))
					time.Sleep(time.Minute)
				}
				if d.refused > 0 {
					t.Errorf("%d batches were refused", d.refused)
				}
				if info := h.index.view(h.index.get("a")); info.Hits != 5 || info.Size != 1 || info.Accessed.After(time.Now()) {
					t.Errorf("the image is %+v", info)
				}
				h.stop()

				h = startRecorder(t, fsys, d, files) // the driver has come to its senses
				time.Sleep(time.Minute)
				h.wantRecords(t, d.faultyDriver, map[string]uint64{"a": 5}, files)
				h.stop()
			})
		})
	}
}

// TestDriverListsStrangers lists more strangers than the host wants to know of
// at once. It has them deleted piece by piece.
func TestDriverListsStrangers(t *testing.T) {
	fsys := newTestFS(t)
	synctest.Test(t, func(t *testing.T) {
		d := newFaultyDriver(1)
		d.settle()
		for i := range maxUnknown + 1000 {
			id := fmt.Sprint("stranger", i)
			d.entries[id] = sdk.Entry{ID: id, Size: 1}
		}
		files := map[string]store.Info{"a": {ID: "a", Size: 1, ModTime: time.Now(), Meta: store.Meta{Version: "v"}}}
		h := startRecorder(t, fsys, inPieces{d}, files)
		time.Sleep(time.Minute)
		h.wantRecords(t, d, map[string]uint64{"a": 0}, files)
		h.stop()
	})
}

// inPieces lists as drivers do, some records at a time.
type inPieces struct{ *faultyDriver }

func (d inPieces) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	return d.faultyDriver.List(ctx, func(all []sdk.Entry) error {
		for piece := range slices.Chunk(all, 1000) {
			if err := yield(piece); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestJournalSurvivesDamage cuts the file at every byte: what is read back is
// always a state that the log went through.
func TestJournalSurvivesDamage(t *testing.T) {
	fsys := newTestFS(t)
	j := newJournal(fsys, "records.log")
	j.put(sdk.Entry{ID: "a", Version: "1"})
	if _, err := j.flush(); err != nil {
		t.Fatal(err)
	}
	j.touch("a", 2, time.Unix(5, 0))
	j.touch("b", 1, time.Unix(6, 0))
	if _, err := j.flush(); err != nil {
		t.Fatal(err)
	}
	whole, err := readFile(fsys, "test", "records.log")
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]int{}
	for n := range len(whole) + 1 {
		var got journal
		got.replay(whole[:n])
		sent := 0
		if got.sent != nil {
			sent = len(got.sent.Ops)
		}
		states[fmt.Sprintf("source %v, %d sent, %d pending", got.source != "", sent, got.pending.len())]++
	}
	for _, want := range []string{
		"source false, 0 sent, 0 pending", "source true, 0 sent, 0 pending",
		"source true, 1 sent, 0 pending", "source true, 1 sent, 2 pending",
	} {
		if states[want] == 0 {
			t.Errorf("no cut gives the state %q", want)
		}
		delete(states, want)
	}
	if len(states) > 0 {
		t.Errorf("cuts give states that the log never had: %v", states)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add(appendLine(nil, line{Source: "s", Seq: 3}))
	f.Add(appendLine(appendLine(nil, line{Source: "s"}), line{Seq: 1, Send: toLines([]sdk.Op{sdk.Delete("a")})}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var j journal
		j.replay(data)
		if j.sent != nil && j.source == "" {
			t.Error("a batch without a source")
		}
	})
}

// recording is a host reduced to index, journal and recorder.
type recording struct {
	index  *index
	j      *journal
	driver *severable
	stop   func()
}

func startRecorder(t *testing.T, fsys store.FS, d sdk.Driver, files map[string]store.Info) *recording {
	t.Helper()
	j := newJournal(fsys, "records.log")
	x := newIndex(time.Now, newPool(1<<30, true), j, &events{})
	scanned := make(chan struct{})
	cut := &severable{Driver: d}
	r := newRecorder(&loggedDriver{driver: cut, log: j}, slog.New(slog.DiscardHandler), x, time.Now, scanned)
	for _, info := range files {
		x.found(info)
	}
	close(scanned)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(ctx)
	}()
	h := &recording{index: x, j: j, driver: cut}
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
	h.driver.severed.Store(true)
	h.stop()
}

// severable is a driver that can be cut off.
type severable struct {
	sdk.Driver
	severed atomic.Bool
}

func (s *severable) Apply(ctx context.Context, b sdk.Batch) error {
	if s.severed.Load() {
		return sdk.ErrUnavailable
	}
	return s.Driver.Apply(ctx, b)
}

// failingDriver fails at once, or takes as long as it may.
type failingDriver struct{ slow bool }

func (d failingDriver) List(ctx context.Context, _ func([]sdk.Entry) error) error { return d.fail(ctx) }

func (d failingDriver) Apply(ctx context.Context, _ sdk.Batch) error { return d.fail(ctx) }

func (d failingDriver) fail(ctx context.Context) error {
	if d.slow {
		<-ctx.Done()
	}
	return sdk.ErrUnavailable
}

// TestFlushInterval sends hits as often as is configured, and what comes or goes
// at once.
func TestFlushInterval(t *testing.T) {
	for every, most := range map[time.Duration]int{0: 90, time.Second: 90, 30 * time.Second: 5} {
		driver := sdktest.NewFlaky(&sdktest.Memory{}, func(int) sdktest.Fault { return sdktest.NoFault })
		inEngine(t, Config{MaxSize: 1 << 30, Hard: true, Driver: driver, FlushInterval: every}, func(t *testing.T, e *engine) {
			e.put("a", 10)
			time.Sleep(2 * time.Second)
			before := driver.Calls()
			for range 60 {
				e.read("a")
				time.Sleep(time.Second)
			}
			if n := driver.Calls() - before; n < 2 || n > most {
				t.Errorf("every %v: %d calls in a minute, want 2 to %d", every, n, most)
			}
			before = driver.Calls()
			e.put("b", 10)
			time.Sleep(time.Millisecond)
			if driver.Calls() == before {
				t.Errorf("every %v: a new image waits", every)
			}
		})
	}
}

// TestLogIsWrittenMeanwhile: whatever the driver does, what a kill of the host
// can cost is a second.
func TestLogIsWrittenMeanwhile(t *testing.T) {
	for _, slow := range []bool{false, true} {
		inEngine(t, Config{MaxSize: 1 << 30, Hard: true, Driver: failingDriver{slow}}, func(t *testing.T, e *engine) {
			e.put("a", 10)
			time.Sleep(45 * time.Second) // the pauses are long by now, and so are the calls
			for hits := range uint64(20) {
				e.read("a")
				time.Sleep(flushEvery)
				log := newJournal(e.store.FS(), e.store.PrivateDir()+"/records.log")
				data, err := readFile(log.fs, "test", log.path)
				if err != nil {
					t.Fatal(err)
				}
				log.replay(data)
				got := log.unacknowledged("a").hits
				if log.sent != nil {
					for _, op := range log.sent.Ops {
						got += op.Entry.Hits
					}
				}
				if got != hits+1 {
					t.Errorf("slow %v: after %d hits the log on disk has %d", slow, hits+1, got)
				}
			}
		})
	}
}
