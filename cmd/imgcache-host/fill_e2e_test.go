package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"golang.org/x/sync/errgroup"
)

const mib = 1 << 20

// TestMissThenHit is the main line: everything that a client sees of an image
// that comes from the origin and then from the cache.
func TestMissThenHit(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	img := origin.add("debian", 5*mib+17)
	d := start(t, setup{origin: origin.block()})

	head := d.do(http.MethodHead, "debian")
	if head.status != http.StatusOK || len(head.body) != 0 || head.header.Get("Content-Length") != "5242897" {
		t.Errorf("HEAD of an absent image: %d %v", head.status, head.header)
	}
	if gets, heads, sent := img.counts(); gets != 0 || heads == 0 || sent != 0 {
		t.Errorf("HEAD made the origin see %d GET, %d HEAD, and send %d bytes", gets, heads, sent)
	}
	if s := d.state("debian").State; s != cache.StateAbsent {
		t.Errorf("after a HEAD the image is %s", s)
	}

	miss := d.get("debian")
	d.waitState("debian", cache.StateCached)
	hit := d.get("debian")
	for name, a := range map[string]answer{"miss": miss, "hit": hit} {
		if err := img.check(a); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if a.header.Get("ETag") != img.etag || a.header.Get("Accept-Ranges") != "bytes" || a.header.Get("Content-Length") != "5242897" {
			t.Errorf("%s: header %v", name, a.header)
		}
	}
	if s := miss.cacheStatus(); !strings.Contains(s, "fwd=miss") || !strings.Contains(s, "stored") {
		t.Errorf("Cache-Status of the miss: %s", s)
	}
	if s := hit.cacheStatus(); !strings.Contains(s, "; hit") {
		t.Errorf("Cache-Status of the hit: %s", s)
	}
	if gets, _, sent := img.counts(); gets != 1 || sent != img.size {
		t.Errorf("the origin saw %d GETs and sent %d bytes", gets, sent)
	}
	if info := d.state("debian"); info.SHA256 != img.hex() || !info.Verified || info.Size != img.size {
		t.Errorf("record: %+v", info)
	}
}

// TestPartsOfCachedImage asks a cached image for less than all of it.
func TestPartsOfCachedImage(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	img := origin.add("debian", 3*mib+5)
	d := start(t, setup{origin: origin.block()})
	if err := img.check(d.get("debian")); err != nil {
		t.Fatal(err)
	}
	d.waitState("debian", cache.StateCached)
	for _, tc := range []struct {
		name, field, value string
		status             int
		from, to           int64
	}{
		{"the middle", "Range", "bytes=1048570-2097160", 206, 1048570, 2097161},
		{"the end", "Range", "bytes=-7", 206, img.size - 7, img.size},
		{"the rest", "Range", "bytes=3145728-", 206, 3145728, img.size},
		{"behind the end", "Range", "bytes=99999999-", 416, 0, 0},
		{"the same version", "If-None-Match", img.etag, 304, 0, 0},
		{"another version", "If-None-Match", `"other"`, 200, 0, img.size},
		{"not the expected version", "If-Match", `"other"`, 412, 0, 0},
	} {
		a := d.get("debian", tc.field, tc.value)
		if a.status != tc.status || a.err != nil {
			t.Errorf("%s: status %d, want %d (%v)", tc.name, a.status, tc.status, a.err)
		}
		if tc.to > 0 && string(a.body) != string(img.bytes(tc.from, tc.to)) {
			t.Errorf("%s: %d bytes that are not [%d, %d)", tc.name, len(a.body), tc.from, tc.to)
		}
	}
	if gets, _, sent := img.counts(); gets != 1 || sent != img.size {
		t.Errorf("the origin saw %d GETs and sent %d bytes", gets, sent)
	}
}

// TestManyClientsOneTransfer is the herd: many clients at once on a large
// image that nobody has asked for before.
func TestManyClientsOneTransfer(t *testing.T) {
	const clients, size = 50, 256 * mib
	origin := newOrigin(t)
	img := origin.add("large", size).limit(32 * mib).gateAt(size/10 - 1)
	d := start(t, setup{origin: origin.block()})

	begun := time.Now()
	first := make(chan time.Duration, clients)
	var group errgroup.Group
	for range clients {
		group.Go(func() error {
			resp, err := d.request(t.Context(), http.MethodGet, "large")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			var once sync.Once
			return img.follow(resp.Body, func(int64) error {
				once.Do(func() { first <- time.Since(begun) })
				return nil
			})
		})
	}
	var waits []time.Duration
	for range clients {
		select {
		case w := <-first:
			waits = append(waits, w)
		case <-time.After(patience):
			t.Fatalf("only %d clients have a byte while the origin holds back nine tenths", len(waits))
		}
	}
	_, _, sent := img.counts()
	if sent >= size/10 {
		t.Errorf("the origin has sent %d bytes", sent)
	}
	img.release()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	took := time.Since(begun)
	gets, _, sent := img.counts()
	if gets != 1 || sent != size {
		t.Errorf("%d GETs, %d bytes from the origin, want 1 and %d", gets, sent, size)
	}
	d.waitState("large", cache.StateCached)
	slices.Sort(waits)
	t.Logf("%d clients, %d MiB: first byte after %v (median), %v (last); all had everything after %v, %.0f MiB/s; one transfer of %d bytes",
		clients, size/mib, waits[clients/2], waits[clients-1], took, clients*size/mib/took.Seconds(), sent)
}

// watch downloads an image and compares it on the way.
func (d *daemon) watch(want *testImage, each func(int64) error) error {
	resp, err := d.request(d.t.Context(), http.MethodGet, want.id)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return want.follow(resp.Body, each)
}

// TestOriginBreaksOff lets the origin go away in the middle of an image.
func TestOriginBreaksOff(t *testing.T) {
	t.Parallel()
	const size, clients = 20 * mib, 4
	origin := newOrigin(t)
	img := origin.add("debian", size).cutAt(size * 6 / 10)
	d := start(t, setup{origin: origin.block(), cache: "fill {\n retries = 2\n }"})

	ends := make(chan error, clients)
	for range clients {
		go func() { ends <- d.watch(img.testImage, nil) }()
	}
	for range clients {
		if err := <-ends; err == nil || errors.Is(err, errOther) {
			t.Errorf("a client's download ended with %v", err)
		}
	}
	d.eventually("the fill is over", func() bool { return d.state("debian").State == cache.StateAbsent })
	if info := d.state("debian"); info.Error == "" {
		t.Error("nothing says why the image is absent")
	}
	d.eventually("what was fetched waits for the next request", func() bool { return len(d.files("incomplete")) == 1 })
	_, _, before := img.counts()

	img.refuse(false)
	if a := d.get("debian"); img.check(a) != nil || !strings.Contains(a.cacheStatus(), "fwd=miss") {
		t.Errorf("once the origin is back: %v, %s", img.check(a), a.cacheStatus())
	}
	d.waitState("debian", cache.StateCached)
	if _, _, after := img.counts(); after-before > size*4/10+mib {
		t.Errorf("the origin sent %d bytes again", after-before-size*4/10)
	}
	if a := d.get("debian"); img.check(a) != nil || !strings.Contains(a.cacheStatus(), "; hit") {
		t.Errorf("and again: %v, %s", img.check(a), a.cacheStatus())
	}
}

// noFiles waits until the cache directory has nothing of an image: what was not
// stored is removed beside the work for clients.
func (d *daemon) noFiles(id string) {
	d.t.Helper()
	d.eventually("the cache directory has nothing of "+id, func() bool {
		for _, dir := range []string{".", "incomplete", ".imgcache/blocks"} {
			if slices.ContainsFunc(d.files(dir), func(name string) bool { return strings.HasPrefix(name, id) }) {
				return false
			}
		}
		return true
	})
}

// TestOriginResumes cuts a transfer that can go on at once: nobody notices.
func TestOriginResumes(t *testing.T) {
	t.Parallel()
	const size = 16 * mib
	origin := newOrigin(t)
	img := origin.add("debian", size).cutAt(size / 2)
	d := start(t, setup{origin: origin.block()})
	err := d.watch(img.testImage, func(n int64) error {
		if n >= size/2 {
			img.refuse(false)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	d.waitState("debian", cache.StateCached)
	if _, _, sent := img.counts(); sent != size {
		t.Errorf("the origin sent %d of %d bytes", sent, size)
	}
}

// TestWrongDigest offers an image that is not what its digest says.
func TestWrongDigest(t *testing.T) {
	t.Parallel()
	const size, clients = 9 * mib, 3
	origin := newOrigin(t)
	img := origin.add("debian", size).declare(newImage("other", size)).gateAt(size / 2)
	d := start(t, setup{origin: origin.block()})
	ends := make(chan error, clients)
	for range clients {
		go func() { ends <- d.watch(img.testImage, nil) }()
	}
	d.waitState("debian", cache.StateFilling)
	img.release()
	for range clients {
		if err := <-ends; err == nil || errors.Is(err, errOther) {
			t.Errorf("a client's download ended with %v", err)
		}
	}
	d.waitState("debian", cache.StateAbsent)
	d.eventually("the file is kept in invalid/", func() bool { return slices.Contains(d.files("invalid"), "debian") })
	d.noFiles("debian")
	if info := d.state("debian"); !strings.Contains(info.Error, "sha256") {
		t.Errorf("the reason given is %q", info.Error)
	}

	img.declare(nil)
	if err := img.check(d.get("debian")); err != nil {
		t.Errorf("with the right digest: %v", err)
	}
	d.waitState("debian", cache.StateCached)
}

// TestImageLargerThanCache passes an image through that can never be stored.
func TestImageLargerThanCache(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	img := origin.add("large", 20*mib)
	d := start(t, setup{origin: origin.block(), cache: `max_size = "8MiB"`})
	var group errgroup.Group
	for range 4 {
		group.Go(func() error { return d.watch(img.testImage, nil) })
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	d.waitState("large", cache.StateAbsent)
	d.noFiles("large")
	d.eventually("nothing is charged", func() bool { u := d.usage(); return u.Bytes == 0 && u.Images == 0 })
}

// TestEvictionWhileDownloading has more images than room, and several clients
// that ask for all of them.
func TestEvictionWhileDownloading(t *testing.T) {
	t.Parallel()
	const limit = 20 * mib
	origin := newOrigin(t)
	var images []*offered
	for _, id := range strings.Fields("a b c d e f g h i j") {
		images = append(images, origin.add(id, 5*mib+int64(len(images))))
	}
	d := start(t, setup{origin: origin.block(), cache: `max_size = "20MiB"`})

	over := make(chan int64, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { over <- d.highestUsage(ctx) }()
	var group errgroup.Group
	for n := range 4 {
		group.Go(func() error {
			for i := range 2 * len(images) {
				if err := d.watch(images[(3*n+i)%len(images)].testImage, nil); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	stop()
	if most := <-over; most > limit || most == 0 {
		t.Errorf("usage reached %d bytes, max_size is %d", most, limit)
	}
	d.eventually("images stay in the cache", func() bool { u := d.usage(); return u.Images >= 2 && u.Bytes <= limit })
}

// highestUsage looks at the usage, again and again until the context ends.
func (d *daemon) highestUsage(ctx context.Context) (most int64) {
	for ctx.Err() == nil {
		if u, err := d.api.Usage(ctx); err == nil {
			most = max(most, u.Bytes)
		}
	}
	return most
}

// TestDiskFull gives the cache a file system that is smaller than its limit.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	origin := newOrigin(t)
	img := origin.add("large", 20*mib)
	small := origin.add("small", mib)
	d := start(t, setup{origin: origin.block(), dir: filepath.Join(disk, "images")})
	var group errgroup.Group
	for range 4 {
		group.Go(func() error { return d.watch(img.testImage, nil) })
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	d.waitState("large", cache.StateAbsent)
	d.noFiles("large")
	if kept := d.files("invalid"); len(kept) != 0 {
		t.Errorf("invalid/ takes up the full disk with %v", kept)
	}
	d.eventually("what fits is cached again", func() bool {
		if err := small.check(d.get("small")); err != nil {
			t.Fatal(err)
		}
		return d.state("small").State == cache.StateCached
	})
}

// TestDirectoryGone takes parts of the cache directory away under a running
// service: it makes them anew, and stores as before.
func TestDirectoryGone(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	img := origin.add("debian", 6*mib)
	d := start(t, setup{origin: origin.block()})
	for _, dir := range []string{"incomplete", ".imgcache/blocks"} {
		if err := os.Rename(filepath.Join(d.dir, dir), filepath.Join(t.TempDir(), "away")); err != nil {
			t.Fatal(err)
		}
	}
	var group errgroup.Group
	for range 4 {
		group.Go(func() error { return d.watch(img.testImage, nil) })
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	d.waitState("debian", cache.StateCached)
	d.eventually("the image is charged, and the disk is well", func() bool {
		u := d.usage()
		return u.Disk == "ok" && u.Bytes == img.size
	})
}

// TestNamesOfRoutes has images whose ids are words of paths and of other APIs:
// Glance once took the image "detail" for a list.
func TestNamesOfRoutes(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	d := start(t, setup{origin: origin.block()})
	for i, id := range []string{"detail", "data", "images", "v1", "healthz", "metrics", "usage", "null", "0"} {
		img := origin.add(id, int64(1000+i))
		if err := img.check(d.get(id)); err != nil {
			t.Error(err)
		}
		d.waitCached(img)
		if err := img.check(d.call(http.MethodGet, "/v1/images/"+id+"/data", "")); err != nil {
			t.Error(err)
		}
		if info := d.state(id); info.ID != id || info.Size != img.size {
			t.Errorf("%+v, want the image %s", info, id)
		}
		d.eventually("two hits are counted", func() bool { return d.state(id).Hits == 2 })
		if d.enqueue(id) {
			t.Errorf("%s is queued", id)
		}
		for _, path := range []string{"/v1/queue/" + id, "/v1/images/" + id} {
			if a := d.call(http.MethodDelete, path, ""); a.status != http.StatusNoContent {
				t.Errorf("DELETE %s: %d %s", path, a.status, a.body)
			}
		}
		d.waitState(id, cache.StateAbsent)
	}
}
