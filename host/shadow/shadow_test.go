package shadow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/simulate"
	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

// fake is a policy of which a test says how it does: least recently used when
// nothing is the matter.
type fake struct {
	mu    sync.Mutex
	away  bool
	start uint64
	err   error
	gate  chan struct{} // questions wait for it; nil: they do not
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) open() (any, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return nil, f.start
	}
	return f, f.start
}

// Score implements sdk.Scorer.
func (f *fake) Score(ctx context.Context, _ time.Time, records []sdk.Record, scores []float64) error {
	f.mu.Lock()
	err, gate := f.err, f.gate
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for i, r := range records {
		scores[i] = float64(r.Accessed)
	}
	return err
}

// inShadow runs f with the set of one policy and a capacity of ten objects of one byte.
func inShadow(t *testing.T, p *fake, f func(t *testing.T, s *Set)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Capacity: 10, Log: slog.New(slog.DiscardHandler), Policies: []Policy{{Name: "one", Plugin: "fake", Open: p.open}}})
		f(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// ask makes requests of the images from the first to before the last.
func ask(s *Set, first, last int) {
	for i := first; i < last; i++ {
		s.Add(trace.Access{At: time.Now().UnixNano() + int64(i), Key: key(i), Size: 1, Outcome: trace.Stored})
	}
	time.Sleep(time.Millisecond)
	synctest.Wait()
}

func id(i int) string   { return fmt.Sprint("img", i) }
func key(i int) sdk.Key { return sdk.KeyOf(id(i)) }
func (s *Set) only(t *testing.T) Status {
	t.Helper()
	list := s.Statuses()
	if len(list) != 1 {
		t.Fatalf("%d policies", len(list))
	}
	return list[0]
}

// wants fails the test unless the policy has these figures.
func (s *Set) wants(t *testing.T, what string, want Status) {
	t.Helper()
	got := s.only(t)
	if got.State != want.State || got.Requests != want.Requests || got.Hits != want.Hits || got.Evictions != want.Evictions || got.Lost != want.Lost || got.Restarts != want.Restarts {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// TestReport: the figures are those of a simulation of the same requests, and
// what has left is known.
func TestReport(t *testing.T) {
	inShadow(t, &fake{}, func(t *testing.T, s *Set) {
		c, err := simulate.NewCache(&fake{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 1000 {
			a := trace.Access{At: time.Now().UnixNano(), Key: key(rnd.IntN(20)), Size: 1, Outcome: trace.Hit}
			s.Add(a)
			if _, err := c.Access(t.Context(), a.Key, a.Size, a.At); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Nanosecond)
		}
		synctest.Wait()
		var cached []cache.ImageInfo
		var gone []string
		for i := range 25 { // the last five were never asked for
			cached = append(cached, cache.ImageInfo{ID: id(i), Size: 1})
			if i < 20 && !c.Has(key(i)) {
				gone = append(gone, id(i))
			}
		}
		slices.Sort(gone)
		r := s.Report(cached)
		p, want := r.Policies[0], c.Stats()
		if p.Requests != want.Requests || p.Hits != want.Requests-want.Misses || p.Evictions != want.Evictions || p.Images != c.Len() || p.HitRatio != 1-want.MissRatio() {
			t.Errorf("%+v, want %+v", p, want)
		}
		if !slices.Equal(p.Departed.IDs, gone) || p.Departed.Images != len(gone) || len(gone) == 0 {
			t.Errorf("%+v have left, want %q", p.Departed, gone)
		}
		if r.Cache.Hits != 1000 || r.Cache.HitRatio != 1 || r.Cache.Images != 25 {
			t.Errorf("the cache: %+v", r.Cache)
		}
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(s)
		if list, err := registry.Gather(); err != nil || len(list) != len(metrics) {
			t.Errorf("%d metrics, %v", len(list), err)
		}
	})
}

// TestWaits: a policy that starts late has seen all requests.
func TestWaits(t *testing.T) {
	p := &fake{away: true}
	inShadow(t, p, func(t *testing.T, s *Set) {
		ask(s, 0, 5)
		s.wants(t, "before the start", Status{State: stateWaiting})
		p.set(func() { p.away = false })
		time.Sleep(time.Second)
		ask(s, 0, 5)
		s.wants(t, "after it", Status{State: stateRunning, Figures: Figures{Requests: 10, Hits: 5}})
	})
}

// TestFails: a policy that fails, or is started anew, begins with an empty cache.
func TestFails(t *testing.T) {
	p := &fake{}
	inShadow(t, p, func(t *testing.T, s *Set) {
		ask(s, 0, 10)
		s.wants(t, "at first", Status{State: stateRunning, Figures: Figures{Requests: 10}})
		p.set(func() { p.err = errors.New("trap") })
		ask(s, 10, 20)
		s.wants(t, "after a failure", Status{State: stateWaiting, Restarts: 1, Figures: Figures{Requests: 10}})
		if got := s.only(t).LastError; got != "choose victims: score 10 images: trap" {
			t.Errorf("it failed because of %q", got)
		}
		p.set(func() { p.err = nil })
		time.Sleep(2 * firstPause)
		ask(s, 0, 3)
		s.wants(t, "when it is well", Status{State: stateRunning, Restarts: 1, Figures: Figures{Requests: 3}})
		p.set(func() { p.start++ })
		ask(s, 0, 1)
		time.Sleep(4 * firstPause)
		ask(s, 0, 2)
		s.wants(t, "started anew", Status{State: stateRunning, Restarts: 2, Figures: Figures{Requests: 2}})
	})
}

// TestHangs: nobody waits for a policy that hangs. What it misses is counted.
func TestHangs(t *testing.T) {
	p := &fake{}
	inShadow(t, p, func(t *testing.T, s *Set) {
		gate := make(chan struct{})
		p.set(func() { p.gate = gate })
		ask(s, 0, 11) // the last one needs room
		for range trace.QueueSize + 9 {
			s.Add(trace.Access{At: time.Now().UnixNano(), Key: key(5), Size: 1, Outcome: trace.Hit})
		}
		synctest.Wait()
		s.wants(t, "while it hangs", Status{State: stateRunning, Figures: Figures{Requests: 10}, Lost: 9})
		close(gate)
		time.Sleep(time.Second)
		synctest.Wait()
		s.wants(t, "afterwards", Status{State: stateRunning, Figures: Figures{Requests: 11 + trace.QueueSize, Hits: trace.QueueSize, Evictions: 1}, Lost: 9})
	})
}
