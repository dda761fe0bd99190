package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// seedRecords gives a driver records of an earlier life.
func seedRecords(t *testing.T, d sdk.Driver, entries ...sdk.Entry) {
	t.Helper()
	b := sdk.Batch{Source: "earlier", Seq: 1}
	for _, e := range entries {
		b.Ops = append(b.Ops, sdk.Put(e))
	}
	if err := d.Apply(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// wantHits checks that a driver has records with these hits, and no others.
func wantHits(t *testing.T, name string, d *sdktest.Memory, want map[string]uint64) {
	t.Helper()
	got := map[string]uint64{}
	for _, e := range d.Entries() {
		got[e.ID] = e.Hits
	}
	for id, hits := range want {
		if n, ok := got[id]; !ok || n != hits {
			t.Errorf("%s has %d hits of %s (a record: %v), want %d", name, n, id, ok, hits)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s has the records %v, want %v", name, got, want)
	}
}

// TestMigrate moves records to a driver that has older ones, some of them with
// more hits, and goes on with it. A restart with the one before misses nothing.
func TestMigrate(t *testing.T) {
	var a, b sdktest.Memory
	inEngine(t, Config{MaxSize: 1 << 30, Hard: true, Driver: &a, DriverName: "driver.a"}, func(t *testing.T, e *engine) {
		for i, id := range []string{"one", "two", "three"} {
			e.put(id, 10+i)
			for range i + 1 {
				e.read(id)
			}
		}
		one, _ := e.Image("one")
		seedRecords(t, &b, sdk.Entry{ID: "one", Version: one.Version, Size: 10, Hits: 100, LastAccessed: time.Now().Add(time.Hour)},
			sdk.Entry{ID: "gone", Size: 5, Hits: 7}, sdk.Entry{ID: "two", Version: "another", Size: 99, Hits: 50})

		to := Target{Name: "driver.b", Driver: &b, DryRun: true}
		tell := func(MigrateProgress) {}
		want := MigrateReport{From: "driver.a", To: "driver.b", Configured: "driver.a", Records: 3, Hits: 6, Replaced: 2, Removed: 1, DryRun: true}
		if got, err := e.Migrate(t.Context(), to, tell); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("dry run: %+v, %v; want %+v", got, err, want)
		}
		wantHits(t, "b", &b, map[string]uint64{"one": 100, "two": 50, "gone": 7})
		to.DryRun, want.DryRun, want.Verified, want.Moved = false, false, 3, true
		if got, err := e.Migrate(t.Context(), to, tell); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("migration: %+v, %v; want %+v", got, err, want)
		}
		wantHits(t, "b", &b, map[string]uint64{"one": 1, "two": 2, "three": 3})
		if _, err := e.Migrate(t.Context(), to, tell); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("to the driver in use: %v, want ErrInvalid", err)
		}

		before := a.Entries()
		e.read("one")
		e.put("four", 4)
		if err := e.Delete(t.Context(), "three"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		after := map[string]uint64{"one": 2, "two": 2, "four": 0}
		wantHits(t, "b", &b, after)
		if !slices.Equal(a.Entries(), before) {
			t.Error("the driver that was left was called")
		}
		if e.RecordsWith() != "driver.b" || e.Migration() != nil {
			t.Errorf("%s keeps the records, and on its way is %v", e.RecordsWith(), e.Migration())
		}

		e.shut()
		e.open() // with the first driver
		time.Sleep(5 * time.Second)
		wantHits(t, "a", &a, after)
		if text := e.log.String(); strings.Count(text, "the configuration names the one before") != 1 {
			t.Errorf("no warning that the configuration names the driver of before:\n%s", text)
		}
		e.shut()
		e.config.Driver, e.config.DriverName = &b, "driver.b"
		e.open()
		time.Sleep(5 * time.Second)
		wantHits(t, "b", &b, after)
		if text := e.log.String(); !strings.Contains(text, "driver migrate --from driver.a --to driver.b") {
			t.Errorf("no warning that another driver kept the records:\n%s", text)
		}
	})
}

// TestMigrateGivesUp moves records to a driver that does not take them, or
// gives back others. The one before goes on, and nothing is lost.
func TestMigrateGivesUp(t *testing.T) {
	for name, to := range map[string]sdk.Driver{
		"away": failingDriver{}, "slow": failingDriver{slow: true}, "lying": &lyingDriver{}, "refusing": refusingDriver{},
	} {
		t.Run(name, func(t *testing.T) {
			var a sdktest.Memory
			inEngine(t, Config{MaxSize: 1 << 30, Hard: true, Driver: &a, DriverName: "driver.a"}, func(t *testing.T, e *engine) {
				e.put("one", 10)
				e.read("one")
				ended := make(chan error)
				var last MigrateProgress
				go func() {
					_, err := e.Migrate(t.Context(), Target{Name: "driver.b", Driver: to}, func(p MigrateProgress) { last = p })
					ended <- err
				}()
				time.Sleep(100 * time.Millisecond)
				e.read("one")
				if err := <-ended; err == nil {
					t.Error("the migration succeeded")
				} else if name == "lying" && !errors.Is(err, ErrDifferent) {
					t.Errorf("the error is %v, want ErrDifferent", err)
				}
				if name == "away" && (last.Error == "" || last.To != "driver.b") {
					t.Errorf("the last progress is %+v", last)
				}
				e.read("one")
				time.Sleep(time.Minute)
				wantHits(t, "a", &a, map[string]uint64{"one": 3})
				if _, err := e.store.FS().Lstat("test", ".imgcache/records-b.log"); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the record log of the other driver: %v", err)
				}
			})
		})
	}
}

// lyingDriver takes everything and has one hit more of each image.
type lyingDriver struct{ sdktest.Memory }

func (d *lyingDriver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	return d.Memory.List(ctx, func(entries []sdk.Entry) error {
		for i := range entries {
			entries[i].Hits++
		}
		return yield(entries)
	})
}

// refusingDriver has no place for any batch.
type refusingDriver struct{}

func (refusingDriver) List(context.Context, func([]sdk.Entry) error) error { return nil }
func (refusingDriver) Apply(context.Context, sdk.Batch) error              { return sdk.ErrInvalid }

// TestMigrateKills lets images come, be hit and go while records move between
// two drivers that fail, and while the host is killed or stopped at any moment,
// and started again with the driver that its configuration names. In the end
// every record is exact with both.
func TestMigrateKills(t *testing.T) {
	seeds := uint64(40)
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		seeds = 1000
	}
	ended := map[string]int{}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := &moving{rng: rand.New(rand.NewPCG(seed, 7)), dir: t.TempDir(), want: map[string]uint64{}, files: map[string]store.Info{}, ended: ended}
			synctest.Test(t, m.test)
		})
	}
	for _, how := range []string{"killed amid a move", "moved", "moved back", "not moved"} {
		if ended[how] == 0 {
			t.Errorf("in no schedule: %s", how)
		}
	}
}

// moving is a host reduced to its records, over several lives.
type moving struct {
	rng   *rand.Rand
	dir   string
	a, b  sdktest.Memory
	other bool // the configuration names b
	want  map[string]uint64
	files map[string]store.Info
	ended map[string]int
}

func (m *moving) test(t *testing.T) {
	for life := range 5 {
		m.live(t, life)
	}
	h := m.start(t, false)
	for range 2 { // there and back
		from := h.r.inUse.Load().name
		if r, err := m.move(t.Context(), h); err != nil || r.Verified != len(m.want) {
			t.Errorf("the last migration from %s: %+v, %v", from, r, err)
		}
	}
	h.stop()
	wantHits(t, "a", &m.a, m.want)
	wantHits(t, "b", &m.b, m.want)
}

// live runs the host for a while.
func (m *moving) live(t *testing.T, life int) {
	h := m.start(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	moved := make(chan error, 1)
	var busy atomic.Bool
	busy.Store(true)
	go func() {
		defer busy.Store(false)
		_, err := m.move(ctx, h)
		if err == nil && life%2 == 1 {
			if _, err = m.move(ctx, h); err == nil {
				err = errMovedBack
			}
		}
		moved <- err
	}()
	for range m.rng.IntN(25) {
		m.happen(h, life)
		time.Sleep(time.Duration(m.rng.IntN(1500)) * time.Millisecond)
	}
	if m.rng.IntN(2) == 0 {
		time.Sleep(flushEvery + time.Millisecond) // what a kill may cost
		if busy.Load() {
			m.ended["killed amid a move"]++
		}
		m.kill(t, h)
		cancel()
		<-moved
		return
	}
	switch err := <-moved; {
	case err == nil:
		m.ended["moved"]++
		if m.rng.IntN(2) == 0 {
			m.other = !m.other // as the command says
		}
	case errors.Is(err, errMovedBack):
		m.ended["moved back"]++
	default:
		m.ended["not moved"]++
	}
	h.stop()
}

var errMovedBack = errors.New("the records moved there and back")

// happen lets something happen to an image.
func (m *moving) happen(h *host, life int) {
	id := fmt.Sprintf("img%d", m.rng.IntN(4))
	info, cached := m.files[id]
	switch n := m.rng.IntN(12); {
	case !cached:
		info = store.Info{ID: id, Size: 1, ModTime: time.Now()}
		info.Version = fmt.Sprintf("v%d-%d", life, m.rng.Int())
		m.files[id], m.want[id] = info, 0
		h.index.pool.charge(1)
		im, _ := h.index.commit(info, time.Now())
		h.index.close(im)
	case n == 0:
		h.index.remove(id, sdk.ReasonDeleted, time.Now())
		delete(m.files, id)
		delete(m.want, id)
	default:
		h.index.access(h.index.get(id), time.Now())
		h.index.hit(h.index.get(id))
		m.want[id]++
	}
}

// host is one life.
type host struct {
	r     *recorder
	index *index
	fsys  store.FS
	dead  *atomic.Bool
	drive func(name string) sdk.Driver // a plugin that was started now
	stop  func()
}

func (m *moving) start(t *testing.T, faults bool) *host {
	t.Helper()
	fsys, err := store.OpenFS(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{fsys: fsys, dead: &atomic.Bool{}}
	seed, plugins := m.rng.Uint64(), atomic.Uint64{}
	h.drive = func(name string) sdk.Driver {
		d, rng := sdk.Driver(&m.a), rand.New(rand.NewPCG(seed, plugins.Add(1)))
		if name == "driver.b" {
			d = &m.b
		}
		if faults {
			d = sdktest.NewFlaky(d, func(int) sdktest.Fault { return sdktest.Fault(max(0, rng.IntN(12)-8)) })
		}
		return &laggard{Driver: d, dead: h.dead, rng: rng, slow: faults}
	}
	name := "driver.a"
	if m.other {
		name = "driver.b"
	}
	j := newJournal(fsys, logPath("", name))
	h.index = newIndex(time.Now, newPool(1<<30, true), j, &events{})
	for _, info := range m.files {
		h.index.found(info)
	}
	scanned := make(chan struct{})
	close(scanned)
	h.r = newRecorder(&loggedDriver{name: name, driver: h.drive(name), log: j}, slog.New(slog.DiscardHandler), h.index, time.Now, scanned)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.r.run(ctx)
	}()
	h.stop = func() {
		cancel()
		<-done
	}
	return h
}

// move moves the records to the driver that is not in use.
func (m *moving) move(ctx context.Context, h *host) (MigrateReport, error) {
	to := &loggedDriver{name: "driver.b"}
	if h.r.inUse.Load().name == to.name {
		to.name = "driver.a"
	}
	to.driver = h.drive(to.name)
	if to.log = h.r.home.log; to.name != h.r.home.name {
		to.log = newJournal(h.fsys, logPath("", to.name))
	}
	return h.r.migrate(ctx, to, false, func(MigrateProgress) {})
}

// kill ends the host without a goodbye: what its files are now is what the next
// one finds, and nothing of it reaches a driver any more.
func (m *moving) kill(t *testing.T, h *host) {
	t.Helper()
	synctest.Wait()
	h.dead.Store(true)
	left := t.TempDir()
	names, err := filepath.Glob(filepath.Join(m.dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		in, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(left, filepath.Base(name)))
		if err == nil {
			_, err = io.Copy(out, in)
		}
		if err := errors.Join(err, in.Close(), out.Close()); err != nil {
			t.Fatal(err)
		}
	}
	m.dir = left
	h.stop()
}

// laggard is a driver that takes its time, and that a kill of its host ends.
type laggard struct {
	sdk.Driver
	dead *atomic.Bool
	rng  *rand.Rand
	slow bool
}

func (l *laggard) lag() error {
	if l.slow {
		time.Sleep(time.Duration(l.rng.IntN(3000)) * time.Millisecond)
	}
	if l.dead.Load() {
		return sdk.ErrUnavailable
	}
	return nil
}

func (l *laggard) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	if err := l.lag(); err != nil {
		return err
	}
	return l.Driver.List(ctx, yield)
}

func (l *laggard) Apply(ctx context.Context, b sdk.Batch) error {
	if err := l.lag(); err != nil {
		return err
	}
	return l.Driver.Apply(ctx, b)
}
