package cache

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
)

// TestQueueTellsFailures: an image that cannot be fetched is tried again, ever
// later, and the queue says how often, why, and when.
func TestQueueTellsFailures(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 1000)
		e.origin.missing = "poison"
		entry := func() QueueEntry {
			t.Helper()
			entries, err := e.Queued()
			if err != nil || len(entries) != 1 || entries[0].ID != "poison" {
				t.Fatalf("queued is %+v, %v; want the poison alone", entries, err)
			}
			return entries[0]
		}
		if _, err := e.Queue("poison"); err != nil {
			t.Fatal(err)
		}
		for _, after := range []struct {
			pause time.Duration
			tries int
		}{{0, 1}, {time.Second, 2}, {2 * time.Second, 3}, {4 * time.Second, 4}, {20 * time.Minute, 12}} {
			time.Sleep(after.pause + 100*time.Millisecond)
			now := e.cfg.Now()
			q := entry()
			if q.Tries != after.tries || !strings.Contains(q.Error, "not found") || !q.Next.After(now) || q.Next.Sub(now) > maxPrefetchRetry {
				t.Errorf("at %v the entry is %+v, want %d tries", now, q, after.tries)
			}
		}
		if ok, err := e.Queue("poison"); ok || err != nil {
			t.Errorf("what is queued was queued: %v, %v", ok, err)
		}
		time.Sleep(100 * time.Millisecond)
		if q := entry(); q.Tries != 1 {
			t.Errorf("asked for again, the entry is %+v, want one try", q)
		}
		for _, unqueue := range []func() error{
			func() error { return e.Unqueue("poison") },
			func() error { _, err := e.UnqueueAll(); return err },
		} {
			if err := unqueue(); err != nil {
				t.Fatal(err)
			}
			e.wantQueued()
			time.Sleep(time.Minute)
			e.queue.mu.Lock()
			n := len(e.queue.retries)
			e.queue.mu.Unlock()
			if n != 0 {
				t.Errorf("%d failures of what is not queued are remembered", n)
			}
			if _, err := e.Queue("poison"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second / 2) // between two tries: during one the image is being filled
		}
		if err := e.Unqueue("poison"); err != nil {
			t.Fatal(err)
		}
		e.origin.mu.Lock()
		e.origin.missing = ""
		e.origin.mu.Unlock()
		if ok, err := e.Queue("poison"); !ok || err != nil {
			t.Errorf("queue: %v, %v", ok, err)
		}
		time.Sleep(time.Minute)
		e.wantIDs("poison")
		e.wantQueued()
	})
}

// TestQueueResumesInOrder: a restart in the middle changes neither what is
// fetched nor in which order.
func TestQueueResumesInOrder(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Prefetch: options.Prefetch{Workers: 1}}}, func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 3_000_000)
		e.origin.missing = "poison"
		want := []string{"f", "e", "d", "c", "b", "a"}
		for _, id := range append([]string{"poison"}, want...) {
			if ok, err := e.Queue(id); !ok || err != nil {
				t.Fatalf("queue %s: %v, %v", id, ok, err)
			}
		}
		time.Sleep(2 * time.Second)
		if n := len(e.ids()); n == 0 || n == len(want) {
			t.Fatalf("%d images are cached before the restart, which is to come in the middle", n)
		}
		e.shut()
		e.open()
		time.Sleep(time.Minute)
		e.wantIDs("a", "b", "c", "d", "e", "f")
		e.wantQueued("poison")
		var got []string
		for _, m := range regexp.MustCompile(`msg=cached image=(\w)`).FindAllStringSubmatch(e.log.String(), -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("cached in the order %v, want %v", got, want)
		}
	})
}
