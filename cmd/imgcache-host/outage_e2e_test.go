package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// keeper is a driver with what a daemon needs to use it.
type keeper struct {
	name   string                    // of the plugin
	config func(t *testing.T) string // body of its config block
	calls  []string                  // that the service makes of it, besides List
}

// keepers are the drivers that ship.
var keepers = []keeper{
	{"sqlite", func(*testing.T) string { return "" }, []string{"Apply", "Apply", "Apply"}},
	{"xattr", func(*testing.T) string { return "" }, []string{"Apply", "Apply", "Apply"}},
}

// block is the driver block, and with it the line of the cache that names it.
func (k keeper) block(t *testing.T) string {
	return fmt.Sprintf("driver %q \"records\" {\n  config {\n%s\n  }\n}\n", k.name, k.config(t))
}

const keptRecords = "driver = driver.records"

// counted is a load of hits on one image, of which each is counted.
type counted struct {
	img          *offered
	hits, failed atomic.Int64
}

// judge takes an answer of the load.
func (c *counted) judge(t *testing.T, img *offered, a answer) {
	if err := img.check(a); err != nil {
		c.failed.Add(1)
		t.Error(err)
	}
	if img == c.img && strings.Contains(a.cacheStatus(), "; hit") {
		c.hits.Add(1)
	}
}

// begin downloads the image steady all the time, and others that come and go.
func (c *counted) begin(d *daemon, others []*offered) (stop func()) {
	judge := func(img *offered, a answer) { c.judge(d.t, img, a) }
	stopSteady := d.load(2, []*offered{c.img}, judge)
	stopOthers := d.load(1, others, func(img *offered, a answer) {
		judge(img, a)
		d.call(http.MethodDelete, "/v1/images/"+img.id, "")
	})
	return func() {
		stopSteady()
		stopOthers()
	}
}

// TestDriverDiesAtEachCall kills each driver before, during and after each
// call, while images come, go and are served. No download fails, no hit is lost
// and none counts twice.
func TestDriverDiesAtEachCall(t *testing.T) {
	for _, k := range keepers {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			origin := newOrigin(t)
			steady := &counted{img: origin.add("steady", 100_000)}
			others := offerMany(origin, 5)
			block, fate := mortalBlock(t, k.name, "")
			d := start(t, setup{origin: origin.block(), cache: keptRecords, more: block + k.block(t)})
			if err := steady.img.check(d.get("steady")); err != nil {
				t.Fatal(err)
			}
			d.waitState("steady", "cached")
			deaths := 0
			for _, moment := range lives() {
				d.stop()
				fate.at(t, "List", moment) // the first call after a start
				d.restart()
				stop := steady.begin(d, others)
				for i, call := range append([]string{"List"}, k.calls...) {
					if i > 0 {
						fate.at(t, call, moment)
					}
					d.eventually("the driver died at "+call, fate.met)
					deaths++
				}
				d.eventually("the records are read", func() bool { return d.usage().Records == "ready" })
				stop()
				d.eventually("all records are sent", func() bool { return d.usage().Unsent == 0 })
				d.wantHits(steady.hits.Load())
			}
			d.stop()
			d.restart()
			d.eventually("the records are read", func() bool { return d.usage().Records == "ready" })
			d.wantHits(steady.hits.Load())
			t.Logf("%d deaths; %d hits were served and recorded", deaths, steady.hits.Load())
		})
	}
}

// lives are the moments at which the drivers die, one for each life of the
// daemon: after some deaths in a row a plugin is waited for longer and longer.
func lives() []string {
	if os.Getenv("IMGCACHE_TEST_ALL") == "" {
		return moments
	}
	var all []string
	for range 10 {
		all = append(all, moments...)
	}
	return all
}

// TestDriverIsAway takes a driver away in three ways. Serving and filling go on,
// the log says it once, status and metrics show how far the driver is behind,
// and afterwards it has each hit once.
func TestDriverIsAway(t *testing.T) {
	for _, tc := range []struct {
		name, call string
		limits     string // of the plugin
		why        string // the driver is behind; "": it is only slow
	}{
		{"slow", "held", "", ""},
		{"gone", "away", "", "the database is away"},
		{"half-open", "held", "limits {\n timeout = \"3s\"\n }", "no answer within 3s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			origin := newOrigin(t)
			steady := &counted{img: origin.add("steady", 100_000)}
			later := offerMany(origin, 6)
			block, fate := mortalBlock(t, "sqlite", tc.limits)
			d := start(t, setup{origin: origin.block(), cache: keptRecords, more: block + keepers[0].block(t)})
			steady.judge(t, steady.img, d.get("steady"))
			d.waitState("steady", "cached")
			d.eventually("all records are sent", func() bool { return d.usage().Unsent == 0 })

			fate.at(t, "Apply", tc.call)
			stop := steady.begin(d, later[:2])
			d.eventually("the driver is behind", func() bool {
				u := d.usage()
				return u.Unsent > 0 && !u.UnsentSince.IsZero() && strings.Contains(u.RecordsError, tc.why)
			})
			for _, img := range later[2:] {
				if err := img.check(d.get(img.id)); err != nil {
					t.Error(err)
				}
				d.waitState(img.id, "cached")
			}
			served := steady.hits.Load()
			d.eventually("hits are served meanwhile", func() bool { return steady.hits.Load() > served+3 })
			if tc.name != "half-open" { // which is at its end already
				d.wantBehind(tc.why)
			}
			stop()
			fate.end()
			d.eventually("all records are sent", func() bool {
				u := d.usage()
				return u.Unsent == 0 && u.UnsentSince.IsZero() && u.RecordsError == ""
			})
			d.wantHits(steady.hits.Load())
			lines := min(len(tc.why), 1)
			d.wantLines("records wait in the record log", lines)
			d.wantLines("records are sent again", lines)
			d.stop()
			d.restart()
			d.eventually("the records are read", func() bool { return d.usage().Records == "ready" })
			d.wantHits(steady.hits.Load())
		})
	}
}

// wantBehind wants status and metrics to say that the driver is behind, and why.
func (d *daemon) wantBehind(why string) {
	d.t.Helper()
	code, out, _ := command(d.t, "status", "--socket", d.socket)
	for _, want := range []string{"unsent records", ", behind since ", why} {
		if code != 0 || !strings.Contains(out, want) {
			d.t.Errorf("status: exit code %d, and %q is not in\n%s", code, want, out)
		}
	}
	metrics := string(d.call(http.MethodGet, "/metrics", "").body)
	for _, name := range []string{"imgcache_records_unsent", "imgcache_records_behind_seconds"} {
		_, value, found := strings.Cut(metrics, "\n"+name+" ")
		if value, _, _ = strings.Cut(value, "\n"); !found || value == "0" {
			d.t.Errorf("the metric %s is %q while the driver is behind", name, value)
		}
	}
}

// wantLines counts the lines of the daemon's first run that hold a message.
func (d *daemon) wantLines(message string, want int) {
	d.t.Helper()
	if got := strings.Count(d.logs[0].String(), `"msg":"`+message+`"`); got != want {
		d.t.Errorf("the log says %d times %q, want %d", got, message, want)
	}
}
