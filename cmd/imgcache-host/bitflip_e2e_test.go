package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
)

// flipped is how many blocks the images of these tests have: five whole ones
// and a part.
const (
	flippedSize   = 5*mib + 777
	flippedBlocks = 6
)

// flip changes a bit in a block of a cached image, by a descriptor of its own.
// The file's time tells of it unless hidden.
func (d *daemon) flip(id string, block int64, hidden bool) {
	d.t.Helper()
	path := filepath.Join(d.dir, id)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		d.t.Fatal(err)
	}
	b, at := make([]byte, 1), block*mib+500
	if _, err := f.ReadAt(b, at); err != nil {
		d.t.Fatal(err)
	}
	b[0] ^= 0x20
	if _, err := f.WriteAt(b, at); err != nil {
		d.t.Fatal(err)
	}
	if hidden {
		if err := os.Chtimes(path, time.Time{}, fi.ModTime()); err != nil {
			d.t.Fatal(err)
		}
	}
}

// spans are the requests for an image of which a block is bad: the whole, a
// range across the block, one within it, and the last bytes.
func spans(block int64) [][2]int64 {
	return [][2]int64{
		{0, flippedSize},
		{max(0, block*mib-10), min(flippedSize, (block+1)*mib+10)},
		{block*mib + 490, block*mib + 510},
		{flippedSize - 100, flippedSize},
	}
}

// ask downloads [from, to) of an image and says what came. The error is for
// what must never come: wrong bytes, or a clean end of too few.
func (d *daemon) ask(img *testImage, from, to int64) (whole bool, err error) {
	fields := []string{"Range", fmt.Sprintf("bytes=%d-%d", from, to-1)}
	status := http.StatusPartialContent
	if from == 0 && to == img.size {
		fields, status = nil, http.StatusOK
	}
	resp, err := d.request(d.t.Context(), http.MethodGet, img.id, fields...)
	if err != nil {
		return false, nil // cut before its header
	}
	a := read(resp)
	switch {
	case a.status >= http.StatusInternalServerError:
		return false, nil
	case a.status != status:
		return false, fmt.Errorf("%s [%d, %d): status %d", img.id, from, to, a.status)
	case !img.equal(a.body, from):
		return false, fmt.Errorf("%s [%d, %d): wrong bytes among %d", img.id, from, to, len(a.body))
	case a.err == nil && int64(len(a.body)) != to-from:
		return false, fmt.Errorf("%s [%d, %d): a clean end after %d bytes", img.id, from, to, len(a.body))
	}
	return a.err == nil, nil
}

// askAll sends all requests for all images at once; the nth image has its nth
// block bad. It returns how many had the whole answer.
func (d *daemon) askAll(images []*offered) (whole int) {
	d.t.Helper()
	var clients sync.WaitGroup
	var mu sync.Mutex
	for n, img := range images {
		for _, span := range spans(int64(n)) {
			clients.Go(func() {
				ok, err := d.ask(img.testImage, span[0], span[1])
				if err != nil {
					d.t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if ok {
					whole++
				}
			})
		}
	}
	clients.Wait()
	return whole
}

// offerFlipped offers an image for each block and has them all cached.
func offerFlipped(t *testing.T, s setup) (d *daemon, images []*offered) {
	t.Helper()
	o := newOrigin(t)
	for n := range flippedBlocks {
		images = append(images, o.add(fmt.Sprintf("image-%d", n), flippedSize))
		if n%2 == 0 {
			images[n].declare(nil)
		}
	}
	s.origin = o.block()
	d = start(t, s)
	for _, img := range images {
		d.refetch(img)
	}
	return d, images
}

// refetch downloads an image, which is cached then.
func (d *daemon) refetch(img *offered) {
	d.t.Helper()
	if err := img.check(d.get(img.id)); err != nil {
		d.t.Error(err)
	}
	d.waitState(img.id, cache.StateCached)
}

// flipAll changes a bit in the nth block of the nth image.
func (d *daemon) flipAll(images []*offered, hidden bool) {
	d.t.Helper()
	for n, img := range images {
		d.flip(img.id, int64(n), hidden)
	}
}

// wantQuarantined checks that each image was found bad once and that the files
// are kept and counted, until a clean.
func (d *daemon) wantQuarantined(what string, images []*offered) {
	d.t.Helper()
	if n := d.usage().Quarantined; n != uint64(len(images)) {
		d.t.Errorf("%s: %d images were quarantined, want %d", what, n, len(images))
	}
	if kept := d.files("invalid"); len(kept) != len(images) {
		d.t.Errorf("%s: invalid/ has %v, want each of the %d images", what, kept, len(images))
	}
	for _, img := range images {
		d.refetch(img)
	}
	if u := d.usage(); u.Bytes != int64(2*len(images)*flippedSize) {
		d.t.Errorf("%s: %d bytes are used, want the images and the bad files", what, u.Bytes)
	}
	d.run(0, "clean")
	if u := d.usage(); u.Bytes != int64(len(images)*flippedSize) {
		d.t.Errorf("%s: after a clean %d bytes are used, want the images", what, u.Bytes)
	}
}

// TestBitFlipsOffline changes a bit in each block of images while the service
// is down: no client gets a wrong byte, and all get theirs from the origin.
func TestBitFlipsOffline(t *testing.T) {
	for _, hidden := range []bool{true, false} {
		what := fmt.Sprintf("the time of the files is kept: %v", hidden)
		d, images := offerFlipped(t, setup{})
		d.stop()
		d.flipAll(images, hidden)
		d.restart()
		if whole := d.askAll(images); whole != len(images)*len(spans(0)) {
			t.Errorf("%s: %d requests had their answer", what, whole)
		}
		d.askAll(images) // whoever asked for a good block alone has not found the bad one
		d.wantQuarantined(what, images)
	}
}

// TestBitFlipsOnline changes them between two reads of a running service.
func TestBitFlipsOnline(t *testing.T) {
	d, images := offerFlipped(t, setup{})
	for n, hidden := range []bool{true, false} {
		what := fmt.Sprintf("the time of the files is kept: %v", hidden)
		d.flipAll(images, hidden)
		for _, img := range images {
			if a := d.do(http.MethodHead, img.id); a.status != http.StatusOK || a.header.Get("Content-Length") != fmt.Sprint(flippedSize) {
				t.Errorf("%s: HEAD of %s: %d %v", what, img.id, a.status, a.header)
			}
		}
		if whole := d.askAll(images); whole != len(images)*len(spans(0)) {
			t.Errorf("%s: %d requests had their answer", what, whole)
		}
		if got := d.usage().Quarantined; got != uint64((n+1)*len(images)) {
			t.Errorf("%s: %d images were quarantined, want %d", what, got, (n+1)*len(images))
		}
		for _, img := range images {
			d.refetch(img)
		}
	}
}

// TestBitFlipsWithoutOrigin: what nobody can replace is cut, never wrong.
func TestBitFlipsWithoutOrigin(t *testing.T) {
	d, images := offerFlipped(t, setup{})
	d.flipAll(images, true)
	for _, img := range images {
		img.refuse(true)
	}
	if whole := d.askAll(images); whole >= len(images)*len(spans(0)) {
		t.Errorf("all %d requests had their answer, though blocks are bad and the origin is away", whole)
	}
	for n, img := range images {
		if whole, _ := d.ask(img.testImage, 0, img.size); whole {
			t.Errorf("%s was had whole, of which block %d is bad", img.id, n)
		}
		img.refuse(false)
		d.refetch(img)
	}
	d.wantQuarantined("origin away", images)
}

// TestVerifyCommand finds what has gone bad though nobody reads it, says so,
// and finds nothing the second time.
func TestVerifyCommand(t *testing.T) {
	d, images := offerFlipped(t, setup{cache: `verify_reads = "never"`})
	d.flip("image-3", 3, true)
	stranger := newImage("stranger", 2*mib+5)
	writeFile(t, filepath.Join(d.dir, "stranger"), string(stranger.bytes(0, stranger.size)))
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(d.dir, "stranger"), old, old); err != nil {
		t.Fatal(err)
	}
	d.eventually("the file that was put there is known", func() bool { return d.state("stranger").State == cache.StateCached })
	out, errs := d.run(1, "verify")
	for _, want := range []string{"right 6 images", "verified on read from now on 1 image", "bad image-3"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if !strings.Contains(errs, "100 %") || !strings.Contains(errs, "1 image was corrupt") {
		t.Errorf("progress and complaint are\n%s", errs)
	}
	if info := d.state("stranger"); !info.Verified || info.SHA256 != stranger.hex() || info.LastChecked.IsZero() {
		t.Errorf("the file that was put there: %+v", info)
	}
	if out, errs := d.run(0, "verify"); !strings.Contains(out, "6 images") {
		t.Errorf("the second time:\n%s%s", out, errs)
	}
	if _, errs := d.run(3, "verify", "image-3"); !strings.Contains(errs, "not cached") {
		t.Errorf("an image that is not cached:\n%s", errs)
	}
	// What is sent unread comes from the kernel; it must be the same bytes.
	for _, img := range images {
		for range 2 {
			if err := img.check(d.get(img.id)); err != nil {
				t.Error(err)
			}
		}
	}
	d.stop()
	d.flip("image-4", 5, false)
	if out, _ := d.offline(1, "verify"); !strings.Contains(strings.Join(strings.Fields(out), " "), "bad image-4") {
		t.Errorf("while the service does not run:\n%s", out)
	}
}
