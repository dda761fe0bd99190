package cache

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/sdk"
)

// bigContent is an image of several blocks.
func bigContent(seed byte) []byte {
	return bytes.Repeat([]byte{seed, 1, 2, 3, 4, 5, 6}, 6<<20/7)
}

// interrupt lets the transfer of an image break off and the origin stay away,
// so that the fill fails in the middle.
func (e *engine) interrupt(id string) {
	e.t.Helper()
	e.origin.mu.Lock()
	e.origin.cutAt = 4<<20 + 12345
	e.origin.mu.Unlock()
	k, err := e.Open(e.t.Context(), id)
	if err != nil {
		e.t.Fatal(err)
	}
	defer time.Sleep(time.Millisecond) // for the fill to put its file away
	defer k.Close()
	e.origin.setDown(true)
	if n, err := k.CopyTo(e.t.Context(), &bytes.Buffer{}, 0, -1); !errors.Is(err, origin.ErrUnavailable) {
		e.t.Fatalf("%d bytes, %v, want the origin to go away", n, err)
	}
	e.origin.setDown(false)
}

// wantWhole downloads an image and compares it with the origin's.
func (e *engine) wantWhole(id string) {
	e.t.Helper()
	if got, _, err := e.get(id); err != nil || got != string(e.origin.data) {
		e.t.Errorf("got %d bytes, right: %v, %v", len(got), got == string(e.origin.data), err)
	}
}

// wantPartial checks how many partial files lie in incomplete/ and that the
// pool counts all files right.
func (e *engine) wantPartial(n int) {
	e.t.Helper()
	list, err := e.store.Incomplete()
	if err != nil || len(list) != n {
		e.t.Errorf("%d partial files, %v, want %d", len(list), err, n)
	}
	sum := imageBytes(e.t, e.dir)
	if u := e.Usage(); u.Bytes != sum {
		e.t.Errorf("%d bytes are charged, the files have %d", u.Bytes, sum)
	}
}

// TestFillGoesOn: what was fetched before the origin went away, or before the
// service ended, is not fetched again.
func TestFillGoesOn(t *testing.T) {
	for _, tt := range []struct {
		name    string
		restart bool
		cfg     Config
	}{
		{name: "at the next request"},
		{name: "after a restart, by itself", restart: true, cfg: Config{Options: options.Options{Fill: options.Fill{KeepFilling: true}}}},
		{name: "after a restart, at the next request", restart: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.MaxSize, tt.cfg.Limit = 1<<30, options.LimitHard
			inEngine(t, tt.cfg, func(t *testing.T, e *engine) {
				e.origin.data = bigContent(1)
				e.interrupt("image")
				e.wantPartial(1)
				if tt.restart {
					e.shut()
					e.open()
				}
				if tt.cfg.Fill.KeepFilling {
					time.Sleep(time.Minute)
					e.wantIDs("image")
				}
				e.wantWhole("image")
				time.Sleep(time.Minute)
				e.wantIDs("image")
				e.wantPartial(0)
				if most := len(e.origin.data) + blockSize; e.origin.sent > most {
					t.Errorf("the origin sent %d bytes for an image of %d", e.origin.sent, len(e.origin.data))
				}
				if e.origin.opens != 1 {
					t.Errorf("%d transfers began at the start", e.origin.opens)
				}
			})
		})
	}
}

// TestShutdownKeepsFill: a fill that runs when the service ends goes on at the
// next start.
func TestShutdownKeepsFill(t *testing.T) {
	for _, fills := range []options.ShutdownFills{options.FillsCheckpoint, options.FillsAbort} {
		inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true}}, Fills: fills}, func(t *testing.T, e *engine) {
			e.origin.data = bigContent(1)
			e.origin.digest = true
			k, err := e.Open(t.Context(), "image")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				time.Sleep(1500 * time.Millisecond)
				e.Close()
			}()
			if _, err := k.CopyTo(t.Context(), &bytes.Buffer{}, 0, -1); !errors.Is(err, errStopped) {
				t.Errorf("the client was cut with %v", err)
			}
			k.Close()
			e.shut()
			e.open()
			time.Sleep(time.Minute)
			if fills == options.FillsAbort {
				e.wantIDs()
				e.wantPartial(0)
				return
			}
			e.wantIDs("image")
			if got, o, err := e.get("image"); err != nil || !o.Hit || got != string(e.origin.data) {
				t.Errorf("got %d bytes, hit %v, %v", len(got), o.Hit, err)
			}
			if most := len(e.origin.data) + 2*blockSize; e.origin.sent > most {
				t.Errorf("the origin sent %d bytes for an image of %d", e.origin.sent, len(e.origin.data))
			}
		})
	}
}

// TestResumeNeverMixes: another version at the origin is fetched whole.
func TestResumeNeverMixes(t *testing.T) {
	for _, restart := range []bool{false, true} {
		inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
			e.origin.data = bigContent(1)
			e.interrupt("image")
			e.origin.mu.Lock()
			e.origin.data, e.origin.version = bigContent(2), `"2"`
			e.origin.mu.Unlock()
			if restart {
				e.shut()
				e.open()
			}
			e.wantWhole("image")
			time.Sleep(time.Minute)
			e.wantIDs("image")
			e.wantPartial(0)
		})
	}
}

// TestResumeOfDamage: bytes that changed on disk are fetched again.
func TestResumeOfDamage(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		e.interrupt("image")
		list, err := e.store.Incomplete()
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		f, err := e.store.FS().OpenFile("test", "incomplete/"+list[0].Name, 2, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("XX"), blockSize+7); err != nil {
			t.Fatal(err)
		}
		f.Close()
		e.wantWhole("image")
		time.Sleep(time.Minute)
		e.wantIDs("image")
		e.wantPartial(0)
	})
}

// TestOriginStaysAway: a request while the origin is away fails, and costs
// nothing of what was fetched.
func TestOriginStaysAway(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		e.interrupt("image")
		e.origin.setDown(true)
		for range 3 {
			if _, _, err := e.get("image"); !errors.Is(err, sdk.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
			time.Sleep(time.Minute)
			e.wantPartial(1)
		}
		e.origin.setDown(false)
		e.wantWhole("image")
		if most := len(e.origin.data) + blockSize; e.origin.sent > most {
			t.Errorf("the origin sent %d bytes for an image of %d", e.origin.sent, len(e.origin.data))
		}
	})
}

// TestPartialFilesLeave: for room, by a delete, by clean.
func TestPartialFilesLeave(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 8 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		e.interrupt("image")
		if _, _, err := e.get("other"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		e.wantIDs("other")
		e.wantPartial(0)
		if err := e.Delete(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)

		e.interrupt("image")
		e.wantPartial(1)
		if err := e.Delete(t.Context(), "image"); err != nil {
			t.Fatal(err)
		}
		e.wantPartial(0)

		e.interrupt("image")
		list, err := e.store.Incomplete()
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		written := func(ago time.Duration) { // by the clock of the bubble
			if err := e.fsys.Chtimes("test", "incomplete/"+list[0].Name, time.Now().Add(-ago)); err != nil {
				t.Fatal(err)
			}
		}
		written(23 * time.Hour)
		if r, err := e.Clean(t.Context(), nil); err != nil || r.Files != 0 {
			t.Errorf("cleaned %+v, %v, before it was stalled", r, err)
		}
		written(25 * time.Hour)
		if r, err := e.Clean(t.Context(), nil); err != nil || r.Files != 1 {
			t.Errorf("cleaned %+v, %v", r, err)
		}
		e.wantPartial(0)
		e.wantWhole("image")
	})
}

// TestAbandonedFill: without keep_filling the partial file of a fill that
// everybody left lies in invalid/ at once.
func TestAbandonedFill(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		k, err := e.Open(ctx, "image")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.CopyTo(ctx, &bytes.Buffer{}, 0, -1); err == nil {
			t.Fatal("the client should have left")
		}
		k.Close()
		time.Sleep(time.Millisecond)
		if list, err := e.store.Invalid(); err != nil || len(list) != 1 || list[0].ID != "image" {
			t.Errorf("in invalid/ is %v, %v", list, err)
		}
		e.wantPartial(0)
		if info, _ := e.Image("image"); !strings.Contains(info.Error, "every client left") {
			t.Errorf("the reason is %q", info.Error)
		}
	})
}

// TestBoundOfFills: no more transfers at once, and no more bytes a second,
// than configured.
func TestBoundOfFills(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true, Concurrency: 2, Bandwidth: 1 << 20}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		begun := time.Now()
		results := make(chan error)
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			go func() {
				_, _, err := e.get(id)
				results <- err
			}()
		}
		for range 5 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if e.origin.most != 2 {
			t.Errorf("%d transfers ran at once, want 2", e.origin.most)
		}
		if took, least := time.Since(begun), 28*time.Second; took < least {
			t.Errorf("30 MiB took %v, want at least %v at 1 MiB/s behind the burst", took, least)
		}
	})
}

// TestNegativeAnswer: an origin is not asked again at once for what it does
// not have, unless somebody knows better.
func TestNegativeAnswer(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.missing = "image"
		e.origin.terms.NegativeTTL = 10 * time.Second
		for range 5 {
			if _, _, err := e.get("image"); !errors.Is(err, origin.ErrNotFound) {
				t.Errorf("GET: %v", err)
			}
			if _, err := e.Stat(t.Context(), "image"); !errors.Is(err, origin.ErrNotFound) {
				t.Errorf("HEAD: %v", err)
			}
			time.Sleep(time.Second)
		}
		if e.origin.asked != 1 {
			t.Errorf("the origin was asked %d times in five seconds, want once", e.origin.asked)
		}
		e.origin.missing = ""
		time.Sleep(6 * time.Second)
		if _, _, err := e.get("image"); err != nil {
			t.Errorf("after the time: %v", err)
		}

		e.origin.missing = "later"
		if _, _, err := e.get("later"); err == nil {
			t.Error("it is missing")
		}
		e.origin.missing = ""
		if _, err := e.Queue("later"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		e.wantIDs("image", "later")
	})
}

// TestOriginDown: a cached image that cannot be confirmed is served, unless
// the origin's terms forbid it.
func TestOriginDown(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data, e.origin.version = []byte("content"), `"v1"`
		if _, _, err := e.get("image"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		e.origin.setDown(true)
		if _, o, err := e.get("image"); err != nil || !o.Hit || o.Detail != "stale" {
			t.Errorf("outcome %+v, %v", o, err)
		}
		e.origin.terms.FailWhenDown = true
		if _, _, err := e.get("image"); !errors.Is(err, sdk.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		e.origin.setDown(false)
		if _, o, err := e.get("image"); err != nil || !o.Hit {
			t.Errorf("outcome %+v, %v", o, err)
		}
	})
}

// TestRangesInFill: a range waits for its bytes, or for the verdict on all.
func TestRangesInFill(t *testing.T) {
	for _, mode := range []options.RangesInFill{options.RangesStream, options.RangesVerified} {
		inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true, RangesInFill: mode}}}, func(t *testing.T, e *engine) {
			e.origin.data = bigContent(1)
			k, err := e.Open(t.Context(), "image")
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			var got bytes.Buffer
			if _, err := k.CopyTo(t.Context(), &got, 1000, 10_000); err != nil || got.String() != string(e.origin.data[1000:11_000]) {
				t.Errorf("%s: %d bytes, %v", mode, got.Len(), err)
			}
			list := e.Fills()
			if whole := len(list) == 0 || list[0].Phase == committing.String(); whole != (mode == options.RangesVerified) {
				t.Errorf("%s: the image was whole: %v", mode, whole)
			}
		})
	}
}

// TestFillsShow: what is being fetched, and what was interrupted, can be seen.
func TestFillsShow(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true, Concurrency: 1}}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(1)
		e.interrupt("broken")
		go e.get("a") //nolint:errcheck // looked at by its progress
		time.Sleep(time.Second)
		go e.get("b") //nolint:errcheck // the same
		time.Sleep(time.Second)
		list := e.Fills()
		if len(list) != 3 {
			t.Fatalf("fills %+v", list)
		}
		a, b, broken := list[0], list[1], list[2]
		if a.ID != "a" || a.Phase != "streaming" || a.Written == 0 || a.Written >= a.Size || a.Rate != a.Written/2 || a.Clients != 1 {
			t.Errorf("the first is %+v", a)
		}
		if b.ID != "b" || b.Phase != "waiting" || b.Written != 0 || b.Clients != 1 {
			t.Errorf("the second is %+v", b)
		}
		if broken.ID != "broken" || broken.Phase != "interrupted" || broken.Written < blockSize || broken.Size != a.Size {
			t.Errorf("the third is %+v", broken)
		}
		time.Sleep(time.Minute)
		if list := e.Fills(); len(list) != 1 {
			t.Errorf("at the end: %+v", list)
		}
	})
}
