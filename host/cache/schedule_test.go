package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
)

// TestSchedules runs fills under random schedules of cuts, slow and leaving
// clients, write errors, deletes, prunes, crashes and a driver that fails, and
// checks after each step that only whole images are visible, that nobody took
// wrong bytes for whole and that the limit holds, and at the end that hits are
// recorded, bytes counted right, and nothing left open. The name of a subtest
// is its seed.
func TestSchedules(t *testing.T) {
	seeds := uint64(500)
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		seeds = 10_000
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			open := openFiles(t)
			stuck := time.AfterFunc(3*time.Minute, func() { panic(fmt.Sprintf("seed %d spins or hangs", seed)) })
			defer stuck.Stop()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { newSchedule(t, seed, dir).run() })
			if n := openFiles(t); n > open {
				t.Errorf("%d files are left open", n-open)
			}
		})
	}
}

// schedule is one random run. All versions of the image's content are known,
// so that what a client got can be told apart.
type schedule struct {
	t      *testing.T
	rng    *rand.Rand
	dir    string
	fsys   *flakyFS
	store  *store.Store
	cache  *Cache
	origin *fakeOrigin
	driver *faultyDriver
	max    int64
	calm   bool // nothing happened that takes hits away

	clients sync.WaitGroup
	mu      sync.Mutex // guards what clients report
	known   map[string]bool
	hits    uint64 // that clients saw
}

func newSchedule(t *testing.T, seed uint64, dir string) *schedule {
	rng := rand.New(rand.NewPCG(seed, 5))
	s := &schedule{
		t: t, rng: rng, dir: dir, known: map[string]bool{}, max: 1 + rng.Int64N(6<<20),
		driver: newFaultyDriver(seed), calm: true,
	}
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
	s.cache, err = New(Config{
		Store: s.store, Origins: s.origin, Driver: s.driver, MaxSize: s.max, Hard: true, KeepFilling: s.rng.IntN(2) == 0, Retries: 2,
	})
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
		s.calm = s.calm && n != 11 && n != 12 && n != 15 && n != 16
		switch {
		case n < 11:
			s.client()
		case n == 11:
			if err := s.cache.Delete(context.Background(), "image"); err != nil && odds == 0 {
				s.t.Errorf("delete: %v", err)
			}
			if odds == 0 {
				s.wantAbsent()
			}
		case n == 12:
			s.replaceContent()
		case n == 13:
			s.origin.setDown(s.rng.IntN(2) == 0)
		case n == 14:
			if _, err := s.cache.Queue("image"); err != nil && odds == 0 {
				s.t.Errorf("queue: %v", err)
			}
		case n == 15:
			s.prune()
		case n == 16:
			s.crash()
			s.open(odds)
		}
		time.Sleep(time.Duration(s.rng.IntN(1000)) * time.Millisecond)
		s.check()
	}
	s.origin.setDown(false)
	s.clients.Wait()
	s.driver.settle()
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
func (s *schedule) wantAbsent() {
	s.t.Helper()
	if _, err := s.store.Stat("image"); !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("after a delete: %v", err)
	}
}

// client downloads the image, at its own pace, and may leave.
func (s *schedule) client() {
	pace := time.Duration(s.rng.IntN(300)) * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	if s.rng.IntN(4) == 0 {
		ctx, cancel = context.WithTimeout(context.Background(), time.Duration(s.rng.IntN(2000))*time.Millisecond)
	}
	c := s.cache
	s.clients.Go(func() {
		defer cancel()
		content, err := c.Open(ctx, "image")
		if err != nil {
			return
		}
		defer content.Close()
		var got slowBuffer
		got.pace = pace
		_, err = content.CopyTo(ctx, &got, 0, -1)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil && content.Outcome().Hit {
			s.hits++
		}
		undetectable := s.origin.corrupt && !s.origin.digest
		whole := s.known[got.String()] || undetectable
		switch {
		case err == nil && !whole:
			s.t.Errorf("a client took %d bytes for the whole image, which they are not", got.Len())
		case err != nil && !s.prefixKnown(got.Bytes()) && !s.origin.corrupt:
			s.t.Errorf("a client got %d bytes of no version before %v", got.Len(), err)
		}
	})
}

func (s *schedule) prefixKnown(p []byte) bool {
	for data := range s.known {
		if bytes.HasPrefix([]byte(data), p) {
			return true
		}
	}
	return false
}

// slowBuffer takes its time.
type slowBuffer struct {
	bytes.Buffer
	pace time.Duration
}

func (b *slowBuffer) Write(p []byte) (int, error) {
	time.Sleep(b.pace)
	return b.Buffer.Write(p)
}

// check looks at the directory as the next start would.
func (s *schedule) check() {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, "image"))
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.known[string(data)] && !(s.origin.corrupt && !s.origin.digest) {
			s.t.Errorf("the cached file, of %d bytes, is no version of the image", len(data))
		}
	}
	// A partial file that is put away is charged twice until the last client of
	// its fill has gone: too much rather than too little.
	total, _ := s.cache.pool.state()
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
	images, records := s.cache.Images(), s.driver.records()
	if len(images) != len(records) {
		s.t.Errorf("%d images, %d records", len(images), len(records))
	}
	for _, im := range images {
		if r := records[im.ID]; r.Hits != im.Hits || r.Size != im.Size {
			s.t.Errorf("%s has %d hits and %d bytes, its record %d and %d", im.ID, im.Hits, im.Size, r.Hits, r.Size)
		}
		switch {
		case im.Hits > s.hits:
			s.t.Errorf("%d hits are recorded, clients had %d", im.Hits, s.hits)
		case s.calm && !s.origin.corrupt && im.Hits != s.hits:
			s.t.Errorf("%d hits are recorded, clients had %d, and nothing took any away", im.Hits, s.hits)
		}
	}
}

// wantCounted compares the pool with the files.
func (s *schedule) wantCounted() {
	s.t.Helper()
	sum := imageBytes(s.t, s.dir)
	if total, pending := s.cache.pool.state(); total != sum || pending != 0 {
		s.t.Errorf("%d bytes are charged (%d of them leaving), the files have %d", total, pending, sum)
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
}
