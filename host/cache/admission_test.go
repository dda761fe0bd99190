package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
)

// as makes requests of a client.
func (e *engine) as(client, id string) Outcome {
	e.t.Helper()
	k, err := e.Open(WithClient(e.t.Context(), client), id)
	if err != nil {
		e.t.Fatalf("open %s: %v", id, err)
	}
	defer k.Close()
	var got strings.Builder
	if _, err := k.CopyTo(e.t.Context(), &got, 0, -1); err != nil || got.String() != string(e.origin.data) {
		e.t.Fatalf("%s: %d bytes, %v", id, got.Len(), err)
	}
	return k.Outcome()
}

// TestAdmitAfter: an image is stored from a certain request on, and one that
// was queued or pinned at once.
func TestAdmitAfter(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 3, Fill: options.Fill{KeepFilling: true}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		for n := 1; n <= 4; n++ {
			if _, err := e.Stat(t.Context(), "image"); err != nil { // does not count
				t.Fatal(err)
			}
			o := e.as("", "image")
			time.Sleep(time.Minute)
			info, err := e.Image("image")
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case o.Stored != (n == 3), o.Hit != (n == 4), (info.State == StateCached) != (n >= 3):
				t.Errorf("request %d: %+v, then %s", n, o, info.State)
			case n < 3 && !strings.Contains(info.Error, fmt.Sprintf("request %d of the 3 of admit_after", n)):
				t.Errorf("request %d: the reason is %q", n, info.Error)
			}
		}
		if _, err := e.Queue("queued"); err != nil {
			t.Fatal(err)
		}
		e.pin("pinned", 0)
		e.as("", "pinned")
		time.Sleep(time.Minute)
		e.wantIDs("image", "pinned", "queued")
		if e.Usage().Disk != "ok" {
			t.Errorf("the disk is %s", e.Usage().Disk)
		}
	})
}

// TestAdmissionForgets: what is counted is bounded.
func TestAdmissionForgets(t *testing.T) {
	a := admission{after: 2}
	for i := range 3 * remembered {
		if err := a.ask(fmt.Sprint(i), ""); !errors.Is(err, errNotAdmitted) {
			t.Fatalf("image %d is admitted at once", i)
		}
		if n := len(a.asked) + len(a.before); n > 2*remembered {
			t.Fatalf("%d images are counted", n)
		}
	}
	if err := a.ask(fmt.Sprint(3*remembered-1), ""); err != nil {
		t.Errorf("the second request: %v", err)
	}
	if err := a.ask("0", ""); err == nil {
		t.Error("a request of long ago counts")
	}
}

// TestColdPerClient: a client that scans has a few images stored at once, and
// the others passed through; another client is not bothered.
func TestColdPerClient(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true, ColdPerClient: 2}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		outcomes := make(chan Outcome)
		for i := range 6 {
			go func() { outcomes <- e.as("scanner", fmt.Sprint("scanned", i)) }()
		}
		go func() { outcomes <- e.as("other", "image") }()
		go func() { outcomes <- e.as("", "local") }()
		stored := 0
		for range 8 {
			if o := <-outcomes; o.Stored {
				stored++
			} else if o.Detail != DetailColdPerClient {
				t.Errorf("the detail is %q", o.Detail)
			}
		}
		time.Sleep(time.Minute)
		if n := len(e.Images()); stored != 4 || n != 4 {
			t.Errorf("%d images were to be stored, %d are, want 2 of the scanner and 2 others", stored, n)
		}
		e.as("scanner", "later")
		time.Sleep(time.Minute)
		if _, err := e.store.Stat("later"); err != nil {
			t.Errorf("once its fills were over: %v", err)
		}
	})
}

// TestMaxImageSize: a larger image passes through, whether its size is known
// or shows itself.
func TestMaxImageSize(t *testing.T) {
	for _, known := range []bool{true, false} {
		inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, MaxImageSize: 4 << 20, Fill: options.Fill{KeepFilling: true}}}, func(t *testing.T, e *engine) {
			e.origin.size = known
			e.origin.data = bigContent(1)
			if o := e.as("", "large"); o.Stored && known {
				t.Errorf("it is to be stored: %+v", o)
			}
			e.origin.data = e.origin.data[:4<<20]
			if o := e.as("", "small"); !o.Stored {
				t.Errorf("%+v", o)
			}
			time.Sleep(time.Minute)
			e.wantIDs("small")
			e.wantPartial(0)
			if info, _ := e.Image("large"); !strings.Contains(info.Error, "larger than the 4194304 bytes of max_image_size") {
				t.Errorf("the reason is %q", info.Error)
			}
		})
	}
}

// withDisk gives the cache a disk of so many bytes, of which others use some.
func (e *engine) withDisk(capacity int64, others *atomic.Int64) (free func() int64) {
	free = func() int64 {
		used := others.Load()
		_ = filepath.WalkDir(e.dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if info, err := d.Info(); err == nil && info.Size() > 4096 { // not our own small files
					used += info.Size()
				}
			}
			return nil
		})
		return capacity - used
	}
	e.fsys.free.Store(&free)
	e.Cache.free.Stale()
	return free
}

// TestMinFree: a part of the file system stays free, whoever fills the rest;
// images leave for that, and no more than need be.
func TestMinFree(t *testing.T) {
	const mib = 1 << 20
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 40, Limit: options.LimitHard, Prune: options.Prune{MinFree: 10 * mib}, Fill: options.Fill{KeepFilling: true}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)[:4*mib]
		var others atomic.Int64
		free := e.withDisk(40*mib, &others)
		for i := range 12 { // 7 fit, and 2 MiB are left over
			e.as("", fmt.Sprint("i", i))
			time.Sleep(time.Minute)
			if free := free(); free < 10*mib {
				t.Errorf("after %d images %d bytes are free", i+1, free)
			}
		}
		if n := len(e.Images()); n != 7 {
			t.Errorf("%d images are kept, want 7", n)
		}
		others.Store(7 * mib) // two images must leave
		time.Sleep(2 * time.Minute)
		if n, free := len(e.Images()), free(); n != 5 || free != 13*mib {
			t.Errorf("%d images are kept and %d bytes are free, want 5 and 13 MiB", n, free)
		}
		others.Store(35 * mib) // more than all images are
		if o := e.as("", "through"); o.Hit {
			t.Error("a hit of nothing")
		}
		if info, _ := e.Image("through"); !strings.Contains(info.Error, "min_free") {
			t.Errorf("the reason is %q", info.Error)
		}
		if u := e.Usage(); u.Disk != "ok" || u.MinFree != 10*mib {
			t.Errorf("usage %+v", u)
		}
	})
}

// TestMinFreeOfManyFills: fills that begin at once do not promise the same
// bytes to each.
func TestMinFreeOfManyFills(t *testing.T) {
	const mib = 1 << 20
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 40, Limit: options.LimitHard, Prune: options.Prune{MinFree: 10 * mib}, Fill: options.Fill{KeepFilling: true}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)[:4*mib]
		var others atomic.Int64
		free := e.withDisk(24*mib, &others)
		done := make(chan error)
		for i := range 10 {
			go func() {
				_, _, err := e.get(fmt.Sprint("i", i))
				done <- err
			}()
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for ctx.Err() == nil {
				if free := free(); free < 10*mib {
					t.Errorf("%d bytes are free", free)
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
		for range 10 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		cancel()
		time.Sleep(time.Minute)
		if n := len(e.Images()); n == 0 || n > 3 {
			t.Errorf("%d images are kept", n)
		}
	})
}
