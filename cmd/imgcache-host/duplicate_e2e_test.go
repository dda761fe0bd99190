package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
	"golang.org/x/sync/errgroup"
)

// The tests of this file are the three scenarios of duplicate-downloads, a
// specification that Glance approved and never merged: however many clients
// ask at once for an image that is not cached, the origin sends it once; a
// client that leaves fails alone; and nobody waits for the end of the fill to
// get the bytes that are there.

// TestDuplicateDownloadsOneTransfer is "Concurrent Requests for Uncached
// Image": n requests, one download, and every request succeeds.
func TestDuplicateDownloadsOneTransfer(t *testing.T) {
	t.Parallel()
	const size = 8*mib + 3
	origin := newOrigin(t)
	d := start(t, setup{origin: origin.block()})
	for _, clients := range []int{1, 2} {
		img := origin.add(fmt.Sprintf("for-%d", clients), size).gateAt(size / 2)
		var group errgroup.Group
		have := make([]atomic.Int64, clients)
		for i := range have {
			group.Go(func() error { return d.watch(img.testImage, store(&have[i])) })
		}
		d.eventually("every request is answered before the image is whole", func() bool { return all(have, func(n int64) bool { return n > 0 }) })
		img.release()
		if err := group.Wait(); err != nil {
			t.Errorf("%d clients: %v", clients, err)
		}
		img.sentOnce(t)
		d.waitCached(img)
	}
}

// TestDuplicateDownloadsFirstClientLeaves is "Concurrent Requests for Uncached
// Image Fails": the client whose request began the download closes its
// connection half-way.
func TestDuplicateDownloadsFirstClientLeaves(t *testing.T) {
	t.Parallel()
	const size = 24 * mib
	origin := newOrigin(t)
	img := origin.add("debian", size).gateAt(size * 4 / 10)
	d := start(t, setup{origin: origin.block()})

	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	first, err := d.request(ctx, http.MethodGet, "debian")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Body.Close()
	var others errgroup.Group
	for range 2 {
		others.Go(func() error { return d.watch(img.testImage, nil) })
	}
	if n, err := io.CopyN(io.Discard, first.Body, size*3/10); err != nil {
		t.Fatalf("the first client has %d bytes: %v", n, err)
	}
	leave()
	if _, err := io.Copy(io.Discard, first.Body); err == nil {
		t.Error("the first client's download ended well")
	}
	img.release()
	if err := others.Wait(); err != nil {
		t.Error(err)
	}
	img.sentOnce(t)
	d.waitCached(img)
}

// TestDuplicateDownloadsStream is "Stream to all requests while caching".
// Instead of comparing durations it holds the origin back: whoever has all the
// bytes that the origin has sent has waited for nothing else.
func TestDuplicateDownloadsStream(t *testing.T) {
	t.Parallel()
	const size, sent = 16 * mib, 10*mib + 12345
	origin := newOrigin(t)
	img := origin.add("debian", size).gateAt(sent)
	d := start(t, setup{origin: origin.block()})

	have := make([]atomic.Int64, 2)
	var group errgroup.Group
	for i := range have {
		group.Go(func() error { return d.watch(img.testImage, store(&have[i])) })
	}
	d.eventually("both clients have what the origin has sent", func() bool { return all(have, func(n int64) bool { return n == sent }) })
	if s := d.state("debian").State; s != cache.StateFilling {
		t.Errorf("meanwhile the image is %s", s)
	}
	img.release()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	img.sentOnce(t)
	d.waitCached(img)
}

// store is called with each number of bytes that a client has.
func store(have *atomic.Int64) func(int64) error {
	return func(n int64) error {
		have.Store(n)
		return nil
	}
}

func all(have []atomic.Int64, holds func(int64) bool) bool {
	for i := range have {
		if !holds(have[i].Load()) {
			return false
		}
	}
	return true
}

// sentOnce fails the test unless the origin has sent the image exactly once.
func (f *offered) sentOnce(t *testing.T) {
	t.Helper()
	if gets, _, sent := f.counts(); gets != 1 || sent != f.size {
		t.Errorf("%s: %d GETs and %d bytes at the origin, want 1 and %d", f.id, gets, sent, f.size)
	}
}

// waitCached waits until an image is cached, and wants a hit of it that is
// whole.
func (d *daemon) waitCached(img *offered) {
	d.t.Helper()
	d.waitState(img.id, cache.StateCached)
	if a := d.get(img.id); img.check(a) != nil || !strings.Contains(a.cacheStatus(), "; hit") {
		d.t.Errorf("afterwards: %v, %s", img.check(a), a.cacheStatus())
	}
	img.sentOnce(d.t)
}
