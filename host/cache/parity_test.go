package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/store/storetest"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// The tests of this file are faults of Glance's image cache that this engine
// must not have; docs/glance-parity.md lists them. Those that are general have
// their tests elsewhere.

// before is a time before that at which the clock of a bubble begins.
func before(age time.Duration) time.Time {
	return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(-age)
}

// plant puts a file into a directory as another program leaves it.
func plant(t *testing.T, dir, name string, size int, at time.Time) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, size), 0o644), os.Chtimes(path, at, at)); err != nil {
		t.Fatal(err)
	}
}

// download gets an image whole, and returns once a fill has ended, which it
// does beside the last block.
func (e *engine) download(id string) (string, Outcome) {
	e.t.Helper()
	got, outcome, err := e.get(id)
	if err != nil {
		e.t.Fatalf("download %s: %v", id, err)
	}
	synctest.Wait()
	return got, outcome
}

// TestTwoWritersNeverMix is fault 1: a client's write and a fill of one image
// run beside each other. Whoever ends last, the image is one of the two.
func TestTwoWritersNeverMix(t *testing.T) {
	const size = 3 << 20
	ours, theirs := bytes.Repeat([]byte{'w'}, size), bytes.Repeat([]byte{'f'}, size)
	for name, writeFirst := range map[string]bool{"the write ends first": true, "the fill ends first": false} {
		t.Run(name, func(t *testing.T) {
			inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true}}}, func(t *testing.T, e *engine) {
				e.origin.data, e.origin.version = theirs, `"theirs"`
				w, err := e.BeginWrite(t.Context(), WriteOptions{ID: "image"})
				if err != nil {
					t.Fatal(err)
				}
				half := func(offset int64, p []byte) {
					if _, err := e.WriteData(t.Context(), w.Write, offset, bytes.NewReader(p)); err != nil {
						t.Fatal(err)
					}
				}
				half(0, ours[:size/2])
				k, err := e.Open(t.Context(), "image")
				if err != nil {
					t.Fatal(err)
				}
				defer k.Close()
				if !writeFirst {
					if _, err := k.CopyTo(t.Context(), io.Discard, 0, -1); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				time.Sleep(500 * time.Millisecond) // in which a fill gets a part
				half(size/2, ours[size/2:])
				_, err = e.CommitWrite(t.Context(), w.Write)
				if (err == nil) != writeFirst || err != nil && !errors.Is(err, ErrConflict) {
					t.Errorf("commit of the write: %v", err)
				}
				if writeFirst {
					if _, err := k.CopyTo(t.Context(), io.Discard, 0, -1); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute)
				got, err := os.ReadFile(filepath.Join(e.dir, "image")) // what nobody has checked
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, ours) && !bytes.Equal(got, theirs) {
					t.Errorf("%d bytes, of them %d of the write and %d of the fill",
						len(got), bytes.Count(got, []byte{'w'}), bytes.Count(got, []byte{'f'}))
				}
				info, err := e.Image("image")
				if sum := fmt.Sprintf("%x", sha256.Sum256(got)); err != nil || info.SHA256 != sum {
					t.Errorf("the record is that of %s, %v; the file is %s", info.SHA256, err, sum)
				}
				if again, outcome := e.download("image"); !outcome.Hit || again != string(got) {
					t.Errorf("a hit: %v, and of the file: %v", outcome.Hit, again == string(got))
				}
			})
		})
	}
}

// hangingDriver answers nothing until its caller gives up.
type hangingDriver struct{}

func (hangingDriver) List(ctx context.Context, _ func([]sdk.Entry) error) error {
	<-ctx.Done()
	return ctx.Err()
}

func (hangingDriver) Apply(ctx context.Context, _ sdk.Batch) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestHangingDriverDelaysNobody is faults 6 and 18: neither a download that
// ends with a commit nor a hit waits for the driver, and the image is cached.
// The clock of the bubble tells waiting to the nanosecond.
func TestHangingDriverDelaysNobody(t *testing.T) {
	times := map[bool][]time.Duration{}
	for _, hangs := range []bool{false, true} {
		cfg := Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}
		if hangs {
			cfg.Driver = hangingDriver{}
		}
		inEngine(t, cfg, func(t *testing.T, e *engine) {
			e.origin.data = make([]byte, 3<<20)
			for _, hit := range []bool{false, true} {
				start := time.Now()
				_, outcome := e.download("image")
				times[hangs] = append(times[hangs], time.Since(start))
				if outcome.Hit != hit {
					t.Errorf("driver hangs: %v; a hit: %v, want %v", hangs, outcome.Hit, hit)
				}
			}
			if left, err := e.store.Incomplete(); err != nil || len(left) > 0 {
				t.Errorf("left in incomplete/: %v, %v", left, err)
			}
			e.wantIDs("image")
		})
	}
	if !slices.Equal(times[false], times[true]) || times[true][1] != 0 {
		t.Errorf("miss and hit take %v, and with a driver that hangs %v", times[false], times[true])
	}
}

// TestPruneWithoutRecords is fault 2: what the driver knows does not matter to
// a prune. It ends, and removes what is too much, oldest files first.
func TestPruneWithoutRecords(t *testing.T) {
	for name, driver := range map[string]sdk.Driver{
		"no records": &sdktest.Memory{}, "no driver": nil, "no answer": hangingDriver{},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for i := range 10 {
				plant(t, dir, fmt.Sprint(i), 1024, before(time.Duration(20-i)*time.Hour))
			}
			inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 20}, Driver: driver}, func(t *testing.T, e *engine) {
				if r := e.prune(5120); r != (Result{5, 5120}) {
					t.Errorf("pruned %+v, want 5 files of 5120 bytes", r)
				}
				e.wantIDs("5", "6", "7", "8", "9")
			})
		})
	}
}

// TestOrphanLeavesAlone is fault 3: a file of which the driver has no record
// does not make a prune remove the images of which it has one.
func TestOrphanLeavesAlone(t *testing.T) {
	dir := t.TempDir()
	records := &sdktest.Memory{}
	var ops []sdk.Op
	for _, id := range []string{"a", "b", "c", "d"} {
		plant(t, dir, id, 1024, before(time.Hour))
		ops = append(ops, sdk.Put(sdk.Entry{ID: id, Size: 1024, Hits: 1, LastAccessed: before(time.Minute)}))
	}
	if err := records.Apply(t.Context(), sdk.Batch{Source: "earlier", Seq: 1, Ops: ops}); err != nil {
		t.Fatal(err)
	}
	plant(t, dir, "orphan", 6144, before(2*time.Hour))
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 20}, Driver: records}, func(t *testing.T, e *engine) {
		<-e.recorder.Merged
		for _, want := range []Result{{1, 6144}, {}} {
			if r := e.prune(5120); r != want {
				t.Errorf("pruned %+v, want %+v", r, want)
			}
			e.wantIDs("a", "b", "c", "d")
		}
	})
}

// TestPruneCountsImages is fault 3 too, in its other form: what lies in
// incomplete/ and invalid/ cannot be pruned, and empties no cache.
func TestPruneCountsImages(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "incomplete/foreign", 6144, before(time.Minute))
	plant(t, dir, "invalid/broken", 6144, before(time.Minute))
	for i := range 4 {
		plant(t, dir, fmt.Sprint(i), 1024, before(time.Duration(20-i)*time.Hour))
	}
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 4096}}, func(t *testing.T, e *engine) {
		time.Sleep(10 * time.Minute) // in which the service prunes by itself
		if r := e.prune(4096); r != (Result{}) {
			t.Errorf("at the limit %+v was pruned", r)
		}
		e.wantIDs("0", "1", "2", "3")
		if r := e.prune(3072); r != (Result{1, 1024}) {
			t.Errorf("pruned %+v, want the oldest image", r)
		}
		e.wantIDs("1", "2", "3")
		if u := e.Usage(); u.Bytes != 3072+2*6144 {
			t.Errorf("%d bytes are used", u.Bytes)
		}
	})
}

// TestInvalidLeavesFirst: where max_size is a bound, what is kept for inspection
// leaves before any image does, oldest first, and no more of it than must.
func TestInvalidLeavesFirst(t *testing.T) {
	for name, tt := range map[string]struct {
		max int64
		act func(*engine)
	}{
		"for a new image": {10_000, func(e *engine) { e.put("b", 4000) }},
		"by a prune": {9_000, func(e *engine) {
			if r, err := e.Prune(e.t.Context(), PruneOptions{}); err != nil || r != (Result{}) {
				e.t.Errorf("pruned %+v, %v; want no image", r, err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			plant(t, dir, "a", 4000, before(3*time.Hour))
			plant(t, dir, "invalid/old", 5000, before(2*time.Hour))
			plant(t, dir, "invalid/new", 500, before(time.Hour))
			inEngineAt(t, dir, Config{Options: options.Options{MaxSize: tt.max, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
				tt.act(e)
				if info, _ := e.Image("a"); info.State != StateCached {
					t.Errorf("the image is %s", info.State)
				}
				left, err := e.store.Invalid()
				if err != nil || len(left) != 1 || left[0].Name != "new" {
					t.Errorf("invalid/ holds %+v, %v; want the newer file", left, err)
				}
			})
		})
	}
}

// TestRecordsFollowFiles is fault 8: a record without a file is no image, and
// goes; one of other bytes is replaced, size and hits; and so is that of an
// image of which the origin has a new version.
func TestRecordsFollowFiles(t *testing.T) {
	dir := t.TempDir()
	records := &sdktest.Memory{}
	if err := records.Apply(t.Context(), sdk.Batch{Source: "earlier", Seq: 1, Ops: []sdk.Op{
		sdk.Put(sdk.Entry{ID: "ghost", Size: 10, Hits: 3}),
		sdk.Put(sdk.Entry{ID: "other", Size: 3, Hits: 7, Version: `"old"`}),
	}}); err != nil {
		t.Fatal(err)
	}
	plant(t, dir, "other", 6, before(time.Hour))
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}, Driver: records}, func(t *testing.T, e *engine) {
		record := func(id string) sdk.Entry {
			t.Helper()
			time.Sleep(10 * time.Second) // the records are told
			for _, entry := range records.Entries() {
				if entry.ID == id {
					return entry
				}
			}
			return sdk.Entry{}
		}
		<-e.recorder.Merged
		e.wantIDs("other")
		if ghost := record("ghost"); ghost.ID != "" {
			t.Errorf("a record without a file is left: %+v", ghost)
		}
		if r := record("other"); r.Size != 6 || r.Hits != 0 {
			t.Errorf("the record of other bytes is %+v, want 6 bytes and no hits", r)
		}

		e.origin.data = []byte("abc")
		e.download("image")
		e.download("image")
		if r := record("image"); r.Size != 3 || r.Hits != 1 {
			t.Errorf("the record is %+v, want 3 bytes and a hit", r)
		}
		e.origin.mu.Lock()
		e.origin.data, e.origin.version = []byte("abcdef"), `"2"`
		e.origin.mu.Unlock()
		if got, outcome := e.download("image"); got != "abcdef" || outcome.Hit {
			t.Errorf("of the new version there is %q; a hit: %v", got, outcome.Hit)
		}
		if r := record("image"); r.Size != 6 || r.Hits != 0 {
			t.Errorf("the record of the new version is %+v, want 6 bytes and no hits", r)
		}
	})
}

// TestAbortedReadKeepsAnImage is fault 10: a download that was broken off is
// no hit, but whoever asks for an image needs it.
func TestAbortedReadKeepsAnImage(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		for _, id := range []string{"a", "b", "c"} {
			e.put(id, 1000)
		}
		e.read("b")
		e.read("c")
		k, err := e.OpenCached(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.CopyTo(t.Context(), failingWriter{}, 0, -1); err == nil {
			t.Error("a client that went away was served")
		}
		k.Close()
		if info, _ := e.Image("a"); info.Hits != 0 {
			t.Errorf("%d hits, want none", info.Hits)
		}
		e.prune(2000)
		e.wantIDs("a", "c")
	})
}

// glancesOwn are the files that Glance keeps among its images: records, SQLite's
// companions, locks, and what a probe left behind.
var glancesOwn = []string{
	"cache.db", "cache.db-journal", "cache.db-wal", "cache.db-shm", "records.db", "image_cache_db_init",
	"glance-cache", "glance-cache-clean", "glance-cache-prune", "sqlite_centralized_migrate", "checkme",
}

// TestGlancesFilesAreNoImages is faults 11 and 12: what is not an image is not
// counted, listed, served, pruned or deleted as one.
func TestGlancesFilesAreNoImages(t *testing.T) {
	dir := t.TempDir()
	foreign := append([]string{".hidden", "a~b", "subdirectory/file"}, glancesOwn...)
	for _, name := range foreign {
		plant(t, dir, name, 4096, before(time.Hour))
	}
	for _, id := range []string{"a", "b"} {
		plant(t, dir, id, 1000, before(time.Minute))
	}
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 2000, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.wantIDs("a", "b")
		if u := e.Usage(); u.Bytes != 2000 || u.Images != 2 {
			t.Errorf("%d bytes of %d images are counted, want 2000 of 2", u.Bytes, u.Images)
		}
		if r := e.prune(2000); r != (Result{}) {
			t.Errorf("at the limit %+v was pruned", r)
		}
		for _, id := range append([]string{"incomplete", "invalid", "queue", ".", ".."}, glancesOwn...) {
			_, openErr := e.Open(t.Context(), id)
			_, dataErr := e.OpenCached(t.Context(), id)
			_, queueErr := e.Queue(id)
			_, infoErr := e.Image(id)
			for what, err := range map[string]error{
				"open": openErr, "data": dataErr, "queue": queueErr, "show": infoErr, "delete": e.Delete(t.Context(), id),
			} {
				if !errors.Is(err, ErrBadID) {
					t.Errorf("%s %s: %v, want ErrBadID", what, id, err)
				}
			}
		}
		if n, err := e.DeleteAll(t.Context()); n != 2 || err != nil {
			t.Errorf("%d images deleted, %v; want 2", n, err)
		}
		synctest.Wait()
		for _, name := range foreign {
			fi, err := os.Stat(filepath.Join(dir, name))
			if err != nil || fi.Size() != 4096 || !fi.ModTime().Equal(before(time.Hour)) {
				t.Errorf("%s was touched: %v", name, err)
			}
		}
	})
}

// countingScorer is the least-recently-used policy, and counts its questions.
type countingScorer struct{ calls, records atomic.Int64 }

func (s *countingScorer) Score(_ context.Context, _ time.Time, records []sdk.Record, scores []float64) error {
	s.calls.Add(1)
	s.records.Add(int64(len(records)))
	for i := range records {
		scores[i] = float64(records[i].Accessed)
	}
	return nil
}

// TestPruneAsksOnce is fault 16: a prune asks the policy once for all victims,
// and not once for each.
func TestPruneAsksOnce(t *testing.T) {
	const images = 1000
	dir := t.TempDir()
	for i := range images {
		plant(t, dir, fmt.Sprint(i), 10, before(time.Duration(i)*time.Minute))
	}
	policy := &countingScorer{}
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 20}, Policy: evict.Policy{Name: "lru", Scorer: policy}}, func(t *testing.T, e *engine) {
		synctest.Wait()
		policy.calls.Store(0)
		policy.records.Store(0)
		if r := e.prune(10 * images * 9 / 10); r != (Result{images / 10, images}) {
			t.Errorf("pruned %+v", r)
		}
		if c, n := policy.calls.Load(), policy.records.Load(); c != 1 || n != images {
			t.Errorf("the policy was asked %d times for %d scores, want once for %d", c, n, images)
		}
	})
}

// TestListsLookAtNoFile is fault 17: to list the images, to say how full the
// cache is and to look for an unknown image does not touch the files of all.
func TestListsLookAtNoFile(t *testing.T) {
	const images = 300
	dir := t.TempDir()
	for i := range images {
		plant(t, dir, fmt.Sprint(i), 10, before(time.Hour))
	}
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		synctest.Wait()
		fsys := storetest.New(t, dir)
		e.fsys.FS = fsys
		if got := e.ids(); len(got) != images || !slices.IsSorted(got) {
			t.Errorf("%d images are listed; in order: %v", len(got), slices.IsSorted(got))
		}
		if u := e.Usage(); u.Bytes != 10*images {
			t.Errorf("%d bytes are used, want %d", u.Bytes, 10*images)
		}
		if err := e.Delete(t.Context(), "nothing"); err != nil {
			t.Error(err)
		}
		if calls := fsys.Calls(); len(calls) > 10 {
			t.Errorf("%d calls of the file system, want a few", len(calls))
		}
	})
}

// TestPrefetchersAreBounded is fault 20: as many transfers at once as are
// configured, whatever is queued, and none of an image that is cached.
func TestPrefetchersAreBounded(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Prefetch: options.Prefetch{Workers: 3}}}, func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 1<<20)
		const images = 20
		for i := range images {
			if ok, err := e.Queue(fmt.Sprint(i)); !ok || err != nil {
				t.Fatalf("queue %d: %v, %v", i, ok, err)
			}
		}
		most := 0
		for len(e.ids()) < images {
			time.Sleep(time.Millisecond)
			e.origin.mu.Lock()
			most = max(most, e.origin.active)
			e.origin.mu.Unlock()
		}
		if most != 3 {
			t.Errorf("up to %d transfers at once, want 3", most)
		}
		if ok, err := e.Queue("7"); ok || err != nil {
			t.Errorf("a cached image is queued: %v, %v", ok, err)
		}
		time.Sleep(time.Minute)
		if e.origin.opens != images {
			t.Errorf("%d transfers, want %d", e.origin.opens, images)
		}
	})
}

// TestPrefetchVerifies is bug 882585: what the queue brings in is checked as
// what a client brings in, and tried again.
func TestPrefetchVerifies(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data, e.origin.digest, e.origin.corrupt = make([]byte, 3<<20), true, true
		if ok, err := e.Queue("image"); !ok || err != nil {
			t.Fatal(ok, err)
		}
		time.Sleep(10 * time.Second)
		e.wantIDs()
		if info, _ := e.Image("image"); !strings.Contains(info.Error, "sha256") {
			t.Errorf("the image is %s because of %q", info.State, info.Error)
		}
		e.origin.mu.Lock()
		e.origin.corrupt = false
		e.origin.mu.Unlock()
		time.Sleep(10 * time.Minute)
		e.wantIDs("image")
		if q, err := e.Queued(); err != nil || len(q) > 0 {
			t.Errorf("still queued: %v, %v", q, err)
		}
	})
}

// TestPruneOfMissingFile is bug 1286240: somebody has removed the file of an
// image that a prune removes.
func TestPruneOfMissingFile(t *testing.T) {
	dir := t.TempDir()
	for _, id := range []string{"a", "b", "c"} {
		plant(t, dir, id, 1000, before(time.Hour))
	}
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		if err := os.Remove(filepath.Join(dir, "b")); err != nil {
			t.Fatal(err)
		}
		if r := e.prune(0); r.Files < 2 {
			t.Errorf("pruned %+v", r)
		}
		synctest.Wait()
		e.wantIDs()
		if u := e.Usage(); u.Bytes != 0 {
			t.Errorf("%d bytes are left", u.Bytes)
		}
	})
}

// TestPruneEdges is bug 1039854, and what Glance does at its edges: an empty
// cache, exactly the limit, images without a byte.
func TestPruneEdges(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 0, Prune: options.Prune{Interval: 100 * time.Hour}}}, func(t *testing.T, e *engine) {
		synctest.Wait() // the service prunes once at its start
		for range 2 {
			if r := e.prune(0); r != (Result{}) {
				t.Errorf("an empty cache was pruned: %+v", r)
			}
		}
		for _, id := range []string{"a", "b", "c"} {
			e.put(id, 1000)
		}
		e.put("nothing", 0)
		if r := e.prune(3000); r != (Result{}) {
			t.Errorf("at the limit %+v was pruned", r)
		}
		if r := e.prune(2999); r != (Result{1, 1000}) {
			t.Errorf("a byte above the limit %+v was pruned", r)
		}
		if r, err := e.Prune(t.Context(), PruneOptions{}); err != nil || r != (Result{2, 2000}) {
			t.Errorf("with a max_size of 0 %+v was pruned, %v", r, err)
		}
		e.wantIDs("nothing")
	})
}

// TestEmptyImageIsCached is bug 900959: an image of no bytes is one.
func TestEmptyImageIsCached(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "adopted", 0, before(time.Hour))
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		for _, want := range []bool{false, true} {
			if got, outcome := e.download("fetched"); len(got) != 0 || outcome.Hit != want {
				t.Errorf("%d bytes; a hit: %v, want %v", len(got), outcome.Hit, want)
			}
		}
		if _, outcome := e.download("adopted"); !outcome.Hit {
			t.Error("the adopted empty image is not served")
		}
		for _, id := range []string{"adopted", "fetched"} {
			if info, _ := e.Image(id); info.State != StateCached || info.Size != 0 || info.Hits != 1 {
				t.Errorf("%+v, want an image of 0 bytes and one hit", info)
			}
		}
	})
}

// TestUnknownIDs asks for, and removes, what is not there. Deleting an image
// leaves its place in the queue and another program's partial file alone.
func TestUnknownIDs(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "incomplete/foreign", 10, before(time.Hour))
	plant(t, dir, "queue/queued", 0, before(time.Hour))
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.mu.Lock()
		e.origin.missing = "queued"
		e.origin.mu.Unlock()
		for range 2 {
			for _, id := range []string{"nothing", "foreign", "queued"} {
				if err := e.Delete(t.Context(), id); err != nil {
					t.Errorf("delete %s: %v", id, err)
				}
			}
			if err := e.Unqueue("nothing"); err != nil {
				t.Errorf("unqueue: %v", err)
			}
		}
		if n, err := e.DeleteAll(t.Context()); n != 0 || err != nil {
			t.Errorf("delete all: %d, %v", n, err)
		}
		if !e.store.HasForeign("foreign") || !e.store.Queued("queued") {
			t.Error("the partial file or the queue entry is gone")
		}
		if info, err := e.Image("nothing"); err != nil || info.State != StateAbsent || info.Size != -1 || info.Hits != 0 {
			t.Errorf("an unknown image is %+v, %v", info, err)
		}
		if _, err := e.OpenCached(t.Context(), "nothing"); !errors.Is(err, ErrNotFound) {
			t.Errorf("the bytes of an unknown image: %v", err)
		}
	})
}

// TestCleanRules is what stalled means: longer than the stall time ago, to the
// nanosecond; invalid files go whatever their age; images and queue stay.
func TestCleanRules(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "image", 10, before(1000*time.Hour))
	plant(t, dir, "queue/queued", 0, before(1000*time.Hour))
	plant(t, dir, "invalid/new", 1, before(0))
	plant(t, dir, "incomplete/at-the-limit", 2, before(time.Hour))
	plant(t, dir, "incomplete/above", 4, before(time.Hour+time.Nanosecond))
	plant(t, dir, "incomplete/now", 8, before(0))
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard, StallTime: time.Hour}}, func(t *testing.T, e *engine) {
		e.origin.mu.Lock()
		e.origin.down = true
		e.origin.mu.Unlock()
		zero := time.Duration(0)
		for _, tt := range []struct {
			stall *time.Duration
			want  Result
			pause time.Duration
		}{
			{nil, Result{2, 5}, time.Nanosecond}, // new, above
			{&zero, Result{2, 10}, 0},
			{&zero, Result{}, 0},
		} {
			if r, err := e.Clean(t.Context(), tt.stall); err != nil || r != tt.want {
				t.Errorf("cleaned %+v, %v; want %+v", r, err, tt.want)
			}
			time.Sleep(tt.pause)
		}
		e.wantIDs("image")
		e.wantQueued("queued")
		if ok, err := e.Queue("now"); !ok || err != nil {
			t.Errorf("an image whose foreign file is gone cannot be queued: %v, %v", ok, err)
		}
	})
}

// TestUnreadableImage: a file of Glance's that this process may not open is no
// sign of a bad disk. The image is fetched, and replaces it.
func TestUnreadableImage(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "image", 10, before(time.Hour))
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		synctest.Wait()
		fsys := storetest.New(t, dir)
		fsys.Inject(storetest.On("image", 1, syscall.EACCES))
		e.fsys.FS = fsys
		e.origin.data = []byte("content")
		for _, want := range []bool{false, true} {
			if got, outcome := e.download("image"); got != "content" || outcome.Hit != want {
				t.Errorf("downloaded %q; a hit: %v, want %v", got, outcome.Hit, want)
			}
		}
		if u := e.Usage(); u.Disk != "ok" || u.Bytes != 7 {
			t.Errorf("the disk is %q, %d bytes are used", u.Disk, u.Bytes)
		}
		if info, _ := e.Image("image"); !info.Verified {
			t.Error("the image is not verified")
		}
	})
}
