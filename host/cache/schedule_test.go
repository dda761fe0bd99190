package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/drivertest"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// TestSchedules runs fills of one image, or of several that do not all fit,
// under random schedules of cuts, slow and leaving clients, write errors,
// deletes, prunes, flipped bits, crashes and a driver that fails, and checks
// after each step that only whole images are visible, that nobody took wrong
// bytes for whole and that the limit holds, and at the end that hits are
// recorded, bytes counted right, and nothing left open. The name of a subtest
// is its seed.
func TestSchedules(t *testing.T) {
	seeds := uint64(300)
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		seeds = 10_000
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			stuck := time.AfterFunc(3*time.Minute, func() { panic(fmt.Sprintf("seed %d spins or hangs", seed)) })
			defer stuck.Stop()
			dir := storetest.MemoryDir(t)
			synctest.Test(t, func(t *testing.T) { newSchedule(t, seed, dir).run() })
		})
	}
}

// schedule is one random run. All images have the same content, of which all
// versions are known, so that what a client got can be told apart.
type schedule struct {
	t      *testing.T
	rng    *rand.Rand
	dir    string
	fsys   *flakyFS
	store  *store.Store
	cache  *Cache
	origin *fakeOrigin
	driver *drivertest.Faulty
	max    int64
	ids    []string
	calm   bool            // nothing happened that takes hits away
	rotten map[string]bool // images of which a bit was flipped

	clients sync.WaitGroup
	mu      sync.Mutex // guards what clients report
	known   map[string]bool
	hits    map[string]uint64 // that clients saw, by id
}

func newSchedule(t *testing.T, seed uint64, dir string) *schedule {
	rng := rand.New(rand.NewPCG(seed, 5))
	s := &schedule{
		t: t, rng: rng, dir: dir, known: map[string]bool{}, max: 1 + rng.Int64N(6<<20),
		driver: drivertest.NewFaulty(seed), hits: map[string]uint64{}, rotten: map[string]bool{},
	}
	for i := range 1 + rng.IntN(2)*rng.IntN(4) {
		s.ids = append(s.ids, fmt.Sprint("image", i))
	}
	s.calm = len(s.ids) == 1 // else some make room for others
	s.origin = &fakeOrigin{
		rng: rand.New(rand.NewPCG(seed, 6)), size: rng.IntN(5) > 0, digest: rng.IntN(2) == 0,
		cuts: rng.IntN(4), corrupt: rng.IntN(8) == 0,
	}
	s.replaceContent()
	return s
}

// replaceContent gives the origin another version of the image.
func (s *schedule) replaceContent() {
	size := s.rng.IntN(5 << 20 >> s.rng.IntN(20))
	data := make([]byte, size)
	var chunk [8]byte
	for i := range data {
		if i%8 == 0 {
			for j, v := 0, s.rng.Uint64(); j < 8; j, v = j+1, v>>8 {
				chunk[j] = byte(v)
			}
		}
		data[i] = chunk[i%8]
	}
	s.origin.mu.Lock()
	defer s.origin.mu.Unlock()
	s.origin.data = data
	s.origin.version = fmt.Sprintf(`"v%d"`, s.rng.Uint32())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[string(data)] = true
}

func (s *schedule) open(odds int) {
	s.t.Helper()
	base, err := store.OpenFS(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	s.fsys = &flakyFS{FS: base, rng: rand.New(rand.NewPCG(s.rng.Uint64(), 7))}
	if s.store, err = store.Open(store.Config{Dir: s.dir, FS: s.fsys}); err != nil {
		s.t.Fatal(err)
	}
	s.cache, err = New(complete(Config{Options: options.Options{MaxSize: s.max, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: s.rng.IntN(2) == 0, Retries: 2}}, Store: s.store, Origins: s.origin, Driver: s.driver}))
	if err != nil {
		s.t.Fatal(err)
	}
	s.cache.Start()
	s.fsys.mu.Lock()
	s.fsys.odds = odds
	s.fsys.mu.Unlock()
}

func (s *schedule) run() {
	odds := []int{0, 0, 5, 40}[s.rng.IntN(4)]
	s.open(odds)
	for range 3 + s.rng.IntN(12) {
		n := s.rng.IntN(20)
		id := s.ids[s.rng.IntN(len(s.ids))]
		s.calm = s.calm && n != 11 && n != 12 && n < 15
		switch {
		case n < 11:
			s.client(id)
		case n == 11:
			if err := s.cache.Delete(context.Background(), id); err != nil && odds == 0 {
				s.t.Errorf("delete: %v", err)
			}
			if odds == 0 {
				s.wantAbsent(id)
			}
		case n == 12:
			s.replaceContent()
		case n == 13:
			s.origin.setDown(s.rng.IntN(2) == 0)
		case n == 14:
			if _, err := s.cache.Queue(id); err != nil && odds == 0 {
				s.t.Errorf("queue: %v", err)
			}
		case n == 15:
			s.prune()
		case n == 16:
			s.crash()
			s.open(odds)
		case n == 17:
			s.flip(id)
		}
		time.Sleep(time.Duration(s.rng.IntN(1000)) * time.Millisecond)
		s.check()
	}
	s.origin.setDown(false)
	s.clients.Wait()
	s.driver.Settle()
	time.Sleep(2 * time.Minute) // for the longest pause of the recorder, and the latest answer of the driver
	s.check()
	if odds == 0 {
		s.wantCounted()
		s.wantRecorded()
	}
	s.close()
	if n := s.origin.active; n != 0 {
		s.t.Errorf("%d transfers were left open", n)
	}
}

func (s *schedule) prune() {
	var size int64
	if _, err := s.cache.Prune(context.Background(), PruneOptions{MaxSize: &size}); err != nil {
		s.t.Errorf("prune: %v", err)
	}
}

// wantAbsent checks that a delete that has returned left nothing behind. A
// fill that began since cannot have committed, as no time has passed.
func (s *schedule) wantAbsent(id string) {
	s.t.Helper()
	if _, err := s.store.Stat(id); !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("after a delete: %v", err)
	}
}

// flip changes a bit of an image that is cached, while nobody reads what a fill
// has just written: that is checked before it is written only.
func (s *schedule) flip(id string) {
	s.clients.Wait()
	f, err := os.OpenFile(filepath.Join(s.dir, id), os.O_RDWR, 0)
	if err != nil {
		return // it is not cached
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return
	}
	at := s.rng.Int64N(fi.Size())
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 1 << s.rng.IntN(8)
	if err == nil {
		_, err = f.WriteAt(b[:], at)
	}
	if err == nil && s.rng.IntN(2) == 0 {
		err = os.Chtimes(f.Name(), time.Time{}, fi.ModTime())
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.rotten[id] = true
}

// client downloads an image, at its own pace, and may leave.
func (s *schedule) client(id string) {
	pace := time.Duration(s.rng.IntN(300)) * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	if s.rng.IntN(4) == 0 {
		ctx, cancel = context.WithTimeout(context.Background(), time.Duration(s.rng.IntN(2000))*time.Millisecond)
	}
	c := s.cache
	s.clients.Go(func() {
		defer cancel()
		content, err := c.Open(ctx, id)
		if err != nil {
			return
		}
		defer content.Close()
		got := slowClient{s: s, pace: pace}
		_, err = content.CopyTo(ctx, &got, 0, -1)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil && content.Outcome().Hit {
			s.hits[id]++
		}
		undetectable := s.origin.corrupt && !s.origin.digest
		switch {
		case err == nil && !got.whole() && !undetectable:
			s.t.Errorf("a client took %d bytes for the whole image, which they are not", got.n)
		case err != nil && !got.prefix() && !s.origin.corrupt:
			s.t.Errorf("a client got %d bytes of no version before %v", got.n, err)
		}
	})
}

// slowClient takes its time. It keeps no bytes, only which versions begin with
// those that came: see [comparer].
type slowClient struct {
	s    *schedule
	pace time.Duration
	n    int      // bytes that came
	like []string // the versions that begin with them
}

func (c *slowClient) Write(p []byte) (int, error) {
	time.Sleep(c.pace)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.n == 0 {
		c.like = slices.Collect(maps.Keys(c.s.known))
	}
	c.like = slices.DeleteFunc(c.like, func(version string) bool {
		rest := version[c.n:]
		return len(rest) < len(p) || rest[:len(p)] != string(p)
	})
	c.n += len(p)
	return len(p), nil
}

// whole reports whether what came is a version, prefix whether one begins with
// it. The schedule's mutex is held.
func (c *slowClient) whole() bool {
	if c.n == 0 {
		return c.s.known[""]
	}
	return slices.ContainsFunc(c.like, func(version string) bool { return len(version) == c.n })
}

func (c *slowClient) prefix() bool { return c.n == 0 || len(c.like) > 0 }

// check looks at the directory as the next start would.
func (s *schedule) check() {
	s.t.Helper()
	for _, id := range s.ids {
		data, err := os.ReadFile(filepath.Join(s.dir, id))
		if err != nil || s.rotten[id] {
			continue
		}
		s.mu.Lock()
		known := s.known[string(data)]
		s.mu.Unlock()
		if !known && !(s.origin.corrupt && !s.origin.digest) {
			s.t.Errorf("the cached file of %s, of %d bytes, is no version of the image", id, len(data))
		}
	}
	// A partial file that is put away is charged twice until the last client of
	// its fill has gone: too much rather than too little.
	total, _ := s.cache.pool.State()
	if twice, _ := s.cache.others.sizes(); total-twice > s.max {
		s.t.Errorf("%d bytes are charged, %d of them perhaps twice, max_size is %d", total, twice, s.max)
	}
	if sum := imageBytes(s.t, s.dir); sum > s.max {
		s.t.Errorf("the files have %d bytes, max_size is %d", sum, s.max)
	}
}

// wantRecorded compares the driver's records with the cache, and with what
// clients saw where nothing took hits away.
func (s *schedule) wantRecorded() {
	s.t.Helper()
	images, records := s.cache.Images(), s.driver.Records()
	if len(images) != len(records) {
		s.t.Errorf("%d images, %d records", len(images), len(records))
	}
	for _, im := range images {
		if r := records[im.ID]; r.Hits != im.Hits || r.Size != im.Size {
			s.t.Errorf("%s has %d hits and %d bytes, its record %d and %d", im.ID, im.Hits, im.Size, r.Hits, r.Size)
		}
		switch {
		case im.Hits > s.hits[im.ID]:
			s.t.Errorf("%d hits of %s are recorded, clients had %d", im.Hits, im.ID, s.hits[im.ID])
		case s.calm && !s.origin.corrupt && im.Hits != s.hits[im.ID]:
			s.t.Errorf("%d hits of %s are recorded, clients had %d, and nothing took any away", im.Hits, im.ID, s.hits[im.ID])
		}
	}
}

// wantCounted compares the pool with the files.
func (s *schedule) wantCounted() {
	s.t.Helper()
	sum := imageBytes(s.t, s.dir)
	if total, pending := s.cache.pool.State(); total != sum || pending != 0 {
		s.t.Errorf("%d bytes are charged (%d of them leaving), the files have %d", total, pending, sum)
	}
	if n := s.cache.pool.Reservations(); n != 0 {
		s.t.Errorf("%d reservations were not ended", n)
	}
}

// crash ends the host between two operations on the disk.
func (s *schedule) crash() {
	s.fsys.crashed.Store(true)
	s.close()
}

func (s *schedule) close() {
	s.t.Helper()
	if err := s.cache.Close(); err != nil {
		s.t.Error(err)
	}
	s.clients.Wait()
	if err := errors.Join(s.store.Close(), s.fsys.FS.(io.Closer).Close()); err != nil {
		s.t.Error(err)
	}
	if left := s.fsys.leftOpen(); len(left) > 0 {
		s.t.Errorf("files are left open: %q", left)
	}
}
