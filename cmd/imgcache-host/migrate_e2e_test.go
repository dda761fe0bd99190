package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/cache/records"
	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
)

// moved is what driver migrate says.
type moved struct {
	records.Report
	Next string
}

// migrating is a daemon with images, and the hits that they were served.
type migrating struct {
	*daemon
	source string // a directory with the images
	images []string
	mu     sync.Mutex
	hits   map[string]uint64
}

// firstDriver is the one that the cache uses. The other blocks are there for
// migrations.
const firstDriver = "driver = driver.first"

func startMigrating(t *testing.T, others string) *migrating {
	t.Helper()
	m := &migrating{source: t.TempDir(), hits: map[string]uint64{}}
	for i := range 4 {
		id := fmt.Sprint("img", i)
		m.images = append(m.images, id)
		writeFile(t, filepath.Join(m.source, id), strings.Repeat("x", 1000+i))
	}
	m.daemon = start(t, setup{
		origin: directoryOrigin(m.source), cache: firstDriver, node: `advertise = "http://cache.example"`,
		more: "driver \"sqlite\" \"first\" {}\n" + others,
	})
	for i, id := range m.images {
		m.get(id)
		m.waitState(id, cache.StateCached)
		for range i {
			m.hit(id)
		}
	}
	m.sent()
	return m
}

// hit downloads a cached image.
func (m *migrating) hit(id string) {
	m.get(id)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hits[id]++
}

// whileHit serves images while f runs, and at least once.
func (m *migrating) whileHit(f func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	once := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			m.hit(m.images[i%len(m.images)])
			if i == 0 {
				close(once)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	<-once
	f()
	close(stop)
	<-done
}

// sent waits until the driver has everything.
func (m *migrating) sent() {
	m.t.Helper()
	m.eventually("the driver has all hits", func() bool { return m.usage().Unsent == 0 })
}

// wantHits checks what list says, with the service or without.
func (m *migrating) wantHits(images map[string]cache.ImageInfo) {
	m.t.Helper()
	for _, id := range m.images {
		if got := images[id].Hits; got != m.hits[id] {
			m.t.Errorf("%s has %d hits, want %d", id, got, m.hits[id])
		}
	}
}

func (m *migrating) online() map[string]cache.ImageInfo {
	images := map[string]cache.ImageInfo{}
	for _, id := range m.images {
		images[id] = m.state(id)
	}
	return images
}

// migrate runs the command and returns what it says.
func (m *migrating) migrate(args ...string) moved {
	m.t.Helper()
	code, out, stderr := command(m.t, append([]string{"--config", m.config, "--output", "json", "driver", "migrate"}, args...)...)
	var r moved
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		m.t.Fatalf("driver migrate %v: exit code %d, %v\n%s%s", args, code, err, out, stderr)
	}
	return r
}

// configure changes the driver of the configuration, as the command says.
func (m *migrating) configure(name string) {
	m.t.Helper()
	text, err := os.ReadFile(m.config)
	if err != nil || !strings.Contains(string(text), firstDriver) {
		m.t.Fatalf("the configuration has no %s: %v", firstDriver, err)
	}
	writeFile(m.t, m.config, strings.Replace(string(text), firstDriver, "driver = driver."+name, 1))
}

// TestMigrateOnline moves the records of a service to each kind of driver while
// images are served. It goes on with that driver, also when its plugin is
// killed; a restart with the old configuration misses nothing and warns, and one
// with the new one is quiet.
func TestMigrateOnline(t *testing.T) {
	t.Parallel()
	server := dbtest.PostgreSQL(t)
	for plugin, options := range map[string]string{
		"sqlite":    fmt.Sprintf("path = %q", filepath.Join(t.TempDir(), "second.db")),
		"xattr":     "",
		"centraldb": fmt.Sprintf("dsn = %q", server.Database(t)),
	} {
		t.Run(plugin, func(t *testing.T) {
			t.Parallel()
			m := startMigrating(t, fmt.Sprintf("driver %q \"second\" {\n config {\n %s\n }\n}\n", plugin, options))
			var r moved
			m.whileHit(func() { r = m.migrate("--from", "driver.first", "--to", "driver.second") })
			if !r.Moved || r.Records != 4 || r.Verified != 4 || !strings.Contains(r.Next, "driver = driver.second") {
				t.Errorf("the command says %+v", r)
			}
			if pids := m.plugins(); len(pids) != 2 || pids[plugin] == 0 {
				t.Errorf("plugins are %v, want %s and the policy", pids, plugin)
			}
			m.hit("img0")
			m.sent()
			if err := syscall.Kill(m.plugins()[plugin], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			m.hit("img0")
			m.sent()
			m.wantHits(m.online())
			code, out, _ := command(t, "--socket", m.socket, "driver", "show")
			if code != 0 || !strings.Contains(out, "driver.second") || !strings.Contains(out, "driver.first") {
				t.Errorf("driver show: %d %s", code, out)
			}
			m.stop()

			m.restart() // with the driver of before
			m.wantHits(m.online())
			m.wantWarning(true)
			if r := m.migrate("--to", "driver.second"); !r.Moved || r.Replaced != 4 {
				t.Errorf("the second migration: %+v", r)
			}
			m.hit("img1")
			m.sent()
			m.stop()
			m.configure("second")
			m.restart()
			m.wantHits(m.online())
			m.wantWarning(false)
		})
	}
}

// wantWarning checks whether the last process said that another driver kept the
// records.
func (m *migrating) wantWarning(want bool) {
	m.t.Helper()
	warned := func() bool {
		return strings.Contains(m.logs[len(m.logs)-1].String(), "the records were moved to another driver")
	}
	if got := warned(); got != want {
		m.t.Errorf("a warning about the driver: %v, want %v", got, want)
	}
}

// TestMigrateOffline moves records without a service, there and back, and
// refuses what makes no sense.
func TestMigrateOffline(t *testing.T) {
	t.Parallel()
	second := filepath.Join(t.TempDir(), "second.db")
	m := startMigrating(t, fmt.Sprintf("driver \"sqlite\" \"second\" {\n config {\n path = %q\n }\n}\ndriver \"sqlite\" \"broken\" {\n config {\n pth = \"/x\"\n }\n}\n", second))
	for _, args := range [][]string{{"--to", "driver.first"}, {"--from", "driver.second", "--to", "driver.first"}} {
		if code, _, stderr := command(t, append([]string{"--socket", m.socket, "driver", "migrate"}, args...)...); code != 1 || !strings.Contains(stderr, "driver.first") {
			t.Errorf("online, %v: exit code %d: %s", args, code, stderr)
		}
	}
	if code, _, stderr := command(t, "--socket", m.socket, "driver", "migrate", "--to", "driver.broken"); code != 1 || !strings.Contains(stderr, `"pth"`) {
		t.Errorf("to a driver with a misspelt option: exit code %d: %s", code, stderr)
	}
	m.stop()
	m.offline(2, "driver", "migrate", "--to", "driver.secnd")
	m.offline(2, "driver", "migrate", "--to", "driver.second", "--from", "driver.second")
	m.offline(2, "driver", "migrate")
	if r := m.migrate("--to", "driver.second", "--dry-run"); r.Moved || r.Records != 4 || r.Hits != 6 {
		t.Errorf("a dry run says %+v", r)
	}
	r := m.migrate("--to", "driver.second")
	if !r.Moved || r.Verified != 4 || r.Hits != 6 || r.Replaced != 0 || !strings.Contains(r.Next, "driver = driver.second") {
		t.Errorf("the command says %+v", r)
	}
	out, _ := m.offline(0, "driver", "migrate", "--from", "driver.second", "--to", "driver.first")
	for _, want := range []string{"4 records, 6 hits, from driver.second to driver.first", "4 records replaced", "verified"} {
		if !strings.Contains(out, want) {
			t.Errorf("the table lacks %q:\n%s", want, out)
		}
	}
	m.migrate("--to", "driver.second")
	m.configure("second")
	m.wantHits(m.offlineImages())
	m.restart()
	m.hit("img0")
	m.sent()
	m.wantHits(m.online())
	m.wantWarning(false)
}

// TestHandBack gives the directory back to Glance, which finds all images with
// their hits, serves and counts them, and takes over what it counted.
func TestHandBack(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"sqlite", "xattr"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			m := startMigrating(t, "")
			m.stop()
			if r := m.migrate("--to", "glance-"+driver); !r.Moved || r.Verified != 4 || !strings.Contains(r.Next, "start Glance") {
				t.Errorf("the command says %+v", r)
			}
			steps := []step{do(m.images, "list")}
			for _, id := range m.images {
				steps = append(steps, do(m.hits[id], "hits", id))
			}
			steps = append(steps, each(true, "read", m.images...)...)
			for _, id := range m.images {
				m.hits[id]++
				steps = append(steps, do(m.hits[id], "hits", id))
			}
			glance(t, driver, m.dir, m.source, steps...)

			if r := m.migrate("--from", "glance-"+driver, "--to", "driver.first"); !r.Moved || r.Hits != 10 || r.Next != "" {
				t.Errorf("the command says %+v", r)
			}
			m.restart()
			m.hit("img2")
			m.sent()
			m.wantHits(m.online())
			for id, info := range m.online() {
				if !info.Verified || info.Version == "" {
					t.Errorf("%s is %+v", id, info)
				}
			}
		})
	}
}

// TestMigrateKilled kills the driver to which records move, the command, and the
// service, in the middle. The same command then moves them all the same.
func TestMigrateKilled(t *testing.T) {
	t.Parallel()
	plugin, fate := mortalBlock(t, "xattr", "")
	t.Cleanup(fate.end)
	m := startMigrating(t, "driver \"xattr\" \"second\" {}\n"+plugin)
	for _, end := range []struct{ call, moment string }{{"List", "before"}, {"Apply", "before"}, {"Apply", "during"}, {"Apply", "after"}} {
		fate.at(t, end.call, end.moment)
		var r moved
		m.whileHit(func() { r = m.migrate("--to", "driver.second") })
		if !r.Moved || r.Verified != 4 || !fate.met() {
			t.Errorf("%s, %s: %+v", end.call, end.moment, r)
		}
		m.migrate("--to", "driver.first")
		m.sent()
		m.wantHits(m.online())
	}

	interrupted := m.begin(fate)
	m.hit("img0")
	if err := interrupted.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = interrupted.Wait() // always an error
	m.eventually("the migration has ended", func() bool {
		s, err := m.api.Driver(t.Context())
		return err == nil && s.Driver == "driver.first" && s.Migration == nil
	})
	fate.end()
	m.hit("img0")
	m.sent()

	orphaned := m.begin(fate)
	least := m.online()
	m.hit("img0")
	m.kill9()
	if err := orphaned.Wait(); err == nil {
		t.Error("the command succeeds though the service was killed")
	}
	fate.end()
	m.restart()
	now := m.online()["img0"].Hits
	if now < least["img0"].Hits || now > m.hits["img0"] {
		t.Errorf("%d hits of img0 after the kill, want %d or, if they were not yet on disk, one less", now, m.hits["img0"])
	}
	m.hits["img0"] = now
	m.whileHit(func() { m.migrate("--to", "driver.second") })
	m.sent()
	m.wantHits(m.online())
	m.stop()
	m.configure("second")
	m.wantHits(m.offlineImages())
}

// begin begins a migration that comes to a halt when the driver has to take the
// first records.
func (m *migrating) begin(f fate) *exec.Cmd {
	m.t.Helper()
	f.at(m.t, "Apply", "held")
	cmd := exec.Command(filepath.Join(m.bin, "imgcache-host"), "--socket", m.socket, "driver", "migrate", "--to", "driver.second")
	cmd.Env = append(os.Environ(), quietRace)
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = cmd.Process.Kill() })
	m.eventually("the driver is called", f.met)
	return cmd
}

// TestHandBackCentral does the same with the tables in which nodes of Glance
// share their records.
func TestHandBackCentral(t *testing.T) {
	t.Parallel()
	db, dsn := dbtest.MariaDB(t).GlanceDatabase(t)
	m := startMigrating(t, fmt.Sprintf("driver \"centraldb\" \"glance\" {\n config {\n dsn = %q\n glance_tables = true\n }\n}\n", dsn))
	m.stop()
	if r := m.migrate("--to", "driver.glance"); !r.Moved || r.Verified != 4 {
		t.Errorf("the command says %+v", r)
	}
	var images int
	row := db.QueryRow("SELECT count(*), sum(hits) FROM cached_images JOIN node_reference USING (node_reference_id) WHERE node_reference_url = 'http://cache.example'")
	var hits uint64
	if err := row.Scan(&images, &hits); err != nil || images != 4 || hits != 6 {
		t.Errorf("Glance's tables have %d images with %d hits, %v", images, hits, err)
	}
	if _, err := db.Exec("UPDATE cached_images SET hits = hits + 1"); err != nil {
		t.Fatal(err)
	}
	for id := range m.hits {
		m.hits[id]++
	}
	m.hits["img0"] = 1
	m.migrate("--from", "driver.glance", "--to", "driver.first")
	m.wantHits(m.offlineImages())
}
