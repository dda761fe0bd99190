package cache

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// engine is a cache on a real directory with a fake origin, in a bubble.
type engine struct {
	*Cache
	t      *testing.T
	origin *fakeOrigin
	fsys   *flakyFS // fails when told to
	log    *syncBuffer
	dir    string
	config Config       // as given
	wall   atomic.Int64 // how far the clock on the wall is ahead of the timers'
}

// inEngine runs f with an engine that was started and is closed afterwards.
func inEngine(t *testing.T, cfg Config, f func(*testing.T, *engine)) {
	t.Helper()
	inEngineAt(t, t.TempDir(), cfg, f)
}

// inEngineAt is inEngine on a directory that may hold something already.
func inEngineAt(t *testing.T, dir string, cfg Config, f func(*testing.T, *engine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &engine{t: t, log: &syncBuffer{}, dir: dir, config: cfg}
		e.origin = &fakeOrigin{rng: newRand(1), size: true, version: `"1"`}
		e.open()
		defer func() {
			e.shut()
			if left := e.fsys.leftOpen(); len(left) > 0 {
				t.Errorf("files are left open: %q", left)
			}
		}()
		f(t, e)
	})
}

// complete sets the options that a test leaves open and without which nothing
// works, as a configuration would.
func complete(cfg Config) Config {
	o, usual := &cfg.Options, options.Default()
	o.StallTime = cmp.Or(o.StallTime, usual.StallTime)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, usual.WriteTimeout)
	o.VerifyReads = cmp.Or(o.VerifyReads, usual.VerifyReads)
	o.Prune.Interval = cmp.Or(o.Prune.Interval, usual.Prune.Interval)
	o.Prune.HighWatermark = cmp.Or(o.Prune.HighWatermark, usual.Prune.HighWatermark)
	o.Prune.LowWatermark = cmp.Or(o.Prune.LowWatermark, usual.Prune.LowWatermark)
	o.Fill.Retries = cmp.Or(o.Fill.Retries, usual.Fill.Retries)
	o.Prefetch.Workers = cmp.Or(o.Prefetch.Workers, usual.Prefetch.Workers)
	return cfg
}

// open starts the cache on the directory.
func (e *engine) open() {
	e.t.Helper()
	base, err := store.OpenFS(e.dir)
	if err != nil {
		e.t.Fatal(err)
	}
	e.fsys = &flakyFS{FS: base, rng: newRand(2)}
	cfg := e.config
	if cfg.Store, err = store.Open(store.Config{Dir: e.dir, FS: e.fsys, Now: e.wallNow}); err != nil {
		e.t.Fatal(err)
	}
	if ahead := time.Duration(e.wall.Load()); cfg.Now == nil { // as by default
		cfg.Now = func() time.Time { return time.Now().Add(ahead) }
	}
	cfg.Origins = e.origin
	cfg.Log = slog.New(slog.NewTextHandler(e.log, nil))
	if e.Cache, err = New(complete(cfg)); err != nil {
		e.t.Fatal(err)
	}
	e.Start()
	<-e.scanned
}

// shut ends the cache as a shutdown does.
func (e *engine) shut() {
	e.t.Helper()
	if err := errors.Join(e.Close(), e.store.Close()); err != nil {
		e.t.Error(err)
	}
}

// get downloads an image through the cache.
func (e *engine) get(id string) (string, Outcome, error) {
	k, err := e.Open(e.t.Context(), id)
	if err != nil {
		return "", Outcome{}, err
	}
	defer k.Close()
	var got bytes.Buffer
	_, err = k.CopyTo(e.t.Context(), &got, 0, -1)
	return got.String(), k.Outcome(), err
}

// syncBuffer is a log that is read while others write.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// put brings an image in by a write.
func (e *engine) put(id string, size int) {
	e.t.Helper()
	w, err := e.BeginWrite(e.t.Context(), WriteOptions{ID: id})
	if err != nil {
		e.t.Fatalf("begin write of %s: %v", id, err)
	}
	if _, err := e.WriteData(e.t.Context(), w.Write, 0, bytes.NewReader(make([]byte, size))); err != nil {
		e.t.Fatalf("write %s: %v", id, err)
	}
	if _, err := e.CommitWrite(e.t.Context(), w.Write); err != nil {
		e.t.Fatalf("commit %s: %v", id, err)
	}
	time.Sleep(time.Second) // so that times differ
}

// read downloads a cached image whole.
func (e *engine) read(id string) {
	e.t.Helper()
	k, err := e.OpenCached(e.t.Context(), id)
	if err != nil {
		e.t.Fatalf("open %s: %v", id, err)
	}
	defer k.Close()
	if _, err := k.CopyTo(e.t.Context(), io.Discard, 0, -1); err != nil {
		e.t.Fatalf("read %s: %v", id, err)
	}
	time.Sleep(time.Second)
}

func (e *engine) ids() []string {
	var ids []string
	for _, i := range e.Images() {
		ids = append(ids, i.ID)
	}
	return ids
}

func (e *engine) wantIDs(want ...string) {
	e.t.Helper()
	if got := e.ids(); !slices.Equal(got, want) {
		e.t.Errorf("images are %v, want %v", got, want)
	}
}

func (e *engine) wantQueued(want ...string) {
	e.t.Helper()
	entries, err := e.Queued()
	var got []string
	for _, q := range entries {
		got = append(got, q.ID)
	}
	if err != nil || !slices.Equal(got, want) {
		e.t.Errorf("queued are %v, %v; want %v", got, err, want)
	}
}

func (e *engine) prune(max int64) Result {
	e.t.Helper()
	r, err := e.Prune(e.t.Context(), PruneOptions{MaxSize: &max})
	if err != nil {
		e.t.Errorf("prune: %v", err)
	}
	return r
}

func newestLast(r *sdk.Record, _ time.Time) float64 { return float64(r.Accessed) }

// TestSeedPrune is the example of Glance's cache: eleven images of 1 KiB, ten
// of them read in order.
func TestSeedPrune(t *testing.T) {
	seed := func(e *engine) {
		for i := range 10 {
			e.put(fmt.Sprint(i), 1024)
		}
		for i := range 10 {
			e.read(fmt.Sprint(i))
		}
		e.put("99", 1024)
	}
	t.Run("to a size", func(t *testing.T) {
		inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}, Policy: evict.Policy{Name: "lru", Scorer: sdk.ScoreFunc(newestLast)}}, func(t *testing.T, e *engine) {
			seed(e)
			if r := e.prune(5120); r != (Result{6, 6144}) {
				t.Errorf("pruned %+v, want 6 files of 6144 bytes", r)
			}
			e.wantIDs("6", "7", "8", "9", "99")
			if u := e.Usage(); u.Bytes != 5120 {
				t.Errorf("%d bytes are used, want 5120", u.Bytes)
			}
			if r := e.prune(5120); r != (Result{}) {
				t.Errorf("at the limit %+v was pruned", r)
			}
			if r := e.prune(0); r != (Result{5, 5120}) {
				t.Errorf("prune to 0 removed %+v", r)
			}
			e.wantIDs()
		})
	})
	t.Run("by limit", func(t *testing.T) {
		cfg := Config{Options: options.Options{MaxSize: 5120, Prune: options.Prune{Interval: 100 * time.Hour}}, Policy: evict.Policy{Name: "lru", Scorer: sdk.ScoreFunc(newestLast)}}
		inEngine(t, cfg, func(t *testing.T, e *engine) {
			seed(e)
			if r, err := e.Prune(t.Context(), PruneOptions{}); err != nil || r != (Result{6, 6144}) {
				t.Errorf("pruned %+v, %v; want 6 files of 6144 bytes", r, err)
			}
			e.wantIDs("6", "7", "8", "9", "99")
		})
	})
}

func TestPruneDryRunRemovesNothing(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.put("a", 10)
		e.put("b", 10)
		var size int64
		r, err := e.Prune(t.Context(), PruneOptions{MaxSize: &size, DryRun: true})
		if err != nil || r != (Result{2, 20}) {
			t.Errorf("dry run says %+v, %v; want 2 files of 20 bytes", r, err)
		}
		e.wantIDs("a", "b")
	})
}

// badPolicy misbehaves in one of the ways that the host must stand.
type badPolicy struct {
	score  func(ctx context.Context, scores []float64) error
	choose func(known []sdk.Key) []sdk.Key

	mu       sync.Mutex // guards the rest
	known    []sdk.Key
	refused  []sdk.Key
	removed  map[sdk.Reason]int
	capacity uint64
	observed int
	fail     bool // answer that the state is lost
}

func (p *badPolicy) Score(ctx context.Context, _ time.Time, _ []sdk.Record, scores []float64) error {
	return p.score(ctx, scores)
}

func (p *badPolicy) Observe(_ context.Context, events []sdk.Event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail {
		p.known, p.fail = nil, false
		return sdk.ErrUnavailable
	}
	for _, ev := range events {
		p.observed++
		switch ev.Kind {
		case sdk.EventAdmitted:
			if !slices.Contains(p.known, ev.Key) {
				p.known = append(p.known, ev.Key)
			}
		case sdk.EventRemoved:
			p.known = slices.DeleteFunc(p.known, func(k sdk.Key) bool { return k == ev.Key })
			if p.removed == nil {
				p.removed = map[sdk.Reason]int{}
			}
			p.removed[ev.Reason]++
		case sdk.EventRefused:
			p.refused = append(p.refused, ev.Key)
		case sdk.EventCapacity:
			p.capacity = ev.Size
		}
	}
	return nil
}

func (p *badPolicy) Select(context.Context, time.Time, uint64, int) ([]sdk.Key, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.choose(p.known), nil
}

func TestScoringPolicyThatFails(t *testing.T) {
	for name, tt := range map[string]struct {
		score func(context.Context, []float64) error
		why   string
	}{
		"answers NaN": {func(_ context.Context, s []float64) error { s[len(s)-1] = math.NaN(); return nil }, "NaN"},
		"is away":     {func(context.Context, []float64) error { return sdk.ErrUnavailable }, "unavailable"},
		"hangs":       {func(ctx context.Context, _ []float64) error { <-ctx.Done(); return ctx.Err() }, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}, Policy: evict.Policy{Name: "bad", Scorer: &badPolicy{score: tt.score}}}, func(t *testing.T, e *engine) {
				for _, id := range []string{"a", "b", "c"} {
					e.put(id, 1000)
				}
				e.read("a")
				if r := e.prune(1000); r.Files != 2 {
					t.Errorf("pruned %+v, want 2 files", r)
				}
				e.wantIDs("a")
				if why := e.Usage().Policy; !strings.HasPrefix(why, "lru (fallback)") || !strings.Contains(why, tt.why) {
					t.Errorf("the policy in charge is %q, want the fallback because of %q", why, tt.why)
				}
			})
		})
	}
}

func TestStatefulPolicyThatNamesStrangers(t *testing.T) {
	p := &badPolicy{choose: func([]sdk.Key) []sdk.Key { return []sdk.Key{1, 2, 2, 3} }}
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}, Policy: evict.Policy{Name: "bad", Stateful: p}}, func(t *testing.T, e *engine) {
		for _, id := range []string{"a", "b", "c"} {
			e.put(id, 1000)
		}
		e.read("a")
		if r := e.prune(1000); r.Files != 2 {
			t.Errorf("pruned %+v, want 2 files", r)
		}
		e.wantIDs("a")
		if why := e.Usage().Policy; !strings.Contains(why, "not in the cache") {
			t.Errorf("the policy in charge is %q, want the fallback because of strangers", why)
		}
	})
}

// TestPolicyThatComesLate brings a stateful policy when there are images
// already: until then the host decides and says why, afterwards the policy
// knows them all.
func TestPolicyThatComesLate(t *testing.T) {
	p := &badPolicy{choose: func(known []sdk.Key) []sdk.Key { return slices.Clone(known) }}
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}, Policy: evict.Policy{Name: "fifo"}}, func(t *testing.T, e *engine) {
		for _, id := range []string{"a", "b", "c"} {
			e.put(id, 1000)
		}
		e.prune(2000)
		if why := e.Usage().Policy; why != "lru (fallback): the policy fifo has not started yet" {
			t.Errorf("before it comes %q is in charge", why)
		}
		e.SetPolicy(evict.Policy{Name: "fifo", Stateful: p})
		e.put("d", 1000)
		e.prune(1000)
		p.mu.Lock()
		defer p.mu.Unlock()
		if why := e.Usage().Policy; why != "fifo" || len(p.known) != 1 || p.removed[sdk.ReasonEvicted] != 2 {
			t.Errorf("%q is in charge, and the policy knows %d images and %v removals", why, len(p.known), p.removed)
		}
	})
}

// TestStatefulPolicyIsTold checks what the policy learns, and that a proposal
// that may not leave comes back as refused.
func TestStatefulPolicyIsTold(t *testing.T) {
	p := &badPolicy{choose: func(known []sdk.Key) []sdk.Key { return slices.Clone(known) }}
	cfg := Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard, Prune: options.Prune{HighWatermark: 0.001, LowWatermark: 0.0005, Interval: 100 * time.Hour}}, Policy: evict.Policy{Name: "fifo", Stateful: p}}
	inEngine(t, cfg, func(t *testing.T, e *engine) {
		e.put("a", 1000)
		e.put("b", 1000)
		reader, err := e.OpenCached(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Prune(t.Context(), PruneOptions{}); err != nil {
			t.Fatal(err)
		}
		e.wantIDs("a") // it is being read
		reader.Close()
		p.mu.Lock()
		if p.capacity != 1<<20 {
			t.Errorf("the policy was told a capacity of %d", p.capacity)
		}
		if !slices.Contains(p.refused, sdk.KeyOf("a")) {
			t.Errorf("the policy was told of refusals %v, want that of a", p.refused)
		}
		if p.removed[sdk.ReasonEvicted] != 1 {
			t.Errorf("the policy was told of removals %v, want one eviction", p.removed)
		}
		p.mu.Unlock()
		if err := e.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		e.put("c", 10)
		p.mu.Lock()
		p.fail = true // it loses its state, and must be rebuilt
		p.mu.Unlock()
		e.prune(0)
		e.wantIDs()
		e.put("d", 10)
		e.prune(0)
		p.mu.Lock()
		defer p.mu.Unlock()
		if e.Usage().Policy != "fifo" || len(p.known) != 0 {
			t.Errorf("after its loss of state %q is in charge, and the policy knows %d images", e.Usage().Policy, len(p.known))
		}
	})
}

// TestHits counts what a hit is.
func TestHits(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.put("a", 3000000)
		copyPart := func(off, n int64) {
			k, err := e.OpenCached(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			if _, err := k.CopyTo(t.Context(), io.Discard, off, n); err != nil {
				t.Fatal(err)
			}
		}
		for _, tt := range []struct {
			what   string
			off, n int64
			want   uint64
		}{
			{"the whole", 0, -1, 1},
			{"the first part of a split download", 0, 1000000, 1},
			{"its second and last part", 1000000, 2000000, 2},
			{"a part in the middle", 5, 10, 2},
			{"the last byte", 2999999, 1, 2},
		} {
			copyPart(tt.off, tt.n)
			if info, _ := e.Image("a"); info.Hits != tt.want {
				t.Errorf("after %s there are %d hits, want %d", tt.what, info.Hits, tt.want)
			}
		}
		k, err := e.OpenCached(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.CopyTo(t.Context(), failingWriter{}, 0, -1); err == nil {
			t.Error("a client that went away was served")
		}
		k.Close()
		if info, _ := e.Image("a"); info.Hits != 2 {
			t.Errorf("an aborted download counted: %d hits", info.Hits)
		}
	})
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("gone") }

// TestReadersKeepTheirBytes deletes an image that is being read: the reader
// ends well, and the bytes count until it does.
func TestReadersKeepTheirBytes(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.put("a", 5000)
		k, err := e.OpenCached(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if u := e.Usage(); u.Bytes != 5000 || u.Images != 0 {
			t.Errorf("while it is read: %d bytes of %d images, want 5000 of 0", u.Bytes, u.Images)
		}
		if n, err := k.CopyTo(t.Context(), io.Discard, 0, -1); n != 5000 || err != nil {
			t.Errorf("the reader got %d bytes, %v", n, err)
		}
		k.Close()
		if u := e.Usage(); u.Bytes != 0 {
			t.Errorf("%d bytes are left", u.Bytes)
		}
	})
}

// TestCorruptBlock flips a bit under a reader: the wrong byte never leaves.
func TestCorruptBlock(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = bytes.Repeat([]byte("real content "), 300000)
		want := e.origin.data
		get := func() ([]byte, Outcome) {
			k, err := e.Open(t.Context(), "image")
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			var got bytes.Buffer
			if _, err := k.CopyTo(t.Context(), &got, 0, -1); err != nil {
				t.Fatalf("download: %v", err)
			}
			return got.Bytes(), k.Outcome()
		}
		get()
		time.Sleep(time.Minute)
		f, err := e.store.FS().OpenFile("test", "image", 2, 0)
		if err != nil {
			t.Fatal(err)
		}
		before, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{'X'}, 2<<20); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := e.store.FS().Chtimes("test", "image", before.ModTime()); err != nil {
			t.Fatal(err)
		}
		got, outcome := get()
		if !outcome.Hit || !bytes.Equal(got, want) {
			t.Errorf("hit %v, and %d bytes, right: %v", outcome.Hit, len(got), bytes.Equal(got, want))
		}
		if info, _ := e.Image("image"); info.State != StateAbsent || !strings.Contains(info.Error, "quarantined") {
			t.Errorf("afterwards the image is %s, because of %q", info.State, info.Error)
		}
		if list, _ := e.store.Invalid(); len(list) != 1 {
			t.Errorf("%d files are kept for inspection, want 1", len(list))
		}
		if _, outcome := get(); outcome.Hit {
			t.Error("the corrupt image was served again")
		}
	})
}

// TestFileThatCannotBeOpened: while the disk fails, a cached image comes from
// the origin, and again from the cache afterwards.
func TestFileThatCannotBeOpened(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = []byte("content")
		get := func() Outcome {
			k, err := e.Open(t.Context(), "image")
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			var got bytes.Buffer
			if _, err := k.CopyTo(t.Context(), &got, 0, -1); err != nil || got.String() != "content" {
				t.Fatalf("download: %q, %v", got.String(), err)
			}
			return k.Outcome()
		}
		get()
		time.Sleep(time.Minute)
		e.fsys.crashed.Store(true)
		if o := get(); o.Hit {
			t.Error("a hit of a file that cannot be opened")
		}
		e.fsys.crashed.Store(false)
		time.Sleep(time.Minute)
		if o := get(); !o.Hit {
			t.Error("the image is no longer served from the cache")
		}
	})
}

// TestDeleteBarsFill deletes while a fill runs: its client gets the image, and
// nothing appears.
func TestDeleteBarsFill(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true}}}, func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 3000000)
		k, err := e.Open(t.Context(), "image")
		if err != nil {
			t.Fatal(err)
		}
		if info, _ := e.Image("image"); info.State != StateFilling {
			t.Errorf("the image is %s, want filling", info.State)
		}
		if err := e.Delete(t.Context(), "image"); err != nil {
			t.Fatal(err)
		}
		if n, err := k.CopyTo(t.Context(), io.Discard, 0, -1); n != 3000000 || err != nil {
			t.Errorf("the client got %d bytes, %v", n, err)
		}
		k.Close()
		time.Sleep(time.Minute)
		e.wantIDs()
		if u := e.Usage(); u.Bytes != 0 {
			t.Errorf("%d bytes are left", u.Bytes)
		}
	})
}

// TestQueueSurvivesPoison fetches what is queued though one id cannot be had.
func TestQueueSurvivesPoison(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 1000)
		e.origin.missing = "poison"
		for _, id := range []string{"poison", "a", "b", "c"} {
			if ok, err := e.Queue(id); !ok || err != nil {
				t.Fatalf("queue %s: %v, %v", id, ok, err)
			}
		}
		time.Sleep(time.Minute)
		e.wantIDs("a", "b", "c")
		e.wantQueued("poison")
		if info, _ := e.Image("poison"); info.State != StateQueued || info.Error == "" {
			t.Errorf("the poison is %s with the error %q", info.State, info.Error)
		}
		for _, id := range []string{"a", "poison"} {
			if ok, err := e.Queue(id); ok || err != nil {
				t.Errorf("%s, cached or queued, was queued again: %v, %v", id, ok, err)
			}
		}
	})
}

// TestRetryQueued fetches at once what waits for its next attempt.
func TestRetryQueued(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 1000)
		e.origin.missing = "late"
		if _, err := e.Queue("late"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Minute) // the pause is five minutes by now
		e.origin.mu.Lock()
		asked := e.origin.asked
		e.origin.missing = ""
		e.origin.mu.Unlock()
		time.Sleep(10 * time.Second)
		if e.origin.mu.Lock(); e.origin.asked != asked {
			t.Error("it was tried meanwhile: this test sees nothing")
		}
		e.origin.mu.Unlock()
		if n, err := e.RetryQueued(); n != 1 || err != nil {
			t.Errorf("%d, %v; want one image", n, err)
		}
		time.Sleep(10 * time.Second)
		e.wantIDs("late")
		if n, err := e.RetryQueued(); n != 0 || err != nil {
			t.Errorf("%d, %v; want an empty queue", n, err)
		}
	})
}
