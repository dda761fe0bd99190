package cache

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
)

// refreshing is a cache whose images are trusted for an hour.
func refreshing(t *testing.T, test func(t *testing.T, e *engine)) {
	t.Helper()
	cfg := Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, AdmitAfter: 1, Fill: options.Fill{KeepFilling: true}}}
	inEngine(t, cfg, func(t *testing.T, e *engine) {
		e.origin.terms.RevalidateAfter, e.origin.terms.NegativeTTL = time.Hour, time.Minute
		e.origin.data, e.origin.version, e.origin.size = bytes.Repeat([]byte("a"), 2<<20), `"a"`, true
		if _, err := e.Refresh(t.Context(), "image"); err != nil {
			t.Fatal(err)
		}
		test(t, e)
	})
}

// replace gives the origin another version.
func (e *engine) replace(letter string) {
	e.origin.mu.Lock()
	defer e.origin.mu.Unlock()
	e.origin.data, e.origin.version = bytes.Repeat([]byte(letter), 3<<20), `"`+letter+`"`
}

// wantLetter reads the image as a client does.
func (e *engine) wantLetter(ctx context.Context, letter string) {
	e.t.Helper()
	k, err := e.Open(ctx, "image")
	if err != nil {
		e.t.Error(err)
		return
	}
	defer k.Close()
	var got bytes.Buffer
	if _, err := k.CopyTo(ctx, &got, 0, -1); err != nil || got.Len() == 0 || len(bytes.Trim(got.Bytes(), letter)) > 0 {
		e.t.Errorf("%d bytes, %v, want those of %s", got.Len(), err, letter)
	}
}

// TestRefreshBringsWhatChanged and asks once, however lately that was done.
func TestRefreshBringsWhatChanged(t *testing.T) {
	refreshing(t, func(t *testing.T, e *engine) {
		asked, opens := e.origin.asked, e.origin.opens
		if i, err := e.Refresh(t.Context(), "image"); err != nil || i.State != StateCached || i.Version != `"a"` {
			t.Errorf("%+v, %v", i, err)
		}
		if e.origin.asked != asked+1 || e.origin.opens != opens {
			t.Errorf("%d questions, %d transfers, want one and none", e.origin.asked-asked, e.origin.opens-opens)
		}
		e.replace("b")
		e.wantLetter(t.Context(), "a") // nobody asks
		if i, err := e.Refresh(t.Context(), "image"); err != nil || i.State != StateCached || i.Version != `"b"` {
			t.Errorf("%+v, %v", i, err)
		}
		e.wantLetter(t.Context(), "b")
		e.replace("c")
		e.wantLetter(WithFresh(t.Context()), "c")
	})
}

// TestRefreshLeavesTheOldOne where the new one cannot be had.
func TestRefreshLeavesTheOldOne(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(o *fakeOrigin)
		want  error
	}{
		"the origin is away":       {func(o *fakeOrigin) { o.down = true }, origin.ErrUnavailable},
		"it sends the wrong bytes": {func(o *fakeOrigin) { o.digest, o.corrupt = true, true }, ErrVerify},
		"it breaks off for good":   {func(o *fakeOrigin) { o.cuts = 1 << 20 }, origin.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			refreshing(t, func(t *testing.T, e *engine) {
				e.replace("b")
				e.origin.mu.Lock()
				c.spoil(e.origin)
				e.origin.mu.Unlock()
				if _, err := e.Refresh(t.Context(), "image"); !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				e.wantLetter(t.Context(), "a")
			})
		})
	}
}

// TestRefreshForgetsThatAnImageWasAbsent, and so does a client that wants a fresh
// one.
func TestRefreshForgetsThatAnImageWasAbsent(t *testing.T) {
	refreshing(t, func(t *testing.T, e *engine) {
		for name, ask := range map[string]func() error{
			"refresh": func() error {
				_, err := e.Refresh(t.Context(), "late")
				return err
			},
			"client": func() error {
				k, err := e.Open(WithFresh(t.Context()), "late")
				if err == nil {
					err = k.Close()
				}
				return err
			},
		} {
			if err := e.Delete(t.Context(), "late"); err != nil {
				t.Fatal(err)
			}
			e.origin.missing = "late"
			if _, err := e.Open(t.Context(), "late"); !errors.Is(err, origin.ErrNotFound) {
				t.Errorf("%s: %v before the image is there", name, err)
			}
			e.origin.missing = ""
			if _, err := e.Open(t.Context(), "late"); !errors.Is(err, origin.ErrNotFound) {
				t.Errorf("%s: %v, although it was absent just now", name, err)
			}
			if err := ask(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
	})
}

// TestWhoLeavesStopsNoRefresh: the transfer goes on.
func TestWhoLeavesStopsNoRefresh(t *testing.T) {
	refreshing(t, func(t *testing.T, e *engine) {
		e.replace("b")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := e.Refresh(ctx, "image"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Minute)
		e.wantLetter(t.Context(), "b")
	})
}
