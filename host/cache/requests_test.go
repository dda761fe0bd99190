package cache

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

// watcher notes the requests that it is told of.
type watcher struct {
	mu   sync.Mutex
	list []trace.Access
}

func (w *watcher) add(a trace.Access) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, a)
}

// wants fails the test unless these requests, and no others, were told since
// the last time: the images and what came of them.
func (w *watcher) wants(t *testing.T, what string, size int, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	names := map[sdk.Key]string{}
	for _, id := range []string{"a", "b", "c", "d"} {
		names[sdk.KeyOf(id)] = id
	}
	var got []string
	for i, r := range w.list {
		got = append(got, fmt.Sprint(names[r.Key], " ", map[trace.Outcome]string{trace.Hit: "hit", trace.Stored: "stored", trace.Passed: "passed"}[r.Outcome]))
		if r.Size != uint64(size) || i > 0 && r.At <= w.list[i-1].At {
			t.Errorf("%s: request %d is %+v after %+v", what, i, r, w.list[max(0, i-1)])
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
	w.list = nil
}

// TestRequestsAreTold: each request of a client is told once, with what came of
// it, and nothing else is.
func TestRequestsAreTold(t *testing.T) {
	w := &watcher{}
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, MaxImageSize: 4 << 20, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true}}, Watch: w.add}, func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 3<<20)
		get := func(id string) {
			t.Helper()
			if _, _, err := e.get(id); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		get("a")
		get("a")
		get("b")
		w.wants(t, "one after another", 3<<20, "a stored", "a hit", "b stored")

		e.finish(e.begun("", "c", true), e.begun("", "c", true))
		get("c")
		w.wants(t, "together", 3<<20, "c stored", "c hit", "c hit")

		if _, err := e.Stat(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		e.put("written", 10)
		if _, err := e.Queue("queued"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		e.origin.missing = "none"
		if _, _, err := e.get("none"); err == nil {
			t.Error("an image that the origin does not have was served")
		}
		w.wants(t, "what is no request", 0)

		e.origin.data = make([]byte, 5<<20)
		get("d")
		get("d")
		w.wants(t, "too large to be stored", 5<<20, "d passed", "d passed")
	})
}
