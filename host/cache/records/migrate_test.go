package records

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/drivertest"
	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/internal/journal"
	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

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
	drivertest.WantHits(t, "a", &m.a, m.want)
	drivertest.WantHits(t, "b", &m.b, m.want)
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
		time.Sleep(FlushEvery + time.Millisecond) // what a kill may cost
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

// happen lets something happen to an image.
func (m *moving) happen(h *host, life int) {
	id := fmt.Sprintf("img%d", m.rng.IntN(4))
	info, cached := m.files[id]
	switch n := m.rng.IntN(12); {
	case !cached:
		info = store.Info{ID: id, Size: 1, ModTime: time.Now()}
		info.Version = fmt.Sprintf("v%d-%d", life, m.rng.Int())
		m.files[id], m.want[id] = info, 0
		h.pool.Charge(1)
		im, _ := h.index.Commit(info, time.Now())
		h.index.Close(im)
	case n == 0:
		h.index.Remove(id, sdk.ReasonDeleted, time.Now())
		delete(m.files, id)
		delete(m.want, id)
	default:
		h.index.Access(h.index.Get(id), time.Now())
		h.index.Hit(h.index.Get(id))
		m.want[id]++
	}
}

// host is one life.
type host struct {
	r     *Recorder
	index *index.Index
	pool  *space.Pool
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
	j := journal.New(fsys, journal.Path("", name), "")
	h.pool = space.NewPool(1<<30, true)
	h.index = index.New(time.Now, h.pool, j, index.NewEvents(false, false), index.NewRequests(nil))
	for _, info := range m.files {
		h.index.Found(info)
	}
	scanned := make(chan struct{})
	close(scanned)
	h.r = New(Config{
		Name: name, Driver: h.drive(name), Journal: j, Index: h.index, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Scanned: scanned, FS: fsys, Dir: ".",
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.r.Run(ctx)
	}()
	h.stop = func() {
		cancel()
		<-done
	}
	return h
}

// move moves the records to the driver that is not in use.
func (m *moving) move(ctx context.Context, h *host) (Report, error) {
	to := Target{Name: "driver.b"}
	if h.r.KeptBy() == to.Name {
		to.Name = "driver.a"
	}
	to.Driver = h.drive(to.Name)
	return h.r.Migrate(ctx, to, func(Progress) {})
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

var errMovedBack = errors.New("the records moved there and back")
