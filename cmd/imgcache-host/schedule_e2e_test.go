package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/schedule"
)

// ownData gives the daemon a data directory that no other test has, but for the
// compiled modules.
func (d *daemon) ownData() {
	d.t.Helper()
	text, err := os.ReadFile(d.config)
	if err != nil {
		d.t.Fatal(err)
	}
	shared, own := filepath.Join(d.bin, "data"), d.t.TempDir()
	if err := os.Symlink(filepath.Join(shared, "wasm"), filepath.Join(own, "wasm")); err != nil {
		d.t.Fatal(err)
	}
	writeFile(d.t, d.config, strings.Replace(string(text), strconv.Quote(shared), strconv.Quote(own), 1))
}

// TestSchedulesRun has an image brought in and rubbish taken out at their
// times, and looks at what is told of it, also after a kill -9.
func TestSchedulesRun(t *testing.T) {
	origin := t.TempDir()
	writeFile(t, filepath.Join(origin, "warm"), strings.Repeat("x", 10_000))
	d := prepare(t, setup{origin: directoryOrigin(origin), more: `
schedule "often" {
  every  = "1s"
  jitter = "500ms"
  run    = ["clean", "prefetch", "prune", "scrub"]
  images = ["warm", "lost"]
}
schedule "leap-day" {
  cron = "0 12 29 2 *"
  run  = ["prune"]
}
`})
	d.ownData()
	writeFile(t, filepath.Join(d.dir, "invalid/rubbish"), "x")
	d.launch()
	d.waitState("warm", cache.StateCached)
	var often schedule.Status
	d.eventually("several runs are told", func() bool {
		list, err := d.api.Schedules(t.Context())
		if err != nil || len(list) != 2 {
			t.Fatalf("%v, %v; want two schedules", list, err)
		}
		often = list[0]
		return strings.Contains(often.Result, "0 of 2 queued")
	})
	if often.Error != "" || often.NextRun.IsZero() && !often.Running || !slices.Equal(often.Run, []string{"clean", "prefetch", "prune", "scrub"}) {
		t.Errorf("told is %+v", often)
	}
	if left := d.files("invalid"); len(left) > 0 {
		t.Errorf("%v is left in invalid/", left)
	}
	d.kill9()
	d.restart()
	out, _ := d.run(0, "schedules")
	for _, want := range []string{"often     every 1s", "clean: 0 files removed, 0 B; prefetch: 0 of 2 queued; prune: 0 files removed, 0 B; scrub: 1 right, 0 bad", "-02-29 12:00:00"} {
		if !strings.Contains(out, want) {
			t.Errorf("schedules does not tell %q:\n%s", want, out)
		}
	}
}
