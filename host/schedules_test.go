package host

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/schedule"
)

// fakeUpkeep notes what is asked of it.
type fakeUpkeep struct{ asked []string }

func (f *fakeUpkeep) ask(what string) { f.asked = append(f.asked, what) }

func (f *fakeUpkeep) Prune(_ context.Context, o cache.PruneOptions) (cache.Result, error) {
	f.ask("prune")
	if o != (cache.PruneOptions{}) {
		return cache.Result{}, errors.New("not by the watermarks")
	}
	return cache.Result{Files: 3, Bytes: 3 << 30}, nil
}

func (f *fakeUpkeep) Clean(_ context.Context, stall *time.Duration) (cache.Result, error) {
	f.ask("clean")
	if stall != nil {
		return cache.Result{}, errors.New("not by the configured stall time")
	}
	return cache.Result{}, nil
}

func (f *fakeUpkeep) Queue(id string) (bool, error) {
	f.ask("queue " + id)
	if id == "lost" {
		return false, errors.New("no origin has it")
	}
	return id != "cached", nil
}

func (f *fakeUpkeep) RetryQueued() (int, error) {
	f.ask("retry")
	return 7, nil
}

// TestScheduledWork runs the schedules of a configuration once.
func TestScheduledWork(t *testing.T) {
	dir := t.TempDir()
	cfg := configure(t, `
node {
  data_dir = "`+dir+`"
}
cache "default" {
  dir = "/nowhere"
}
origin "directory" "golden" {
  path = "/srv/images"
}
schedule "nightly" {
  cron   = "30 2 * * *"
  run    = ["clean", "prefetch", "prune", "scrub"]
  images = ["new", "cached", "lost", "noble/current/x.img", "nowhere/x"]
}
schedule "often" {
  every = "3h"
  run   = ["prefetch"]
}
`)
	synctest.Test(t, func(t *testing.T) {
		var u fakeUpkeep
		s := newSchedules(cfg, &u, findAny, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Run(ctx)
		}()
		now := time.Now()
		due := time.Date(now.Year(), now.Month(), now.Day(), 2, 30, 0, 0, time.Local)
		if due.Before(now) {
			due = due.AddDate(0, 0, 1)
		}
		time.Sleep(due.Add(time.Second).Sub(now))
		synctest.Wait()
		nightly := s.Status()[0]
		cancel()
		<-ended
		var asked []string
		for _, what := range u.asked {
			if what != "retry" { // of the other one, which depends on the time of day
				asked = append(asked, what)
			}
		}
		if diff := cmp.Diff([]string{"clean", "queue new", "queue cached", "queue lost", "queue noble-current-x.img", "prune", "scrub"}, asked); diff != "" {
			t.Errorf("asked: -want +got:\n%s", diff)
		}
		want := schedule.Status{
			Name: "nightly", When: "30 2 * * *", Run: []string{"clean", "prefetch", "prune", "scrub"}, LastRun: due, NextRun: due.AddDate(0, 0, 1),
			Result: "clean: 0 files removed, 0 B; prefetch: 2 of 5 queued; prune: 3 files removed, 3.0 GiB; " +
				"scrub: 5 right, 1 bad, 2 not readable, 2.0 GiB read",
			Error: "prefetch: lost: no origin has it\nnowhere/x: no origin is offered on this path",
		}
		if diff := cmp.Diff(want, nightly); diff != "" {
			t.Errorf("status: -want +got:\n%s", diff)
		}
	})
	if kept, err := filepath.Glob(filepath.Join(dir, "schedules/*")); err != nil || !strings.Contains(strings.Join(kept, " "), "nightly.json") {
		t.Errorf("kept is %q, %v", kept, err)
	}
}

func (f *fakeUpkeep) Scrub(context.Context) (cache.ScrubReport, error) {
	f.ask("scrub")
	return cache.ScrubReport{Images: 5, Bytes: 2 << 30, Bad: []cache.Finding{{ID: "x"}}, Unread: []cache.Finding{{ID: "y"}, {ID: "z"}}}, nil
}

// findAny makes ids of names as no origin does.
func findAny(text string) (string, error) {
	if strings.HasPrefix(text, "nowhere/") {
		return "", errors.New("no origin is offered on this path")
	}
	return strings.ReplaceAll(text, "/", "-"), nil
}

// TestPrefetchWithoutImages tries again what is queued.
func TestPrefetchWithoutImages(t *testing.T) {
	t.Parallel()
	var u fakeUpkeep
	if said, err := prefetch(&u, nil, findAny); said != "7 in the queue" || err != nil {
		t.Errorf("%q, %v", said, err)
	}
}
