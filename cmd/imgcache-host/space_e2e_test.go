package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/imgcache/imgcache-host/host/cache"
)

// TestParallelFills has 100 clients fetch 100 images, of random sizes and much
// larger than the cache together. Whether the disk has room beside the images
// or not a byte more than them: no client fails, and the images on it are
// never more than max_size.
func TestParallelFills(t *testing.T) {
	t.Parallel()
	const (
		limit  = 64 * mib
		low    = limit * 8 / 10
		high   = limit * 9 / 10
		images = 100
	)
	for _, tc := range []struct {
		name  string
		disk  int64
		roomy bool
	}{
		{"disk with room for checksums and records", limit + images*8<<10 + 16*mib, true},
		{"disk of exactly max_size", limit, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			origin := newOrigin(t)
			rng := rand.New(rand.NewPCG(1, 100))
			var list []*offered
			for i := range images {
				list = append(list, origin.add(fmt.Sprintf("image-%d", i), 1+rng.Int64N(4*mib)))
			}
			d := start(t, setup{
				origin: origin.block(), dir: filepath.Join(diskOf(t, tc.disk), "images"),
				cache: `max_size = "64MiB"
  prune {
    interval       = "1s"
    high_watermark = 0.9
    low_watermark  = 0.8
  }`,
			})
			var clients errgroup.Group
			for _, img := range list {
				clients.Go(func() error {
					if err := d.watch(img.testImage, nil); err != nil {
						return fmt.Errorf("%s: %w", img.id, err)
					}
					return nil
				})
			}
			ended := make(chan error, 1)
			go func() { ended <- clients.Wait() }()
			most, samples := d.sampleUntil(ended)
			if most > limit || most == 0 {
				t.Errorf("the image files had %d bytes, max_size is %d", most, limit)
			}
			t.Logf("%d samples, at most %d of %d bytes", samples, most, limit)
			if !tc.roomy {
				return
			}
			if u := d.usage(); u.Images == 0 || u.Disk != "ok" {
				t.Errorf("usage: %+v", u)
			}
			next := 0
			d.eventually("the cache is at or below its low watermark", func() bool {
				switch u := d.usage(); {
				case u.Bytes <= low:
					return true
				case u.Bytes <= high: // where it may stay
					if err := d.watch(list[next%images].testImage, nil); err != nil {
						t.Fatal(err)
					}
					next++
				}
				return false
			})
		})
	}
}

// sampleUntil measures the image files until the clients have ended, whose
// error fails the test.
func (d *daemon) sampleUntil(ended <-chan error) (most int64, samples int) {
	d.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		most = max(most, d.imageBytes())
		samples++
		select {
		case err := <-ended:
			if err != nil {
				d.t.Error(err)
			}
			return most, samples
		case <-tick.C:
		}
	}
}

// imageBytes adds up the sizes of all files that hold bytes of images, with
// names or without, while the daemon stands still.
func (d *daemon) imageBytes() (sum int64) {
	d.t.Helper()
	_ = syscall.Kill(d.pid(), syscall.SIGSTOP)
	defer func() { _ = syscall.Kill(d.pid(), syscall.SIGCONT) }()
	d.eventually("the daemon stands still", func() bool { return d.stopped() })
	seen := map[uint64]bool{}
	add := func(fi os.FileInfo) {
		if st := fi.Sys().(*syscall.Stat_t); fi.Mode().IsRegular() && !seen[st.Ino] {
			seen[st.Ino] = true
			sum += fi.Size()
		}
	}
	for _, dir := range []string{"", "incomplete", "invalid", ".imgcache/trash"} {
		entries, err := os.ReadDir(filepath.Join(d.dir, dir))
		if err != nil {
			d.t.Fatal(err)
		}
		for _, e := range entries {
			if fi, err := e.Info(); err == nil {
				add(fi)
			}
		}
	}
	for _, fd := range d.descriptors() {
		to, err := os.Readlink(fd)
		if err != nil || !strings.HasPrefix(to, d.dir) || !strings.HasSuffix(to, " (deleted)") || strings.Contains(to, ".imgcache/blocks") || strings.Contains(to, ".imgcache/fills") {
			continue
		}
		if fi, err := os.Stat(fd); err == nil {
			add(fi)
		}
	}
	return sum
}

// descriptors returns the paths in /proc of what the daemon has open.
func (d *daemon) descriptors() []string {
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.pid()))
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

// stopped reports whether no thread of the daemon runs.
func (d *daemon) stopped() bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.pid()))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if _, state, ok := strings.Cut(string(stat), ") "); err != nil || !ok || state[0] != 'T' {
			return false
		}
	}
	return true
}

// TestDeletedWhileServing deletes an image that a client reads: the client gets
// all of it, and its space is free when the client has gone, not before.
func TestDeletedWhileServing(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	read := origin.add("read", 48*mib) // more than sockets hold
	other := origin.add("other", 20*mib)
	d := start(t, setup{origin: origin.block(), cache: `max_size = "64MiB"`})
	if err := d.watch(read.testImage, nil); err != nil {
		t.Fatal(err)
	}
	d.waitState("read", cache.StateCached)

	begun, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		first := true
		ended <- d.watch(read.testImage, func(int64) error {
			if first {
				first = false
				close(begun)
				<-goOn
			}
			return nil
		})
	}()
	<-begun
	if err := d.api.Delete(t.Context(), "read"); err != nil {
		t.Error(err)
	}
	if u := d.usage(); u.Bytes != read.size || u.Images != 0 {
		t.Errorf("with a reader of a deleted image: %d bytes, %d images", u.Bytes, u.Images)
	}
	if err := other.check(d.get("other")); err != nil {
		t.Error(err)
	}
	d.waitState("other", cache.StateAbsent) // there was no room for it
	if n := d.imageBytes(); n != read.size {
		t.Errorf("the files have %d bytes, want %d", n, read.size)
	}
	close(goOn)
	if err := <-ended; err != nil {
		t.Errorf("the reader: %v", err)
	}
	d.eventually("the space is free", func() bool { return d.usage().Bytes == 0 })
	if err := other.check(d.get("other")); err != nil {
		t.Error(err)
	}
	d.waitState("other", cache.StateCached)
}

// TestMinFreeOfDisk shares a disk with another program. A part of it stays
// free, and no more images leave than that takes.
func TestMinFreeOfDisk(t *testing.T) {
	t.Parallel()
	const keep = 24 * mib
	disk := diskOf(t, 80*mib)
	origin := newOrigin(t)
	d := start(t, setup{
		origin: origin.block(), dir: filepath.Join(disk, "images"),
		cache: "prune {\n    interval = \"1s\"\n    min_free = \"24MiB\"\n  }",
	})
	free := func() int64 {
		var st syscall.Statfs_t
		if err := syscall.Statfs(disk, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bavail) * st.Bsize
	}
	for i := range 20 {
		img := origin.add(fmt.Sprintf("image-%d", i), 4*mib)
		if err := img.check(d.get(img.id)); err != nil {
			t.Error(err)
		}
		if f := free(); f < keep-mib { // a side file may be written between two looks
			t.Errorf("after %d images %d bytes are free", i+1, f)
		}
	}
	if n := d.usage().Images; n < 12 || n > 14 {
		t.Errorf("%d images of 4 MiB are kept on 56 MiB", n)
	}
	writeFile(t, filepath.Join(disk, "of-another-program"), strings.Repeat("x", 16*mib))
	d.eventually("the disk has its free part again", func() bool { return free() >= keep })
	if n := d.usage().Images; n < 8 {
		t.Errorf("%d images are kept on 40 MiB", n)
	}
	if out, _ := d.run(0, "status"); !strings.Contains(out, "of which 24 MiB stay free") {
		t.Errorf("status does not tell:\n%s", out)
	}
}

// TestScanner asks for several cold images at once. Those beyond the bound of
// its client are passed through; another client is not concerned.
func TestScanner(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	d := start(t, setup{origin: origin.block(), cache: "fill {\n    cold_per_client = 1\n  }"})
	ask := func(client, id string) *http.Response {
		t.Helper()
		from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
		web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return from.DialContext(ctx, network, address)
		}}}
		resp, err := web.Get(d.url(id))
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	var asked []*http.Response
	for _, tc := range []struct {
		client, id string
		stored     bool
	}{{"127.0.0.1", "a", true}, {"127.0.0.1", "b", false}, {"127.0.0.2", "c", true}, {"127.0.0.1", "c", true}} {
		origin.mu.Lock()
		known := origin.images[tc.id] != nil
		origin.mu.Unlock()
		if !known {
			origin.add(tc.id, 4*mib).gateAt(mib)
		}
		resp := ask(tc.client, tc.id)
		asked = append(asked, resp)
		status := resp.Header.Get("Cache-Status")
		if strings.Contains(status, "; stored") != tc.stored || strings.Contains(status, "cold_per_client") == tc.stored {
			t.Errorf("%s for %s: Cache-Status: %s", tc.id, tc.client, status)
		}
	}
	for _, id := range []string{"a", "b", "c"} {
		origin.images[id].release()
	}
	for i, id := range []string{"a", "b", "c", "c"} {
		if err := origin.images[id].check(read(asked[i])); err != nil {
			t.Error(err)
		}
	}
	for id, want := range map[string]cache.State{"a": cache.StateCached, "b": cache.StateAbsent, "c": cache.StateCached} {
		d.waitState(id, want)
	}
}
