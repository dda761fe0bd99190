package main

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3" // to lock a database

	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
)

// keeper is a driver with what a daemon needs to use it.
type keeper struct {
	name   string // of the test
	plugin string
	config func(t *testing.T) string // body of its config block
	calls  []string                  // that the service makes of it, besides List
}

// keepers are the drivers that ship.
var keepers = []keeper{
	{"sqlite", "sqlite", func(*testing.T) string { return "" }, []string{"Apply", "Apply", "Apply"}},
	{"xattr", "xattr", func(*testing.T) string { return "" }, []string{"Apply", "Apply", "Apply"}},
	{"PostgreSQL", "centraldb", func(t *testing.T) string { return inDatabase(t, dbtest.PostgreSQL(t)) }, []string{"Apply", "Heartbeat", "Nodes"}},
	{"MariaDB", "centraldb", func(t *testing.T) string { return inDatabase(t, dbtest.MariaDB(t)) }, []string{"Apply", "Heartbeat", "Nodes"}},
}

// inDatabase is the option of a driver whose records are in a new database.
func inDatabase(t *testing.T, s *dbtest.Server) string {
	return fmt.Sprintf("dsn = %q", s.Database(t))
}

// block is the driver block, and with it the line of the cache that names it.
func (k keeper) block(t *testing.T) string {
	return fmt.Sprintf("driver %q \"records\" {\n  config {\n%s\n  }\n}\n", k.plugin, k.config(t))
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
			block, fate := mortalBlock(t, k.plugin, "")
			d := prepare(t, setup{origin: origin.block(), cache: keptRecords, more: block + k.block(t)})
			deaths := 0
			for life := range lives() {
				fate.at(t, "List", moments[life%3]) // the first call after a start
				d.launch()
				steady.judge(t, steady.img, d.get("steady"))
				d.waitState("steady", "cached")
				stop := steady.begin(d, others)
				for i, call := range append([]string{"List"}, k.calls...) {
					if i > 0 {
						fate.at(t, call, moments[(life+i)%3])
					}
					d.eventually("the driver died at "+call, fate.met)
					deaths++
				}
				d.eventually("the records are read", func() bool { return d.usage().Records == "ready" })
				stop()
				d.eventually("all records are sent", func() bool { return d.usage().Unsent == 0 })
				d.wantHits(steady.hits.Load())
				d.stop()
			}
			d.restart()
			d.eventually("the records are read", func() bool { return d.usage().Records == "ready" })
			d.wantHits(steady.hits.Load())
			t.Logf("%d deaths; %d hits were served and recorded", deaths, steady.hits.Load())
		})
	}
}

// lives is how often the daemon is started, to die at other moments: after some
// deaths in a row a plugin is waited for longer and longer.
func lives() int {
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		return 30
	}
	return 1
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
			lines := d.pastOutages() + min(len(tc.why), 1)

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
			d.wantLines(recordsWait, lines)
			d.wantLines(recordsSent, lines)
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

// The lines of the log at the beginning and the end of an outage.
const (
	recordsWait = "the driver is behind; records wait in the record log"
	recordsSent = "records are sent again"
)

// lines counts those of the daemon's first run that hold a message.
func (d *daemon) lines(message string) int {
	return strings.Count(d.logs[0].String(), `"msg":"`+message+`"`)
}

// wantLines wants a message to stand so often in the log, which comes through a
// pipe, a moment after what it tells of.
func (d *daemon) wantLines(message string, want int) {
	d.t.Helper()
	d.eventually("the log says: "+message, func() bool { return d.lines(message) >= want })
	if got := d.lines(message); got > want {
		d.t.Errorf("the log says %d times %q, want %d", got, message, want)
	}
}

// pastOutages is how many the log has told of: on a busy machine the driver may
// have been late at the start. There is none now.
func (d *daemon) pastOutages() (n int) {
	d.t.Helper()
	d.eventually("all records are sent", func() bool {
		u := d.usage()
		n = d.lines(recordsWait)
		return u.Unsent == 0 && u.RecordsError == "" && d.lines(recordsSent) == n
	})
	return n
}

// TestDatabaseDies kills the database of two daemons under load and starts it
// again, and lets it stand still with all connections open. No download fails
// and no fill waits; afterwards the records of both daemons have each hit once.
func TestDatabaseDies(t *testing.T) {
	for name, run := range map[string]func(testing.TB) *dbtest.Server{"PostgreSQL": dbtest.PostgreSQL, "MariaDB": dbtest.MariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := run(t)
			dsn := server.Database(t)
			var pair [2]*sharer
			for i := range pair {
				pair[i] = newSharer(t, fmt.Sprint("node", i), dsn)
			}
			for round, outage := range []struct{ begin, end func() }{
				{server.Kill, func() { server.Start(t) }},
				{server.Pause, server.Resume},
			} {
				outage.begin()
				until := time.Now().Add(outageLasts())
				for _, s := range pair {
					s.outlive(round+1, until)
				}
				outage.end()
				for _, s := range pair {
					s.catchUp(round + 1)
				}
			}
			for _, s := range pair {
				s.stopLoad()
				s.d.eventually("all records are sent", func() bool { return s.d.usage().Unsent == 0 })
				s.d.wantHits(s.load.hits.Load())
				s.d.stop()
			}
			for _, s := range pair {
				s.d.restart()
				s.d.eventually("the records are read", func() bool { return s.d.usage().Records == "ready" })
				s.d.wantHits(s.load.hits.Load())
				t.Logf("%d hits were served and recorded", s.load.hits.Load())
			}
		})
	}
}

// sharer is a daemon that shares a database, under load.
type sharer struct {
	d        *daemon
	past     int // outages that the log told of before the test
	load     counted
	stopLoad func()
}

func newSharer(t *testing.T, name, dsn string) *sharer {
	t.Helper()
	origin := newOrigin(t)
	s := &sharer{load: counted{img: origin.add("steady", 100_000)}}
	others := offerMany(origin, 5)
	s.d = start(t, setup{
		origin: origin.block(), cache: keptRecords, node: fmt.Sprintf("name = %q", name),
		more: fmt.Sprintf("driver \"centraldb\" \"records\" {\n  config {\n    dsn = %q\n    query_timeout = \"1s\"\n  }\n}\n", dsn),
	})
	s.load.judge(t, s.load.img, s.d.get("steady"))
	s.d.waitState("steady", "cached")
	s.past = s.d.pastOutages()
	s.stopLoad = s.load.begin(s.d, others)
	return s
}

// outlive waits until the daemon knows that its database is away, and for the
// time that it shall be, in which more hits are served.
func (s *sharer) outlive(times int, until time.Time) {
	s.d.t.Helper()
	s.d.eventually("records wait", func() bool { return s.d.usage().RecordsError != "" })
	served := s.load.hits.Load()
	s.d.eventually("hits are served meanwhile", func() bool {
		return s.load.hits.Load() > served+3 && !time.Now().Before(until)
	})
	s.d.wantBehind("")
	s.d.wantLines(recordsWait, s.past+times)
}

// catchUp waits until the driver is as far as the daemon.
func (s *sharer) catchUp(times int) {
	s.d.t.Helper()
	s.d.eventually("records are sent again", func() bool { return s.d.usage().RecordsError == "" })
	s.d.wantLines(recordsSent, s.past+times)
}

// outageLasts is how long a database is away at least.
func outageLasts() time.Duration {
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		return time.Minute
	}
	return 0
}

// TestDatabaseFileIsHarmed locks, removes and overwrites the database of the
// driver sqlite under load. No download fails, and in the end the records have
// each hit once: what the database lost the daemon still knows.
func TestDatabaseFileIsHarmed(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	steady := &counted{img: origin.add("steady", 100_000)}
	others := offerMany(origin, 5)
	d := start(t, setup{
		origin: origin.block(), cache: keptRecords,
		more: "driver \"sqlite\" \"records\" {\n  config {\n    busy_timeout = \"100ms\"\n  }\n}\n",
	})
	steady.judge(t, steady.img, d.get("steady"))
	d.waitState("steady", "cached")
	path := filepath.Join(d.dir, ".imgcache", "records.db")
	for _, harm := range []struct {
		name string
		do   func() (undo func())
	}{
		{"locked", func() func() { return d.lockDatabase(path) }},
		{"removed", func() func() {
			for _, suffix := range []string{"", "-wal", "-shm"} {
				if err := os.Remove(path + suffix); err != nil {
					t.Error(err)
				}
			}
			return nil
		}},
		{"overwritten", func() func() {
			writeFile(t, path, strings.Repeat("no database", 10_000))
			if err := syscall.Kill(d.plugins()["sqlite"], syscall.SIGKILL); err != nil { // it may have all in memory
				t.Error(err)
			}
			return nil
		}},
	} {
		stop := steady.begin(d, others)
		undo := harm.do()
		if undo != nil {
			d.eventually("records wait", func() bool { return d.usage().RecordsError != "" })
			undo()
		}
		served := steady.hits.Load()
		d.eventually("hits are served meanwhile", func() bool { return steady.hits.Load() > served+3 })
		stop()
		d.eventually("all records are sent", func() bool { u := d.usage(); return u.Unsent == 0 && u.RecordsError == "" })
		d.stop()
		d.restart()
		d.eventually("the records are read", func() bool { return d.usage().Records == "ready" })
		t.Log(harm.name)
		d.wantHits(steady.hits.Load())
	}
}

// lockDatabase begins a transaction that lets no other process write.
func (d *daemon) lockDatabase(path string) (undo func()) {
	d.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?_txlock=immediate&_busy_timeout=10000")
	if err != nil {
		d.t.Fatal(err)
	}
	tx, err := db.BeginTx(d.t.Context(), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return func() {
		if err := errors.Join(tx.Rollback(), db.Close()); err != nil {
			d.t.Error(err)
		}
	}
}
