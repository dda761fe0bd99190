package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store/storetest"
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
		}{{0, 1}, {time.Second, 2}, {2 * time.Second, 3}, {4 * time.Second, 4}, {20 * time.Minute, 11}} {
			time.Sleep(after.pause + 100*time.Millisecond)
			now := e.cfg.Now()
			q := entry()
			if q.Tries != after.tries || !strings.Contains(q.Error, "not found") || !q.Next.After(now) || q.Next.Sub(now) > mostRetryOfAll {
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
			if _, err := e.Queue("poison"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second / 2) // between two tries: during one the image is being filled
			if q := entry(); q.Tries != 1 {
				t.Errorf("queued anew, the entry is %+v, want one try", q)
			}
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

// queueing is the configuration of a service that fetches queued images.
func queueing(workers int) Config {
	return Config{Options: options.Options{
		MaxSize: 1 << 30, Limit: options.LimitHard,
		Prefetch: options.Prefetch{Workers: workers, MinRate: 1024}, Fill: options.Fill{KeepFilling: true},
	}}
}

// markers puts images into the queue as somebody else does, in this order.
func (e *engine) markers(ids ...string) {
	e.t.Helper()
	for i, id := range ids {
		name := filepath.Join(e.dir, "queue", id)
		at := time.Unix(int64(i+1), 0)
		if err := errors.Join(os.WriteFile(name, nil, 0o640), os.Chtimes(name, at, at)); err != nil {
			e.t.Fatal(err)
		}
	}
}

func numbered(word string, n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s-%d", word, i))
	}
	return ids
}

// TestDeadNamesDoNotStarveGoodOnes: every image is tried once before any is tried
// again, the directory is listed now and then and not at each step, each marker is
// looked at a few times in all, and the log has a line a minute.
func TestDeadNamesDoNotStarveGoodOnes(t *testing.T) {
	const dead = 6000
	inEngineAt(t, storetest.MemoryDir(t), queueing(2), func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 1000)
		e.origin.missing = "dead-*"
		e.markers(append(numbered("dead", dead), "good")...)
		e.fsys.listed.Store(0)
		begun := time.Now()
		for e.index.Get("good") == nil && time.Since(begun) < time.Hour {
			time.Sleep(10 * time.Millisecond)
		}
		e.origin.mu.Lock()
		asked := e.origin.asked
		e.origin.mu.Unlock()
		if asked > dead+2 || e.index.Get("good") == nil {
			t.Errorf("after %v and %d questions for %d images the good one is cached: %v", time.Since(begun), asked, dead+1, e.index.Get("good") != nil)
		}
		e.fsys.looked.Store(0)
		time.Sleep(10 * time.Minute)
		e.origin.mu.Lock()
		tries := e.origin.asked - asked
		e.origin.mu.Unlock()
		if tries < dead {
			t.Fatalf("%d tries in ten minutes: this test sees nothing", tries)
		}
		took := time.Since(begun)
		if listed, most := e.fsys.listed.Load(), 2+int64(took/queuePoll)+4*int64(took/time.Minute); listed > most {
			t.Errorf("directories were listed %d times in %v, want %d at most", listed, took, most)
		}
		if looks := e.fsys.looked.Load(); looks > int64(10*tries) {
			t.Errorf("%d looks at files for %d tries", looks, tries)
		}
		if lines := strings.Count(e.log.String(), "level=WARN"); lines > 1+int(took/tallyTime) {
			t.Errorf("the log has %d warnings in %v:\n%.2000s", lines, took, e.log)
		}
		if !strings.Contains(e.log.String(), `reasons="not found: `) || strings.Contains(e.log.String(), "image=dead-") {
			t.Errorf("the log does not sum up, or names each:\n%.2000s", e.log)
		}
	})
}

// TestIdleQueueDoesNothing: what cannot be fetched costs next to nothing in the
// end, however much of it there is.
func TestIdleQueueDoesNothing(t *testing.T) {
	inEngineAt(t, storetest.MemoryDir(t), queueing(2), func(t *testing.T, e *engine) {
		e.origin.missing = "dead-*"
		e.markers(numbered("dead", 5)...)
		time.Sleep(2 * 24 * time.Hour)
		e.origin.mu.Lock()
		asked := e.origin.asked
		e.origin.mu.Unlock()
		time.Sleep(24 * time.Hour)
		e.origin.mu.Lock()
		tries := e.origin.asked - asked
		e.origin.mu.Unlock()
		if tries != 5 {
			t.Errorf("5 dead images cost %d questions a day, want one each", tries)
		}
	})
}

// TestWrongDigestIsNotFetchedForEver: the same bytes with the same digest will not
// fit the next time either.
func TestWrongDigestIsNotFetchedForEver(t *testing.T) {
	inEngine(t, queueing(1), func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 3_000_000)
		e.origin.digest, e.origin.corrupt = true, true
		transfers := func() int {
			e.origin.mu.Lock()
			defer e.origin.mu.Unlock()
			return e.origin.opens
		}
		if _, err := e.Queue("poison"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(35 * time.Second)
		if n := transfers(); n != 1 {
			t.Errorf("%d transfers in 35 s", n)
		}
		time.Sleep(24 * time.Hour)
		first := transfers()
		if first > 12 {
			t.Errorf("%d transfers in a day", first)
		}
		time.Sleep(2 * 24 * time.Hour)
		if n := transfers() - first; n > 3 {
			t.Errorf("%d transfers in two days more", n)
		}
		entries, err := e.Queued()
		if err != nil || len(entries) != 1 || entries[0].Tries != transfers() || entries[0].Next.IsZero() || !strings.Contains(entries[0].Error, "verification failed") {
			t.Errorf("the queue says %+v, %v", entries, err)
		}
		before := transfers()
		if ok, err := e.Queue("poison"); ok || err != nil {
			t.Errorf("queue: %v, %v", ok, err)
		}
		time.Sleep(5 * time.Second)
		if n := transfers() - before; n != 1 {
			t.Errorf("queued again it was fetched %d times at once, want once", n)
		}
		e.origin.mu.Lock()
		e.origin.corrupt = false
		e.origin.mu.Unlock()
		if n, err := e.RetryQueued(); n != 1 || err != nil {
			t.Errorf("retry: %d, %v", n, err)
		}
		time.Sleep(5 * time.Second)
		e.wantIDs("poison")
		e.wantQueued()
	})
}

// TestTrickleGivesItsPlaceBack: transfers that never stall and never end keep no
// good image waiting, and are gone on with where they stood.
func TestTrickleGivesItsPlaceBack(t *testing.T) {
	for name, flows := range map[string]int{"from the start": 0, "after some blocks": 2_500_000} {
		t.Run(name, func(t *testing.T) {
			inEngine(t, queueing(2), func(t *testing.T, e *engine) {
				e.origin.data = make([]byte, 5_000_000)
				e.origin.trickle, e.origin.flows = "trickle-*", flows
				for _, id := range []string{"trickle-0", "trickle-1", "good"} {
					if ok, err := e.Queue(id); !ok || err != nil {
						t.Fatalf("queue %s: %v, %v", id, ok, err)
					}
				}
				time.Sleep(time.Duration(1+min(flows, 1))*paceWindow + 15*time.Second)
				e.wantIDs("good")
				e.wantQueued("trickle-0", "trickle-1")
				for _, q := range e.queue.entries() {
					if q.Tries != 1 || !strings.Contains(q.Error, "min_rate of prefetch") {
						t.Errorf("the queue says %+v", q)
					}
				}
				parked := len(e.parked.list())
				if want := min(flows, 2); parked != want {
					t.Errorf("%d partial files are kept, want %d", parked, want)
				}
				e.origin.mu.Lock()
				e.origin.trickle = ""
				sent := e.origin.sent
				e.origin.mu.Unlock()
				time.Sleep(5 * time.Minute)
				e.wantIDs("good", "trickle-0", "trickle-1")
				e.origin.mu.Lock()
				defer e.origin.mu.Unlock()
				if more := e.origin.sent - sent; flows > 0 && more > 2*3_100_000 {
					t.Errorf("%d bytes were sent for the rest of two images of 5 MB", more)
				}
			})
		})
	}
}

// TestTrickleKeepsItsClients: who follows a transfer that the queue gives up goes
// on with it.
func TestTrickleKeepsItsClients(t *testing.T) {
	inEngine(t, queueing(1), func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 1_000_000)
		e.origin.trickle, e.origin.flows = "trickle", 1_000_000-300
		for _, id := range []string{"trickle", "good"} {
			if _, err := e.Queue(id); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		got, out, err := e.get("trickle")
		if err != nil || len(got) != 1_000_000 || !out.Collapsed {
			t.Errorf("the client got %d bytes, %+v, %v", len(got), out, err)
		}
		time.Sleep(time.Second)
		e.wantIDs("good", "trickle")
		e.wantQueued()
		if e.origin.opens != 2 {
			t.Errorf("%d transfers were begun, want one for each image", e.origin.opens)
		}
	})
}

// TestMarkersOfOthers: what others queue is fetched, and what they take out is not.
func TestMarkersOfOthers(t *testing.T) {
	inEngine(t, queueing(1), func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 1000)
		e.origin.missing = "dead"
		e.markers("dead", "theirs")
		time.Sleep(queuePoll + 2*time.Second)
		e.wantIDs("theirs")
		e.wantQueued("dead")
		if err := os.Remove(filepath.Join(e.dir, "queue", "dead")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(queuePoll + time.Second)
		e.origin.mu.Lock()
		asked := e.origin.asked
		e.origin.mu.Unlock()
		time.Sleep(time.Hour)
		e.origin.mu.Lock()
		defer e.origin.mu.Unlock()
		if e.origin.asked != asked || e.Usage().Queued != 0 {
			t.Errorf("%d questions for an image that is not queued, of %d", e.origin.asked-asked, e.Usage().Queued)
		}
	})
}

// TestQueueIsNotAcknowledgedUnwritten: where the marker cannot be written the image
// is not queued.
func TestQueueIsNotAcknowledgedUnwritten(t *testing.T) {
	inEngine(t, queueing(1), func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 1000)
		e.fsys.setOdds(1)
		if ok, err := e.Queue("a"); ok || err == nil {
			t.Errorf("queued without a marker: %v, %v", ok, err)
		}
		e.fsys.setOdds(0)
		time.Sleep(time.Minute)
		e.wantIDs()
		e.wantQueued()
	})
}

// TestPrefetchSeesNewImages: that an image was not there a moment ago is no reason
// not to ask for it.
func TestPrefetchSeesNewImages(t *testing.T) {
	for name, terms := range map[string]origin.Terms{"remembered": {NegativeTTL: time.Hour}, "not remembered": {}} {
		t.Run(name, func(t *testing.T) {
			inEngine(t, queueing(1), func(t *testing.T, e *engine) {
				e.origin.data, e.origin.missing, e.origin.terms = make([]byte, 1000), "late", terms
				if _, _, err := e.get("late"); !errors.Is(err, ErrNotFound) {
					t.Fatal(err)
				}
				e.origin.mu.Lock()
				e.origin.missing = ""
				e.origin.mu.Unlock()
				if ok, err := e.Queue("late"); !ok || err != nil {
					t.Fatal(ok, err)
				}
				time.Sleep(time.Second)
				if got, _, err := e.get("late"); len(got) != 1000 || err != nil {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
		})
	}
}

// TestPausesOfFailures: what mends itself is tried soon, what will fail again ever
// more rarely, and nothing never.
func TestPausesOfFailures(t *testing.T) {
	for _, tt := range []struct {
		err         error
		word        string
		first, most time.Duration
	}{
		{fmt.Errorf("%w: sha256", ErrVerify), "wrong bytes", time.Minute, 24 * time.Hour},
		{fmt.Errorf("%w of prefetch", origin.ErrSlow), "too slow", time.Minute, 24 * time.Hour},
		{origin.ErrDenied, "denied", time.Second, 24 * time.Hour},
		{origin.ErrNotFound, "not found", time.Second, 24 * time.Hour},
		{notStored(t.Context(), errNotAdmitted), "not admitted", time.Minute, 24 * time.Hour},
		{notStored(t.Context(), ErrNoSpace), "no room", time.Minute, time.Hour},
		{notStored(t.Context(), diskError{errors.New("EIO")}), "the disk failed", time.Second, 5 * time.Minute},
		{origin.ErrUnavailable, "unavailable", time.Second, 5 * time.Minute},
		{errors.New("new"), "other", time.Second, 5 * time.Minute},
	} {
		kind := kindOf(tt.err)
		if kind.word != tt.word || kind.pause(0) != tt.first || kind.pause(1) != 2*tt.first || kind.pause(1<<40) != tt.most {
			t.Errorf("%v: %q, pauses %v, %v and in the end %v", tt.err, kind.word, kind.pause(0), kind.pause(1), kind.pause(1<<40))
		}
	}
}
