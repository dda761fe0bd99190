package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/cache"
)

// seedImages are the ids of eleven images of 1 KiB each, in the order in which
// they were last used: all but the last are read after they were written.
var seedImages = strings.Fields("0 1 2 3 4 5 6 7 8 9 99")

// startSeed starts a daemon with the seed images.
func startSeed(t *testing.T, cacheLines string) *daemon {
	t.Helper()
	d := start(t, setup{cache: cacheLines + "\n prune {\n interval = \"1h\"\n }"})
	for _, id := range seedImages[:10] {
		d.write(newImage(id, 1024))
	}
	for _, id := range seedImages[:10] {
		if err := newImage(id, 1024).check(d.call(http.MethodGet, "/v1/images/"+id+"/data", "")); err != nil {
			t.Fatal(err)
		}
	}
	d.write(newImage("99", 1024))
	return d
}

// write brings an image in through the native API.
func (d *daemon) write(img *testImage) {
	d.t.Helper()
	w := d.beginWrite(fmt.Sprintf(`{"id": %q, "size": %d, "sha256": %q}`, img.id, img.size, img.hex()))
	if a := d.call(http.MethodPut, w+"/data", string(img.bytes(0, img.size))); a.status != http.StatusNoContent {
		d.t.Fatalf("write %s: %d %s", img.id, a.status, a.body)
	}
	if a := d.call(http.MethodPost, w+"/commit", ""); a.status != http.StatusOK {
		d.t.Fatalf("commit %s: %d %s", img.id, a.status, a.body)
	}
}

// beginWrite begins a write and returns its path.
func (d *daemon) beginWrite(options string) string {
	d.t.Helper()
	a := d.call(http.MethodPost, "/v1/writes", options)
	var begun struct{ Write string }
	a.decode(d.t, &begun)
	if a.status != http.StatusCreated || begun.Write == "" {
		d.t.Fatalf("begin write %s: %d %s", options, a.status, a.body)
	}
	return "/v1/writes/" + begun.Write
}

// ids returns the cached images.
func (d *daemon) ids() []string {
	d.t.Helper()
	images, err := d.api.Images(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	ids := []string{}
	for _, i := range images {
		ids = append(ids, i.ID)
	}
	return ids
}

// prune sends a prune request.
func (d *daemon) prune(body string) cache.Result {
	d.t.Helper()
	a := d.call(http.MethodPost, "/v1/prune", body)
	var r cache.Result
	a.decode(d.t, &r)
	if a.status != http.StatusOK {
		d.t.Fatalf("prune %s: %d %s", body, a.status, a.body)
	}
	return r
}

// expect fails the test unless exactly these images are cached, in the API
// and in the directory.
func (d *daemon) expect(ids ...string) {
	d.t.Helper()
	ids = append([]string{}, ids...)
	slices.Sort(ids)
	if diff := cmp.Diff(ids, append([]string{}, d.ids()...)); diff != "" {
		d.t.Errorf("cached images (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ids, d.files(".")); diff != "" {
		d.t.Errorf("files (-want +got):\n%s", diff)
	}
	d.eventually("the usage is that of these images", func() bool { return d.usage().Bytes == int64(1024*len(ids)) })
}

func TestPruneToSize(t *testing.T) {
	t.Parallel()
	d := startSeed(t, `max_size = "1MiB"`)
	victims, err := d.api.Victims(t.Context(), 20)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, v := range victims {
		order = append(order, v.ID)
	}
	if diff := cmp.Diff(seedImages, order); diff != "" {
		t.Errorf("victims (-want +got):\n%s", diff)
	}
	for _, tc := range []struct {
		body  string
		files int
		first int // of seedImages that remains
	}{
		{``, 0, 0},                    // far below max_size
		{`{"max_size": 11264}`, 0, 0}, // exactly at the limit
		{`{"max_size": 5120, "dry_run": true}`, 6, 0}, // says so and removes nothing
		{`{"max_size": 5120}`, 6, 6},
		{`{"max_size": 5120}`, 0, 6},
		{`{"max_size": 5119}`, 1, 7},
		{`{"max_size": 0}`, 4, 11},
	} {
		want := cache.Result{Files: tc.files, Bytes: int64(1024 * tc.files)}
		if got := d.prune(tc.body); got != want {
			t.Errorf("prune %s: %+v, want %+v", tc.body, got, want)
		}
		d.expect(seedImages[tc.first:]...)
	}
}

// TestPruneToConfiguredSize is the same with the limit in the configuration.
func TestPruneToConfiguredSize(t *testing.T) {
	t.Parallel()
	d := startSeed(t, "max_size = \"5KiB\"\n limit = \"prune\"")
	d.expect(seedImages...) // nothing but prune looks at the limit
	if got, want := d.prune(""), (cache.Result{Files: 6, Bytes: 6144}); got != want {
		t.Errorf("prune: %+v, want %+v", got, want)
	}
	d.expect("6", "7", "8", "9", "99")
	if got := d.prune(""); got.Files != 0 {
		t.Errorf("prune again: %+v", got)
	}
}

// TestRecordsOfReads looks at what reads leave in the records, also after a
// restart, when they come from the driver.
func TestRecordsOfReads(t *testing.T) {
	t.Parallel()
	d := startSeed(t, `max_size = "1MiB"`)
	for range 3 {
		d.call(http.MethodGet, "/v1/images/7/data", "")
	}
	d.call(http.MethodHead, "/v1/images/5/data", "")
	want := map[string]uint64{"7": 4, "5": 1, "0": 1, "99": 0}
	check := func() {
		t.Helper()
		for id, hits := range want {
			if info := d.state(id); info.Hits != hits || info.State != cache.StateCached {
				t.Errorf("image %s has %d hits, want %d: %+v", id, info.Hits, hits, info)
			}
		}
	}
	check()
	d.stop()
	d.restart()
	check()
	victims, err := d.api.Victims(t.Context(), 20)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(victims); n != 11 || victims[0].ID != "0" || victims[n-1].ID != "7" {
		t.Errorf("victims after a restart: %v", victims)
	}
}

// queue returns the queue.
func (d *daemon) queue() []string {
	d.t.Helper()
	entries, err := d.api.Queued(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return queuedIDs(entries)
}

// enqueue queues an image and says whether that was accepted.
func (d *daemon) enqueue(id string) bool {
	d.t.Helper()
	ok, err := d.api.Queue(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return ok
}

func TestQueueKeepsOrder(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	var ids []string
	for n := range 200 {
		id := fmt.Sprintf("image-%03d", 199-n)
		origin.add(id, 1024).refuse(true)
		ids = append(ids, id)
	}
	d := start(t, setup{origin: origin.block()})
	for _, id := range ids {
		if !d.enqueue(id) {
			t.Errorf("%s is not queued", id)
		}
	}
	if diff := cmp.Diff(ids, d.queue()); diff != "" {
		t.Errorf("queue (-want +got):\n%s", diff)
	}
	if d.enqueue(ids[17]) {
		t.Error("a queued image is queued again")
	}
	d.stop()
	d.restart()
	if diff := cmp.Diff(ids, d.queue()); diff != "" {
		t.Errorf("queue after a restart (-want +got):\n%s", diff)
	}
	if a := d.call(http.MethodDelete, "/v1/queue/"+ids[3], ""); a.status != http.StatusNoContent {
		t.Errorf("unqueue: %d %s", a.status, a.body)
	}
	if n, err := d.api.UnqueueAll(t.Context()); err != nil || n != 199 {
		t.Errorf("%d unqueued, %v", n, err)
	}
	if q := d.queue(); len(q) != 0 {
		t.Errorf("queue afterwards: %v", q)
	}
}

// TestQueueRefuses queues what is there or on its way already.
func TestQueueRefuses(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	filling := origin.add("filling", 8*mib).gateAt(mib)
	origin.add("queued", 1024).refuse(true)
	foreign := origin.add("foreign", 1024)
	d := start(t, setup{origin: origin.block()})

	d.write(newImage("cached", 1024))
	ended := make(chan error, 1)
	go func() { ended <- d.watch(filling.testImage, nil) }()
	d.waitState("filling", cache.StateFilling)
	write := d.beginWrite(`{"id": "writing"}`)
	writeFile(t, filepath.Join(d.dir, "incomplete", "foreign"), "left by another program")
	if !d.enqueue("queued") {
		t.Error("a new image is not queued")
	}
	for id, state := range map[string]cache.State{
		"cached": cache.StateCached, "filling": cache.StateFilling, "writing": cache.StateFilling,
		"foreign": cache.StateFilling, "queued": cache.StateQueued,
	} {
		d.waitState(id, state) // a queued image is filling while it is tried
		a := d.call(http.MethodPut, "/v1/queue/"+id, "")
		if a.status != http.StatusOK || strings.TrimSpace(string(a.body)) != `{"queued":false}` {
			t.Errorf("queue %s: %d %s", id, a.status, a.body)
		}
	}
	if diff := cmp.Diff([]string{"queued"}, d.queue()); diff != "" {
		t.Errorf("queue (-want +got):\n%s", diff)
	}
	if a := d.call(http.MethodPost, "/v1/writes", `{"id": "foreign"}`); a.status != http.StatusConflict {
		t.Errorf("write of an image with a foreign file: %d %s", a.status, a.body)
	}

	if a := d.get("foreign"); foreign.check(a) != nil {
		t.Errorf("a foreign file stops a download: %v", foreign.check(a))
	}
	d.waitState("foreign", cache.StateCached)
	d.eventually("the commit has removed the foreign file", func() bool {
		return !slices.Contains(d.files("incomplete"), "foreign")
	})
	filling.release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if a := d.call(http.MethodPost, write+"/abort", ""); a.status != http.StatusNoContent {
		t.Errorf("abort: %d %s", a.status, a.body)
	}
}

// TestClean looks at what clean takes and what it leaves.
func TestClean(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	img := origin.add("filling", 8*mib).gateAt(mib)
	d := start(t, setup{origin: origin.block(), cache: `stall_time = "1h"`})
	plant := func(path string, age time.Duration) {
		t.Helper()
		path = filepath.Join(d.dir, path)
		writeFile(t, path, strings.Repeat("x", 100))
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	plant("invalid/broken", 0)
	plant("incomplete/old", 2*time.Hour)
	plant("incomplete/young", 30*time.Minute)
	ended := make(chan error, 1)
	go func() { ended <- d.watch(img.testImage, nil) }()
	d.waitState("filling", cache.StateFilling)
	write := d.beginWrite(`{"id": "writing"}`)

	clean := func(body string, want int) {
		t.Helper()
		var r cache.Result
		a := d.call(http.MethodPost, "/v1/clean", body)
		a.decode(t, &r)
		if r != (cache.Result{Files: want, Bytes: int64(100 * want)}) {
			t.Errorf("clean %s: %d %s, want %d files", body, a.status, a.body, want)
		}
	}
	clean("", 2) // broken, old
	if got := d.files("invalid"); len(got) != 0 {
		t.Errorf("invalid/ holds %v", got)
	}
	if s := d.state("young").State; s != cache.StateFilling {
		t.Errorf("the young file's image is %s", s)
	}
	clean(`{"stall_time": 60}`, 1) // young
	clean(`{"stall_time": 0}`, 0)  // what is being written stays
	if s := d.state("young").State; s != cache.StateAbsent {
		t.Errorf("after clean the young file's image is %s", s)
	}

	img.release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	d.waitState("filling", cache.StateCached)
	if a := d.call(http.MethodPut, write+"/data", "abc"); a.status != http.StatusNoContent {
		t.Errorf("write after clean: %d %s", a.status, a.body)
	}
	if a := d.call(http.MethodPost, write+"/commit", ""); a.status != http.StatusOK {
		t.Errorf("commit after clean: %d %s", a.status, a.body)
	}
}

func TestWrites(t *testing.T) {
	t.Parallel()
	d := start(t, setup{cache: `max_size = "1MiB"`})
	img := newImage("image", 3000)
	begin := func(sum string) string {
		t.Helper()
		return d.beginWrite(fmt.Sprintf(`{"id": "image", "size": 3000, "sha256": %q}`, sum))
	}
	status := func(want int, a answer) answer {
		t.Helper()
		if a.status != want {
			t.Errorf("status %d, want %d: %s", a.status, want, a.body)
		}
		return a
	}

	w := begin(img.hex())
	status(204, d.call(http.MethodPut, w+"/data?offset=0", string(img.bytes(0, 1000))))
	var conflict struct{ Offset int64 }
	status(409, d.call(http.MethodPut, w+"/data?offset=0", "again")).decode(t, &conflict)
	if conflict.Offset != 1000 {
		t.Errorf("a write at the wrong offset is told %d", conflict.Offset)
	}
	status(409, d.call(http.MethodPost, "/v1/writes", `{"id": "image"}`))
	status(404, d.call(http.MethodGet, "/v1/images/image/data", ""))
	status(204, d.call(http.MethodPut, w+"/data?offset=1000", string(img.bytes(1000, 3000))))
	status(200, d.call(http.MethodPost, w+"/commit", ""))
	status(404, d.call(http.MethodPost, w+"/commit", ""))
	if err := img.check(d.call(http.MethodGet, "/v1/images/image/data", "")); err != nil {
		t.Error(err)
	}
	status(409, d.call(http.MethodPost, "/v1/writes", `{"id": "image"}`))
	status(204, d.call(http.MethodDelete, "/v1/images/image", ""))
	status(404, d.call(http.MethodGet, "/v1/images/image/data", ""))

	w = begin(newImage("other", 3000).hex())
	status(204, d.call(http.MethodPut, w+"/data", string(img.bytes(0, 3000))))
	status(422, d.call(http.MethodPost, w+"/commit", ""))
	d.kept("image", string(img.bytes(0, 3000)))

	w = begin(img.hex())
	status(204, d.call(http.MethodPut, w+"/data", "half"))
	status(204, d.call(http.MethodPost, w+"/abort", ""))
	status(404, d.call(http.MethodGet, w, ""))
	d.kept("image", "half")

	status(507, d.call(http.MethodPost, "/v1/writes", `{"id": "huge", "size": 1048577}`))
	w = d.beginWrite(`{"id": "huge"}`)
	status(507, d.call(http.MethodPut, w+"/data", strings.Repeat("x", 2*mib)))
	status(204, d.call(http.MethodPost, w+"/abort", ""))
	if u := d.usage(); u.Images != 0 || u.Bytes > mib {
		t.Errorf("usage: %+v", u)
	}
}

// kept fails the test unless a file that was not committed is in invalid/, and
// nothing of the image is cached.
func (d *daemon) kept(id, content string) {
	d.t.Helper()
	got, err := os.ReadFile(filepath.Join(d.dir, "invalid", id))
	if err != nil || string(got) != content {
		d.t.Errorf("invalid/%s holds %d bytes (%v), want %d", id, len(got), err, len(content))
	}
	if s := d.state(id).State; s != cache.StateAbsent {
		d.t.Errorf("image %s is %s", id, s)
	}
	d.noFiles(id)
}

// TestDeleteBarsWrite deletes an image that is being written.
func TestDeleteBarsWrite(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	img := origin.add("filling", 4*mib).gateAt(mib)
	d := start(t, setup{origin: origin.block()})
	w := d.beginWrite(`{"id": "writing"}`)
	ended := make(chan error, 1)
	go func() { ended <- d.watch(img.testImage, nil) }()
	d.waitState("filling", cache.StateFilling)
	for _, id := range []string{"writing", "filling"} {
		if err := d.api.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if a := d.call(http.MethodPost, w+"/commit", ""); a.status == http.StatusOK {
		t.Errorf("commit of a deleted image: %d", a.status)
	}
	img.release()
	if err := <-ended; err != nil {
		t.Errorf("the client of the deleted image: %v", err)
	}
	if ids := d.ids(); len(ids) != 0 {
		t.Errorf("cached: %v", ids)
	}
}

// TestPrefetch lets the queue bring images in.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	d := start(t, setup{origin: origin.block()})
	want := []string{}
	if !d.enqueue("poison") || !d.enqueue("absent") {
		t.Fatal("not queued")
	}
	origin.add("poison", mib).refuse(true)
	for n := range 6 {
		id := fmt.Sprintf("image-%d", n)
		want = append(want, id)
		origin.add(id, mib+int64(n))
		if !d.enqueue(id) {
			t.Errorf("%s is not queued", id)
		}
	}
	d.eventually("all but the poison are cached", func() bool { return slices.Equal(d.ids(), want) })
	d.eventually("only what cannot be fetched is queued", func() bool {
		return slices.Equal(d.queue(), []string{"poison", "absent"})
	})
	for _, id := range []string{"poison", "absent"} {
		if info := d.state(id); info.State != cache.StateQueued || info.Error == "" {
			t.Errorf("%+v", info)
		}
	}
	for n, id := range want {
		if err := newImage(id, mib+int64(n)).check(d.call(http.MethodGet, "/v1/images/"+id+"/data", "")); err != nil {
			t.Error(err)
		}
	}
}

// TestCommands drives the service by its own command line.
func TestCommandsOverSocket(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	img := origin.add("debian", mib)
	d := start(t, setup{origin: origin.block()})
	run := func(want int, args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, append([]string{"--socket", d.socket}, args...)...)
		if code != want {
			t.Errorf("%v: exit code %d, want %d\n%s%s", args, code, want, stdout, stderr)
		}
		return stdout
	}
	run(0, "prefetch", "debian")
	var images []cache.ImageInfo
	listed := run(0, "list", "--output", "json")
	var envelope struct{ Images []cache.ImageInfo }
	if json.Unmarshal([]byte(listed), &images) != nil {
		if err := json.Unmarshal([]byte(listed), &envelope); err != nil {
			t.Fatalf("%v: %s", err, listed)
		}
		images = envelope.Images
	}
	if len(images) != 1 || images[0].ID != "debian" || images[0].SHA256 != img.hex() {
		t.Errorf("list: %s", listed)
	}
	for _, want := range []string{"sqlite", "process", "lru", "wasm", "running"} {
		if out := run(0, "plugin", "list"); !strings.Contains(out, want) {
			t.Errorf("plugin list lacks %s:\n%s", want, out)
		}
	}
	if out := run(0, "show", "debian"); !strings.Contains(out, img.hex()) {
		t.Errorf("show:\n%s", out)
	}
	run(3, "show", "nothing")
	run(0, "status")
	run(0, "delete", "debian", "--yes")
	d.expect()
	pids := d.plugins()
	if pids["sqlite"] == 0 || pids["lru"] == 0 {
		t.Errorf("plugins: %v", pids)
	}
	d.stop()
	run(5, "status")
}
