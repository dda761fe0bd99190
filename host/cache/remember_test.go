package cache

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// life is a run of a cache with a policy that can save its state, which begins
// with nothing.
func (e *engine) life(l *ledger) {
	e.config.Policy = evict.Policy{Name: "book", Stateful: l, Snapshotter: l, Identity: "book 1"}
	e.open()
	<-e.recorder.Merged
	time.Sleep(2 * time.Second) // the policy is told
}

// TestPolicyStateOutlivesTheService restarts a cache. The policy has its state
// again when the images are those that were left, and else sees them anew.
func TestPolicyStateOutlivesTheService(t *testing.T) {
	driver := &sdktest.Memory{}
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}, Driver: driver}, func(t *testing.T, e *engine) {
		e.shut()
		first := &ledger{}
		e.life(first)
		for _, id := range []string{"a", "b", "c"} {
			e.put(id, 1000)
		}
		e.read("a")
		if err := e.Delete(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		e.shut()
		for _, tt := range []struct {
			what     string
			harm     func() // between two lives
			restored int
			ids      []string
		}{
			{"after a restart", func() {}, 1, []string{"a", "b"}},
			{"after another", func() {}, 1, []string{"a", "b"}},
			{"after somebody deleted an image", func() { e.unlink("b") }, 0, []string{"a"}},
			{"and then", func() {}, 1, []string{"a"}},
			{"when the file is damaged", func() { e.damage(-1) }, 0, []string{"a"}},
			{"when its first line is damaged", func() { e.damage(20) }, 0, []string{"a"}},
			{"when it is gone", func() { e.unlink(".imgcache/policy-state") }, 0, []string{"a"}},
		} {
			tt.harm()
			l := &ledger{}
			e.life(l)
			l.mu.Lock()
			restored := l.restored
			l.mu.Unlock()
			if restored != tt.restored {
				t.Errorf("%s: it was restored %d times, want %d", tt.what, restored, tt.restored)
			}
			e.put("x", 10)
			e.tell(t)
			l.knows(t, tt.what, append(tt.ids, "x")...)
			e.read("a")
			if err := e.Delete(t.Context(), "x"); err != nil {
				t.Error(err)
			}
			e.shut()
		}
		e.open()
	})
}

// knows compares the book with the images.
func (l *ledger) knows(t *testing.T, what string, ids ...string) {
	t.Helper()
	l.mu.Lock()
	built := l.built
	l.mu.Unlock()
	l.wants(t, what, built, ids...)
}

// unlink removes a file behind the cache's back.
func (e *engine) unlink(name string) {
	e.t.Helper()
	if err := os.Remove(filepath.Join(e.dir, name)); err != nil {
		e.t.Error(err)
	}
}

// damage changes a byte of the saved state; a negative place is from its end.
func (e *engine) damage(at int) {
	e.t.Helper()
	path := filepath.Join(e.dir, ".imgcache/policy-state")
	b, err := os.ReadFile(path)
	if err != nil {
		e.t.Fatal(err)
	}
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o640); err != nil {
		e.t.Error(err)
	}
}

// TestPolicyStateOutlivesACrash: a policy that starts anew gets its last
// snapshot and what happened since; one that does not take it is discarded, and
// what comes then sees the images anew.
func TestPolicyStateOutlivesACrash(t *testing.T) {
	var epoch atomic.Uint64
	var discarded error
	form := func(l *ledger) evict.Policy {
		return evict.Policy{
			Name: "book", Stateful: l, Snapshotter: l, Identity: "book 1", Epoch: epoch.Load,
			Discard: func(why error) { discarded = why },
		}
	}
	bring := func(e *engine, l *ledger) *ledger {
		epoch.Add(1)
		e.SetPolicy(form(l))
		return l
	}
	first := &ledger{}
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}, Driver: &sdktest.Memory{}, Policy: form(first)}, func(t *testing.T, e *engine) {
		<-e.recorder.Merged
		e.put("a", 1000)
		time.Sleep(evict.RememberEvery + time.Second)
		e.put("b", 1000)
		e.tell(t)
		if err := e.Delete(t.Context(), "a"); err != nil { // which nobody is told before the crash
			t.Fatal(err)
		}
		second := bring(e, &ledger{})
		e.tell(t)
		second.wants(t, "the second", 0, "b")

		third := bring(e, &ledger{}) // before the next snapshot
		e.tell(t)
		third.wants(t, "the third", 1, "b")
		time.Sleep(evict.RememberEvery + time.Second)

		bring(e, &ledger{refuses: errors.New("no")})
		if err := e.tryTell(t); err == nil || discarded == nil {
			t.Errorf("a policy that refuses its state: %v, discarded because of %v", err, discarded)
		}
		last := bring(e, &ledger{})
		e.tell(t)
		last.wants(t, "the last", 1, "b")
	})
}
