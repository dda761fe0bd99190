package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/cache/options"
)

// begun opens an image for a client and fails the test unless it is stored, or
// is not, as wanted.
func (e *engine) begun(client, id string, stored bool) Content {
	e.t.Helper()
	k, err := e.Open(WithClient(e.t.Context(), client), id)
	if err != nil {
		e.t.Fatal(err)
	}
	if out := k.Outcome(); out.Stored && !stored || stored != (out.Detail == "") {
		e.t.Errorf("%s for %q: %+v, want it stored: %v", id, client, out, stored)
	}
	return k
}

// finish reads the whole image and fails the test unless all of it came.
func (e *engine) finish(list ...Content) {
	e.t.Helper()
	for _, k := range list {
		got := comparer{want: e.origin.data}
		if _, err := k.CopyTo(e.t.Context(), &got, 0, -1); err != nil || !got.right() {
			e.t.Errorf("%s: %d bytes, right %v, %v", k.Info().ID, got.n, got.right(), err)
		}
		if out := k.Outcome(); !out.Hit && out.Stored != (out.Detail == "") {
			e.t.Errorf("%s: %+v, when every byte has come", k.Info().ID, out)
		}
		if err := k.Close(); err != nil {
			e.t.Error(err)
		}
	}
	synctest.Wait()
}

// TestPassedThroughIsNotFollowed asks for an image while it is passed through:
// the second request is the one with which it is stored, whatever became of the
// first, and the third follows it.
func TestPassedThroughIsNotFollowed(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 2, Fill: options.Fill{KeepFilling: true}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		e.origin.gate = make(chan struct{})
		opened := make(chan Content)
		for range 3 {
			go func() {
				k, err := e.Open(t.Context(), "image")
				if err != nil {
					t.Error(err)
				}
				opened <- k
			}()
			synctest.Wait()
		}
		close(e.origin.gate)
		var list []Content
		stored := 0
		for range 3 {
			k := <-opened
			if k.Outcome().Detail == "" {
				stored++
			}
			list = append(list, k)
		}
		e.finish(list...)
		e.wantIDs("image")
		if stored != 2 || e.origin.opens != 2 {
			t.Errorf("%d of three requests are stored, by %d transfers", stored, e.origin.opens)
		}
	})
}

// TestScannerBothersNobody asks for an image that is being passed through to a
// scanner.
func TestScannerBothersNobody(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true, ColdPerClient: 1}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		e.finish(
			e.begun("scanner", "a", true),
			e.begun("scanner", "b", false),
			e.begun("other", "b", true),
			e.begun("scanner", "b", true), // follows
			e.begun("", "c", true),
			e.begun("", "d", true),
		)
		e.wantIDs("a", "b", "c", "d")
	})
}

// TestClientThatLeavesTheLine counts no image on the account of a client that
// left before its turn.
func TestClientThatLeavesTheLine(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{Concurrency: 1, ColdPerClient: 1}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		first := e.begun("other", "first", true)
		ctx, leave := context.WithCancel(WithClient(t.Context(), "client"))
		time.AfterFunc(time.Millisecond, leave)
		if _, err := e.Open(ctx, "in-line"); err == nil {
			t.Error("a client that left is served")
		}
		e.finish(first)
		e.finish(e.begun("client", "second", true))
	})
}

// TestQueuedWhilePassedThrough queues an image while a client gets it passed
// through.
func TestQueuedWhilePassedThrough(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 9, Fill: options.Fill{KeepFilling: true}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		k := e.begun("", "image", false)
		if queued, err := e.Queue("image"); err != nil || !queued {
			t.Errorf("queued: %v, %v", queued, err)
		}
		time.Sleep(time.Minute)
		e.wantIDs("image")
		if q, err := e.Queued(); err != nil || len(q) > 0 {
			t.Errorf("the queue has %+v, %v", q, err)
		}
		e.finish(k)
	})
}

// TestHalfFetchedIsAdmitted goes on with what an earlier run has begun, though
// the requests of that run are forgotten.
func TestHalfFetchedIsAdmitted(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 2}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		e.finish(e.begun("", "image", false))
		k := e.begun("", "image", true)
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		_, _ = k.CopyTo(ctx, &bytes.Buffer{}, 0, -1)
		e.shut()
		k.Close()
		e.open()
		e.finish(e.begun("", "image", true))
		e.wantIDs("image")
	})
}

// TestRangesArePassedThrough asks for parts of an image that is not stored.
func TestRangesArePassedThrough(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 9}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		size := int64(len(e.origin.data))
		for _, r := range [][2]int64{{0, 10}, {3 << 20, 100}, {size - 7, 7}, {0, size}} {
			k := e.begun("", "image", false)
			var got bytes.Buffer
			_, err := k.CopyTo(t.Context(), &got, r[0], r[1])
			if err != nil || !bytes.Equal(got.Bytes(), e.origin.data[r[0]:r[0]+r[1]]) {
				t.Errorf("%d bytes from %d: %d bytes, %v", r[1], r[0], got.Len(), err)
			}
			k.Close()
			e.admission = admission{after: 9}
		}
		synctest.Wait()
		if e.origin.active != 0 {
			t.Errorf("%d transfers are still open", e.origin.active)
		}
	})
}

// TestImageGrowsTooLarge has several clients follow an image of unknown size
// that turns out to be larger than it may be.
func TestImageGrowsTooLarge(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, MaxImageSize: 4 << 20, Fill: options.Fill{KeepFilling: true}}}, func(t *testing.T, e *engine) {
		e.origin.data, e.origin.size = bigContent(1), false
		errs := make(chan error)
		for range 4 {
			go func() {
				got, _, err := e.get("image")
				if err == nil && got != string(e.origin.data) {
					err = fmt.Errorf("%d bytes", len(got))
				}
				errs <- err
			}()
		}
		for range 4 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if u := e.Usage(); u.Bytes != 0 || u.Images != 0 || u.Disk != "ok" {
			t.Errorf("usage: %+v", u)
		}
		if fetched := e.Usage().BytesFetched; fetched < uint64(len(e.origin.data)) {
			t.Errorf("%d bytes are counted as fetched", fetched)
		}
	})
}

// TestWriteTooLarge refuses to take in what would not be fetched either.
func TestWriteTooLarge(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, MaxImageSize: 1000}}, func(t *testing.T, e *engine) {
		size := int64(1001)
		if _, err := e.BeginWrite(t.Context(), WriteOptions{ID: "known", Size: &size}); !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "max_image_size") {
			t.Errorf("of known size: %v", err)
		}
		w, err := e.BeginWrite(t.Context(), WriteOptions{ID: "unknown"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.WriteData(t.Context(), w.Write, -1, bytes.NewReader(make([]byte, size))); !errors.Is(err, ErrNoSpace) {
			t.Errorf("of unknown size: %v", err)
		}
		e.put("small", 1000)
		e.wantIDs("small")
	})
}

// TestMinFreeWithWatermarks: what min_free needs leaves, and no watermark makes
// it more.
func TestMinFreeWithWatermarks(t *testing.T) {
	const mib = 1 << 20
	inEngine(t, Config{Options: options.Options{MaxSize: 100 * mib, Limit: options.LimitHard, Prune: options.Prune{HighWatermark: 0.9, LowWatermark: 0.1, MinFree: 10 * mib}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)[:4*mib]
		var others atomic.Int64
		free := e.withDisk(100*mib, &others)
		for i := range 10 {
			e.as("", fmt.Sprint("i", i))
			time.Sleep(time.Minute)
		}
		others.Store(54 * mib) // 4 MiB of min_free
		time.Sleep(2 * time.Minute)
		if n := len(e.Images()); n != 9 || free() != 10*mib {
			t.Errorf("%d images are kept and %d bytes free, want 9 and 10 MiB", n, free())
		}
		if why := e.because("i0"); !strings.Contains(why, "min_free") {
			t.Errorf("the reason is %q", why)
		}
	})
}

// TestLooksAtOnce looks at the file system twice at once: bytes that were
// claimed before are not counted as free again.
func TestLooksAtOnce(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Prune: options.Prune{MinFree: 100}}}, func(t *testing.T, e *engine) {
		slow := func() int64 {
			time.Sleep(time.Second)
			return 1000
		}
		e.fsys.free.Store(&slow)
		e.Cache.free.Stale()
		room := space.NewReservation(e.pool, e.free)
		if ok, short, err := room.Grow(900); !ok {
			t.Fatal(short, err)
		}
		time.Sleep(space.FreeAge)
		for range 2 {
			go func() {
				if short, err := e.free.Short(1); short != 1 || err != nil {
					t.Errorf("%d bytes are short, want 1; %v", short, err)
				}
			}()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		room.Release()
	})
}

// TestQueuedIsAdmitted asks for an image that waits in the queue.
func TestQueuedIsAdmitted(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 9, Fill: options.Fill{KeepFilling: true}, Prefetch: options.Prefetch{Workers: 1}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		e.origin.gate = make(chan struct{})
		for _, id := range []string{"first", "second"} {
			if _, err := e.Queue(id); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(e.origin.gate) })
		e.finish(e.begun("", "second", true))
	})
}
