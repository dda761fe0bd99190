package main

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
)

// interruptions is how often a transfer is broken off.
const interruptions = 10

// large is the size of the image whose transfer is broken off: a GiB where all
// tests are run, a quarter of it otherwise.
func large() int64 {
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		return 1 << 30
	}
	return 256 * mib
}

// wantSent checks that the origin sent hardly more than the image: at most a
// twentieth more of a GiB, which is what may be lost at each interruption.
func wantSent(t *testing.T, img *offered) {
	t.Helper()
	gets, _, sent := img.counts()
	t.Logf("%d interruptions, %d transfers, %d bytes sent, %.4f of the image", interruptions, gets, sent, float64(sent)/float64(img.size))
	if most := img.size + 1<<30/20; sent > most {
		t.Errorf("the origin sent %d bytes for an image of %d, want at most %d", sent, img.size, most)
	}
	if gets != 1+interruptions {
		t.Errorf("%d transfers for %d interruptions", gets, interruptions)
	}
}

// place is where the nth interruption is.
func place(size int64, n int) int64 { return size * int64(n+1) / (interruptions + 1) }

// TestCutsAndResumes cuts a transfer at ten places. No client notices, and
// nothing is fetched twice.
func TestCutsAndResumes(t *testing.T) {
	origin := newOrigin(t)
	img := origin.add("large", large()).limit(512 * mib)
	d := start(t, setup{origin: origin.block()})
	img.cutAt(place(img.size, 0))
	whole := make(chan error, 1)
	go func() { whole <- d.watch(img.testImage, nil) }()
	for n := range interruptions {
		d.eventually("the next place is reached", func() bool {
			img.mu.Lock()
			defer img.mu.Unlock()
			return img.refuses
		})
		img.refuse(false)
		if n+1 < interruptions {
			img.cutAt(place(img.size, n+1))
		}
	}
	if err := <-whole; err != nil {
		t.Error(err)
	}
	d.waitState("large", cache.StateCached)
	wantSent(t, img)
}

// TestKillsAndResumes kills the service at ten places of a transfer, which
// each start takes up where it stood.
func TestKillsAndResumes(t *testing.T) {
	origin := newOrigin(t)
	img := origin.add("large", large()).limit(128 * mib)
	d := start(t, setup{origin: origin.block()})
	sent := func() int64 {
		_, _, n := img.counts()
		return n
	}
	cut := make(chan error, 1)
	go func() { cut <- d.watch(img.testImage, nil) }()
	for n := range interruptions {
		d.eventually("the next place is reached", func() bool { return sent() >= place(img.size, n) })
		d.kill9()
		if n == 0 {
			if err := <-cut; err == nil {
				t.Error("a client of the killed service got the whole image")
			}
		}
		d.restart()
	}
	if err := d.watch(img.testImage, nil); err != nil {
		t.Error(err)
	}
	d.waitState("large", cache.StateCached)
	wantSent(t, img)
}

// TestContentChangesMeanwhile: what was fetched of one version is never
// continued with another.
func TestContentChangesMeanwhile(t *testing.T) {
	t.Parallel()
	const size = 24 * mib
	for name, interrupt := range map[string]func(*daemon, *offered){
		"the origin is away for a while": func(d *daemon, _ *offered) {
			d.eventually("the fill is over", func() bool { return d.state("image").State == cache.StateAbsent })
		},
		"the service is killed": func(d *daemon, _ *offered) {
			d.kill9()
			d.restart()
		},
		"it is cut": func(*daemon, *offered) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			origin := newOrigin(t)
			img := origin.add("image", size).cutAt(size / 2)
			d := start(t, setup{origin: origin.block(), cache: "fill {\n retries = 2\n }"})
			cut := make(chan error, 1)
			go func() { cut <- d.watch(img.testImage, nil) }()
			d.eventually("it is cut", func() bool {
				img.mu.Lock()
				defer img.mu.Unlock()
				return img.refuses
			})
			later := newImage("image", size)
			later.seed++
			interrupt(d, img)
			img.set(func(f *offered) { f.testImage, f.etag = later, `"later"` })
			img.refuse(false)
			if err := <-cut; err == nil {
				t.Error("a client got half of each version and took it for whole")
			}
			d.eventually("the later version is served", func() bool { return later.check(d.get("image")) == nil })
			d.waitState("image", cache.StateCached)
			if err := later.check(d.get("image")); err != nil {
				t.Errorf("cached: %v", err)
			}
		})
	}
}

// TestHashedIDsSurvive: with several origins the id of an image in a
// directory of its origin is a hash. What is queued, or half fetched, under
// such an id is known by its path after a restart.
func TestHashedIDsSurvive(t *testing.T) {
	t.Parallel()
	const size = 8 * mib
	web := newOrigin(t)
	queued := web.add("debian/12/disk.raw", size)
	half := web.add("debian/13/disk.raw", size).cutAt(size / 2)
	queued.refuse(true)
	d := start(t, setup{origin: web.block(`prefix = "/mirror/"`) + fmt.Sprintf("origin \"directory\" \"golden\" {\n  path = %q\n  prefix = \"/golden/\"\n}\n", t.TempDir())})
	fetch := func(img *offered) answer {
		resp, err := d.web.Get("http://" + d.public + "/mirror/" + img.id)
		if err != nil {
			t.Fatal(err)
		}
		return read(resp)
	}
	for _, img := range []*offered{queued, half} {
		if a := fetch(img); a.err == nil && a.status == http.StatusOK {
			t.Errorf("%s is served though its origin is away", img.id)
		}
	}
	id := func(img *offered) string {
		sum := sha256.Sum256([]byte(img.id))
		return fmt.Sprintf("far.%x", sum[:16])
	}
	if ok, err := d.api.Queue(t.Context(), id(queued)); !ok || err != nil {
		t.Fatalf("queue: %v, %v", ok, err)
	}
	d.eventually("the partial file waits", func() bool { return len(d.files("incomplete")) == 1 })
	d.stop()
	d.restart()
	queued.refuse(false)
	half.refuse(false)
	d.waitState(id(queued), cache.StateCached)
	d.eventually("the interrupted fill goes on, or can", func() bool {
		_, _ = d.api.Queue(t.Context(), id(half))
		return d.state(id(half)).State == cache.StateCached
	})
	for _, img := range []*offered{queued, half} {
		if a := fetch(img); img.check(a) != nil || !strings.Contains(a.cacheStatus(), "; hit") {
			t.Errorf("%v, %s", img.check(a), a.cacheStatus())
		}
	}
	if _, _, sent := half.counts(); sent > size+mib {
		t.Errorf("%d bytes were sent of an image of %d", sent, size)
	}
}
