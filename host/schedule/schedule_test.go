package schedule

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// host is a machine with a clock that can be set, on which a scheduler runs
// and is restarted.
type host struct {
	t     *testing.T
	state string
	log   bytes.Buffer
	ahead atomic.Int64 // how far the clock on the wall is ahead of the timers'

	mu   sync.Mutex
	runs []time.Time // when work began
	stop func()
}

func newHost(t *testing.T) *host {
	return &host{t: t, state: filepath.Join(t.TempDir(), "schedules")}
}

func (h *host) now() time.Time {
	return time.Now().UTC().Round(0).Add(time.Duration(h.ahead.Load()))
}

// set puts the clock on the wall.
func (h *host) set(by time.Duration) { h.ahead.Add(int64(by)) }

// work notes when it began, and takes some time.
func (h *host) work(takes time.Duration) Step {
	return Step{"work", func(ctx context.Context) (string, error) {
		h.mu.Lock()
		h.runs = append(h.runs, h.now())
		h.mu.Unlock()
		select {
		case <-time.After(takes):
			return "done", nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}}
}

// start runs schedules until the function that it returns is called.
func (h *host) start(schedules ...Schedule) *Scheduler {
	s := New(Config{Schedules: schedules, State: h.state, Log: slog.New(slog.NewTextHandler(&h.log, nil))})
	s.now = h.now
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	h.stop = func() { cancel(); <-ended }
	synctest.Wait()
	return s
}

// began returns the times of day at which work began since the last call.
func (h *host) began() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []string
	for _, at := range h.runs {
		list = append(list, at.Format("02 15:04:05"))
	}
	h.runs = nil
	return strings.Join(list, ", ")
}

// expect compares the runs since the last call.
func (h *host) expect(what, want string) {
	h.t.Helper()
	if got := h.began(); got != want {
		h.t.Errorf("%s: runs at %q, want %q", what, got, want)
	}
}

// kept returns the record of a schedule on the disk.
func (h *host) kept(name string) (record, error) { return state(h.state).load(name) }

func cronOf(t *testing.T, spec string) Timetable {
	t.Helper()
	when, err := Cron(spec)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

// The clock of a bubble begins on Saturday, the first of January, at midnight.

func TestRunsAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.start(
			Schedule{Name: "nightly", When: cronOf(t, "30 2 * * *"), Steps: []Step{h.work(time.Minute)}},
		)
		want := Status{Name: "nightly", When: "30 2 * * *", Run: []string{"work"}, NextRun: time.Date(2000, 1, 1, 2, 30, 0, 0, time.UTC)}
		if diff := cmp.Diff([]Status{want}, s.Status()); diff != "" {
			t.Errorf("before the first run: -want +got:\n%s", diff)
		}
		time.Sleep(2*time.Hour + 30*time.Minute + 30*time.Second)
		if st := s.Status()[0]; !st.Running || !st.LastRun.Equal(want.NextRun) || st.Result != "" {
			t.Errorf("during the first run: %+v", st)
		}
		time.Sleep(60 * time.Hour)
		h.expect("in two days and a half", "01 02:30:00, 02 02:30:00, 03 02:30:00")
		want.LastRun, want.NextRun, want.Result = time.Date(2000, 1, 3, 2, 30, 0, 0, time.UTC), time.Date(2000, 1, 4, 2, 30, 0, 0, time.UTC), "work: done"
		if diff := cmp.Diff([]Status{want}, s.Status()); diff != "" {
			t.Errorf("after three runs: -want +got:\n%s", diff)
		}
		h.stop()
	})
}

// TestNeverTwiceAtOnce has work that takes longer than its interval.
func TestNeverTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.start(
			Schedule{Name: "often", When: Every(5 * time.Minute), Steps: []Step{h.work(12 * time.Minute)}},
		)
		time.Sleep(40 * time.Minute)
		h.expect("intervals begin when the work ends", "01 00:05:00, 01 00:22:00, 01 00:39:00")
		h.stop()

		h = newHost(t)
		h.start(
			Schedule{Name: "hourly", When: cronOf(t, "@hourly"), Steps: []Step{h.work(150 * time.Minute)}},
		)
		time.Sleep(6 * time.Hour)
		h.expect("times that come meanwhile are left out", "01 01:00:00, 01 04:00:00")
		h.stop()
	})
}

// TestMissedWhileDown stops the service for some days.
func TestMissedWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		nightly := Schedule{Name: "nightly", When: cronOf(t, "30 2 * * *"), Steps: []Step{h.work(time.Minute)}}
		h.start(nightly)
		time.Sleep(3 * time.Hour)
		h.stop()
		h.expect("first", "01 02:30:00")
		time.Sleep(100 * time.Hour) // until the fifth at seven

		s := h.start(nightly)
		if st := s.Status()[0]; !st.LastRun.Equal(time.Date(2000, 1, 1, 2, 30, 0, 0, time.UTC)) || st.Result != "work: done" {
			t.Errorf("after the restart: %+v", st)
		}
		time.Sleep(24 * time.Hour)
		h.stop()
		h.expect("four were missed", "05 07:01:00, 06 02:30:00")

		h.start(nightly)
		time.Sleep(time.Hour)
		h.stop()
		h.expect("none was missed", "")

		nightly.When = cronOf(t, "0 4 * * *")
		h.start(nightly)
		time.Sleep(time.Hour)
		h.stop()
		h.expect("another time is not a missed one", "")
	})
}

// TestKilledAtWork ends a run, which is not begun again at the next start: it
// may be what killed the service.
func TestKilledAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		nightly := Schedule{Name: "nightly", When: cronOf(t, "30 2 * * *"), Steps: []Step{h.work(time.Hour)}}
		s := h.start(nightly)
		time.Sleep(3 * time.Hour)
		if r, err := h.kept("nightly"); err != nil || r.Began.IsZero() {
			t.Errorf("while it works %+v is kept, %v: after a crash it would be begun again", r, err)
		}
		h.stop()
		if st := s.Status()[0]; st.Running || st.Error != "the service was stopped" {
			t.Errorf("after the stop: %+v", st)
		}
		if strings.Contains(h.log.String(), "level=ERROR") {
			t.Errorf("a stop is logged as an error:\n%s", &h.log)
		}
		h.start(nightly)
		time.Sleep(time.Hour)
		h.stop()
		h.expect("begun once", "01 02:30:00")
	})
}

// TestClockIsSet lets the machine sleep, in which timers stand still, and sets
// its clock.
func TestClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.start(
			Schedule{Name: "nightly", When: cronOf(t, "30 2 * * *"), Steps: []Step{h.work(0)}},
		)
		time.Sleep(time.Hour + 10*time.Second)
		h.set(72 * time.Hour) // the fourth at one: three runs were slept through
		time.Sleep(time.Hour)
		h.expect("asleep for three days", "04 01:01:00")
		time.Sleep(31 * time.Minute)
		h.expect("the next as ever", "04 02:30:00")

		h.set(-45 * time.Second)
		time.Sleep(10 * time.Minute)
		h.expect("the clock is corrected by less than a minute", "")

		h.set(-365 * 24 * time.Hour)
		time.Sleep(24 * time.Hour)
		h.expect("a year back", "05 02:30:00")

		h.set(2 * 365 * 24 * time.Hour)
		time.Sleep(24 * time.Hour)
		h.expect("two years on", "04 02:41:00, 05 02:30:00")
		h.stop()
	})
}

// TestJitter checks that runs are late by less than the jitter, each by
// another time.
func TestJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.start(
			Schedule{Name: "hourly", When: cronOf(t, "@hourly"), Jitter: 10 * time.Minute, Steps: []Step{h.work(0)}},
		)
		late := map[time.Duration]bool{}
		for range 20 {
			next := s.Status()[0].NextRun
			time.Sleep(next.Sub(h.now()) + time.Second)
			h.expect("one run, as announced", next.Format("02 15:04:05"))
			late[next.Sub(next.Truncate(time.Hour))] = true
		}
		h.stop()
		if len(late) < 10 {
			t.Errorf("20 runs were late by only %d different times", len(late))
		}
		for d := range late {
			if d >= 10*time.Minute {
				t.Errorf("late by %v", d)
			}
		}
	})
}

// TestFailuresAreSaid has a step that fails before one that does not.
func TestFailuresAreSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.start(
			Schedule{Name: "mixed", When: Every(time.Minute), Steps: []Step{
				{"bad", func(context.Context) (string, error) { return "", errors.New("no such disk") }},
				{"half", func(context.Context) (string, error) { return "1 of 2", errors.New("one is missing") }},
				h.work(0),
			}},
		)
		time.Sleep(90 * time.Second)
		h.stop()
		h.expect("the last step", "01 00:01:00")
		st := s.Status()[0]
		if got, want := st.Error, "bad: no such disk\nhalf: one is missing"; got != want {
			t.Errorf("error %q, want %q", got, want)
		}
		if got, want := st.Result, "half: 1 of 2; work: done"; got != want {
			t.Errorf("result %q, want %q", got, want)
		}
		if !strings.Contains(h.log.String(), "scheduled work failed") {
			t.Errorf("the failure is not logged:\n%s", &h.log)
		}
	})
}

// TestStateIsNoCondition takes the directory of the state away, in two ways.
func TestStateIsNoCondition(t *testing.T) {
	for name, spoil := range map[string]func(*host){
		"cannot be made": func(h *host) { h.state = "/dev/null/schedules" },
		"damaged": func(h *host) {
			if err := os.MkdirAll(h.state, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(h.state, "often.json"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a FIFO": func(h *host) {
			for _, name := range []string{"often.json", "often.json.new"} {
				if err := errors.Join(os.MkdirAll(h.state, 0o700), syscall.Mkfifo(filepath.Join(h.state, name), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
		},
		"a directory": func(h *host) {
			if err := os.MkdirAll(filepath.Join(h.state, "often.json"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"too large": func(h *host) {
			if err := errors.Join(os.MkdirAll(h.state, 0o700), os.WriteFile(filepath.Join(h.state, "often.json"), make([]byte, maxRecord+1), 0o600)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			spoil(h)
			h.start(
				Schedule{Name: "often", When: Every(5 * time.Minute), Steps: []Step{h.work(0)}},
			)
			time.Sleep(11 * time.Minute)
			h.stop()
			h.expect(name, "01 00:05:00, 01 00:10:00")
			if !strings.Contains(h.log.String(), "level=WARN") {
				t.Errorf("%s: nothing is said of the state:\n%s", name, &h.log)
			}
		})
	}
}
