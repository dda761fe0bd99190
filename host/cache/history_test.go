package cache

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
)

// story returns what happened to an image in one line.
func (e *engine) story(id string) string {
	e.t.Helper()
	info, err := e.Image(id)
	if err != nil {
		e.t.Fatal(err)
	}
	var words []string
	for _, ev := range info.History {
		words = append(words, ev.Event)
	}
	return strings.Join(words, ", ")
}

// because returns the reason of the last event of an image.
func (e *engine) because(id string) string {
	e.t.Helper()
	events := e.history.Of(id)
	if len(events) == 0 {
		return ""
	}
	return events[len(events)-1].Reason
}

// fetch gets an image, waits a moment, and returns how that ended.
func (e *engine) fetch(id string) error {
	_, _, err := e.get(id)
	time.Sleep(10 * time.Second)
	return err
}

// TestHistory lives images through everything that can happen to them: each
// time the history says what and why, in the words of the log.
func TestHistory(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 13_000, Limit: options.LimitHard, Fill: options.Fill{Retries: 1}}}, func(t *testing.T, e *engine) {
		want := func(id, story, because string) {
			t.Helper()
			if got := e.story(id); got != story || !strings.Contains(e.because(id), because) {
				t.Errorf("%s: %s; the last because of %q; want %s because of %q", id, got, e.because(id), story, because)
			}
			if last := e.history.Of(id); !strings.Contains(e.log.String(), last[len(last)-1].Event) {
				t.Errorf("%s: the log has no %s", id, last[len(last)-1].Event)
			}
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		e.origin.data = make([]byte, 6000) // two fit
		e.origin.missing = "none"
		if err := e.fetch("none"); !errors.Is(err, ErrNotFound) {
			t.Errorf("an image that the origin has not: %v", err)
		}
		want("none", "not fetched", "not found")
		if _, err := e.Queue("a"); err != nil {
			t.Fatal(err)
		}
		want("a", "queued", "by request")
		time.Sleep(time.Minute)
		want("a", "queued, cached", "fetched in ")
		must(e.fetch("b"))
		must(e.fetch("c"))
		want("a", "queued, cached, evicted", "least recently used")
		want("a", "queued, cached, evicted", ", to make room for 6000 bytes")
		if info, _ := e.Image("a"); info.Error != "evicted: "+e.because("a") {
			t.Errorf("the error of an evicted image is %q", info.Error)
		}
		e.pin("b", 0)
		e.pin("c", 0)
		must(e.fetch("a"))
		want("a", "queued, cached, evicted, not stored", "no space in the cache: the image needs 6000 bytes, but pinned images hold 12000 of the 13000")
		must(e.Delete(t.Context(), "b"))
		want("b", "cached, deleted", "by request; its pin stays")
		must(errors.Join(e.Unpin("b"), e.Unpin("c")))
		must(e.fetch("b"))
		e.origin.mu.Lock()
		e.origin.version = `"2"`
		e.origin.mu.Unlock()
		must(e.fetch("b"))
		want("b", "cached, deleted, cached, replaced, cached", "fetched in ")
		if events := e.history.Of("b"); events[3].Reason != `version "1" was replaced by version "2"` || events[3].Time.Before(events[2].Time) {
			t.Errorf("the replacement is %+v", events[3:])
		}
		must(e.store.FS().Remove("test", "b"))
		if _, err := e.OpenCached(t.Context(), "b"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a file that is gone: %v", err)
		}
		want("b", "cached, deleted, cached, replaced, cached, vanished", "another program")
		e.origin.mu.Lock()
		e.origin.down = true
		e.origin.mu.Unlock()
		for range 3 {
			if err := e.fetch("b"); err == nil {
				t.Error("an image came from nowhere")
			}
		}
		want("b", "cached, deleted, cached, replaced, cached, vanished, not fetched", "unavailable")
		if events := e.history.Of("b"); events[len(events)-1].Times != 3 {
			t.Errorf("three failures are told as %+v", events[len(events)-1])
		}
		e.put("w", 10)
		e.prune(0)
		want("w", "cached, evicted", ", by a prune from ")
		want("w", "cached, evicted", " to 0 bytes")
	})
}

// TestHistoryOfInterruptedFill: what the shutdown itself did is told after the
// next start.
func TestHistoryOfInterruptedFill(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true}}}, func(t *testing.T, e *engine) {
		e.origin.data = make([]byte, 5_000_000)
		k, err := e.Open(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		k.Close()
		e.shut()
		e.open()
		time.Sleep(time.Second)
		if got := e.story("a"); got != "interrupted" {
			t.Errorf("the history is %q", got)
		}
		if err := e.fetch("a"); err != nil {
			t.Error(err)
		}
		if got := e.story("a"); got != "interrupted, cached" {
			t.Errorf("the history is %q", got)
		}
	})
}
