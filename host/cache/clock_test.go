package cache

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/cache/internal/drivertest"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/sdk"
)

const year = 365 * 24 * time.Hour

// steps are what may happen to the clock on the wall.
var steps = map[string]time.Duration{"forwards": year, "backwards": -year}

// wall is the time on the wall of a bubble whose clock was set.
func (e *engine) wallNow() time.Time { return time.Now().Add(time.Duration(e.wall.Load())) }

// setClock moves the clock on the wall, as an operator or a time server does.
func (e *engine) setClock(step time.Duration) { e.wall.Add(int64(step)) }

// leave puts a file of another program into incomplete/, written so long ago.
func (e *engine) leave(name string, age time.Duration) {
	e.t.Helper()
	plant(e.t, e.dir, "incomplete/"+name, 10, e.wallNow().Add(-age))
}

func (e *engine) wantIncomplete(when string, want ...string) {
	e.t.Helper()
	entries, err := os.ReadDir(filepath.Join(e.dir, "incomplete"))
	if err != nil {
		e.t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if !slices.Equal(got, want) {
		e.t.Errorf("%s: in incomplete/ are %v, want %v", when, got, want)
	}
}

func (e *engine) clean(stall time.Duration) {
	e.t.Helper()
	if _, err := e.Clean(e.t.Context(), &stall); err != nil {
		e.t.Errorf("clean: %v", err)
	}
}

// TestCleanWhenTheClockIsSet: a file is as old as it was before the clock was
// set, and one that was written since is as old as it is.
func TestCleanWhenTheClockIsSet(t *testing.T) {
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(_ *testing.T, e *engine) {
				e.leave("new", time.Minute)
				e.leave("old", 2*time.Hour)
				e.setClock(step)
				time.Sleep(time.Second)
				e.clean(time.Hour)
				e.wantIncomplete("after the step", "new")
				e.leave("since", 0)
				time.Sleep(time.Second)
				e.clean(time.Hour)
				e.wantIncomplete("with one that was written since", "new", "since")
				time.Sleep(time.Hour)
				e.clean(time.Hour)
				e.wantIncomplete("when all are old")
			})
		})
	}
}

// TestCleanOfStrangeTimes: what has a time that cannot be is not kept for
// ever, and a clock that is a little ahead is no reason to take a file away
// from who writes it.
func TestCleanOfStrangeTimes(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.leave("a-little-ahead", -10*time.Minute)
		e.leave("from-the-future", -year)
		plant(t, e.dir, "incomplete/from-1970", 10, time.Unix(0, 0))
		plant(t, e.dir, "incomplete/from-before", 10, time.Unix(-1e9, 0))
		e.clean(time.Hour)
		e.wantIncomplete("at once", "a-little-ahead")
		time.Sleep(2 * time.Hour)
		e.clean(time.Hour)
		e.wantIncomplete("later")
	})
}

// TestOwnFilesWhenTheClockIsSet: what this process writes is never stalled,
// whatever the clock does, and an idle write ends when its time is over and
// no sooner.
func TestOwnFilesWhenTheClockIsSet(t *testing.T) {
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Options: options.Options{MaxSize: 8 << 20, Limit: options.LimitHard, StallTime: time.Hour, WriteTimeout: time.Hour, Fill: options.Fill{KeepFilling: true}}}
			inEngine(t, cfg, func(t *testing.T, e *engine) {
				e.origin.data = bytes.Repeat([]byte("x"), 2<<20)
				k, err := e.Open(t.Context(), "filling")
				if err != nil {
					t.Fatal(err)
				}
				w, err := e.BeginWrite(t.Context(), WriteOptions{ID: "written"})
				if err == nil {
					_, err = e.WriteData(t.Context(), w.Write, 0, bytes.NewReader(make([]byte, 100)))
				}
				if err != nil {
					t.Fatal(err)
				}
				e.setClock(step)
				e.clean(0)
				var got bytes.Buffer
				if _, err := k.CopyTo(t.Context(), &got, 0, -1); err != nil || !bytes.Equal(got.Bytes(), e.origin.data) {
					t.Errorf("%d bytes, %v", got.Len(), err)
				}
				_ = k.Close()
				time.Sleep(50 * time.Minute)
				if _, err := e.WriteState(w.Write); err != nil {
					t.Errorf("a write ended before its time: %v", err)
				}
				e.wantIDs("filling")
				time.Sleep(12 * time.Minute)
				if _, err := e.WriteState(w.Write); err == nil {
					t.Error("an idle write does not end")
				}
			})
		})
	}
}

// TestEvictionWhenTheClockIsSet sets the clock while the service runs, or
// before it starts again: what was asked for last stays, whichever year the
// clock shows, and no record goes back.
func TestEvictionWhenTheClockIsSet(t *testing.T) {
	for name, step := range steps {
		for _, restart := range []bool{false, true} {
			for _, away := range []bool{false, true} {
				if away && !restart {
					continue
				}
				t.Run(name+map[bool]string{true: ", restart"}[restart]+map[bool]string{true: ", driver away"}[away], func(t *testing.T) {
					d := drivertest.NewFaulty(1)
					d.Settle()
					cut := &drivertest.Severable{Driver: d}
					cfg := Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard, Prune: options.Prune{Interval: year}}, Driver: cut}
					inEngine(t, cfg, func(t *testing.T, e *engine) { evictAfterStep(t, e, d, cut, step, restart, away) })
				})
			}
		}
	}
}

func evictAfterStep(t *testing.T, e *engine, d *drivertest.Faulty, cut *drivertest.Severable, step time.Duration, restart, away bool) {
	for _, id := range []string{"a", "b", "c", "d"} {
		e.put(id, 1000)
	}
	for _, id := range []string{"d", "a", "b", "c"} {
		e.read(id)
	}
	time.Sleep(5 * time.Second) // for the recorder
	before := d.Records()
	e.setClock(step)
	if restart {
		e.shut()
		cut.Severed.Store(away)
		e.open()
		if !away {
			<-e.recorder.Merged
		}
	}
	e.read("a") // else the next to leave behind d
	e.put("new", 1000)
	if away {
		cut.Severed.Store(false)
		e.DriverUp()
		<-e.recorder.Merged
	}
	e.read("d")
	e.prune(3000)
	e.wantIDs("a", "d", "new")
	time.Sleep(time.Minute)
	for id, r := range d.Records() {
		if old, ok := before[id]; ok && r.LastAccessed.Before(old.LastAccessed) {
			t.Errorf("the record of %s went back from %v to %v", id, old.LastAccessed, r.LastAccessed)
		}
	}
	// The order is on record too, so that a restart keeps it.
	e.shut()
	e.open()
	<-e.recorder.Merged
	e.prune(1000)
	e.wantIDs("d")
}

func largestFirst(r *sdk.Record, _ time.Time) float64 { return -float64(r.Size) }

// TestAdviceWhenTheClockIsSet: the standing list is drawn on also while the
// clock is behind the records.
func TestAdviceWhenTheClockIsSet(t *testing.T) {
	d := drivertest.NewFaulty(1)
	d.Settle()
	cfg := Config{Options: options.Options{MaxSize: 10_000, Limit: options.LimitHard, Prune: options.Prune{Interval: year}}, Driver: d, Policy: evict.Policy{Name: "largest", Scorer: sdk.ScoreFunc(largestFirst)}}
	inEngine(t, cfg, func(t *testing.T, e *engine) {
		e.put("small", 1000)
		e.put("large", 4000)
		e.put("middle", 3000)
		time.Sleep(5 * time.Second)
		e.setClock(-year)
		e.shut()
		e.open()
		<-e.recorder.Merged
		time.Sleep(time.Minute)
		e.put("new", 3000)
		e.wantIDs("middle", "new", "small")
		for _, event := range e.history.Of("large") {
			if event.Event == Evicted && !bytes.HasPrefix([]byte(event.Reason), []byte("largest")) {
				t.Errorf("the policy was not followed: %s", event.Reason)
			}
		}
	})
}

// TestPinsWhenTheClockIsSet: a pin ends neither early nor late while the
// service runs.
func TestPinsWhenTheClockIsSet(t *testing.T) {
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
				e.put("pinned", 1000)
				if _, err := e.Pin("pinned", time.Now().Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
				e.setClock(step)
				time.Sleep(50 * time.Minute)
				e.prune(0)
				e.wantIDs("pinned")
				time.Sleep(11 * time.Minute)
				e.prune(0)
				e.wantIDs()
			})
		})
	}
}

// TestScrubWhenTheClockIsSet: a file that somebody copies into the cache just
// now is not judged, whatever its time says.
func TestScrubWhenTheClockIsSet(t *testing.T) {
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
				e.origin.data = bytes.Repeat([]byte("x"), 1000)
				e.origin.digest = true
				e.setClock(step)
				plant(t, e.dir, "copied", 500, e.wallNow()) // the first half of something
				time.Sleep(time.Second)
				k, err := e.OpenCached(context.Background(), "copied")
				if err != nil {
					t.Fatal(err)
				}
				_ = k.Close()
				r, err := e.Scrub(t.Context())
				if err != nil || len(r.Bad) != 0 || len(r.Unread) != 1 {
					t.Errorf("%+v, %v", r, err)
				}
			})
		})
	}
}

// TestRecordFromFarAhead: a driver that makes a time up does not decide who
// leaves.
func TestRecordFromFarAhead(t *testing.T) {
	d := drivertest.NewFaulty(1)
	d.Settle()
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 20, Limit: options.LimitHard, Prune: options.Prune{Interval: year}}, Driver: d}, func(t *testing.T, e *engine) {
		e.put("a", 1000)
		e.put("b", 1000)
		time.Sleep(5 * time.Second)
		d.Change(func(entries map[string]sdk.Entry, _ map[string]uint64) {
			wrong := entries["a"]
			wrong.LastAccessed = time.Unix(0, 1<<63-1).UTC()
			entries["a"] = wrong
		})
		e.shut()
		e.open()
		<-e.recorder.Merged
		time.Sleep(time.Second)
		e.read("b")
		if a, b := e.index.View(e.index.Get("a")), e.index.View(e.index.Get("b")); !a.Accessed.Before(b.Accessed) || b.Accessed.After(time.Now()) {
			t.Errorf("a was used at %v, b at %v", a.Accessed, b.Accessed)
		}
	})
}
