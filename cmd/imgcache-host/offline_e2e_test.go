package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
)

// offline runs a command on the directory of a daemon that does not run, and
// fails the test unless it exits with a code.
func (d *daemon) offline(want int, args ...string) (stdout, stderr string) {
	d.t.Helper()
	code, stdout, stderr := command(d.t, append([]string{"--config", d.config}, args...)...)
	if code != want {
		d.t.Errorf("imgcache-host %s: exit code %d, want %d: %s", strings.Join(args, " "), code, want, stderr)
	}
	return stdout, stderr
}

// offlineJSON is offline for the answer of a command as JSON.
func (d *daemon) offlineJSON(v any, args ...string) {
	d.t.Helper()
	out, stderr := d.offline(0, append(args, "--output", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil || stderr != "" {
		d.t.Errorf("%v: %v in %s; stderr: %s", args, err, out, stderr)
	}
}

// offlineImages returns the images that list shows, by id.
func (d *daemon) offlineImages() map[string]cache.ImageInfo {
	d.t.Helper()
	var list struct{ Images []cache.ImageInfo }
	d.offlineJSON(&list, "list")
	images := map[string]cache.ImageInfo{}
	for _, i := range list.Images {
		images[i.ID] = i
	}
	return images
}

// fillAndStop caches images with as many hits as their number, and ends the
// daemon.
func fillAndStop(t *testing.T, n int) *daemon {
	t.Helper()
	origin := t.TempDir()
	for i := range n {
		writeFile(t, filepath.Join(origin, fmt.Sprint("img", i)), strings.Repeat("x", 1000+i))
	}
	d := start(t, setup{origin: directoryOrigin(origin)})
	for i := range n {
		id := fmt.Sprint("img", i)
		d.get(id)
		d.waitState(id, cache.StateCached)
		for range i {
			d.get(id)
		}
	}
	d.stop()
	return d
}

// TestOffline manages the directory of a service that does not run: what the
// commands show is what the service knew, and what they do is what it finds.
func TestOffline(t *testing.T) {
	t.Parallel()
	d := fillAndStop(t, 6)
	images := d.offlineImages()
	for i := range 6 {
		if got := images[fmt.Sprint("img", i)]; got.Hits != uint64(i) || got.Size != int64(1000+i) || !got.Verified || got.LastAccessed.IsZero() {
			t.Errorf("img%d is %+v", i, got)
		}
	}
	if out, _ := d.offline(0, "show", "img3"); !strings.Contains(out, "cached") || !strings.Contains(out, "/img3") {
		t.Errorf("show: %s", out)
	}
	d.offline(3, "show", "nothing")
	if out, _ := d.offline(0, "status"); !strings.Contains(out, "the service does not run") || !strings.Contains(out, "6") {
		t.Errorf("status: %s", out)
	}
	if out, _ := d.offline(0, "victims"); !strings.Contains(out, "lru: score") || strings.Index(out, "img0") > strings.Index(out, "img5") {
		t.Errorf("victims: %s", out)
	}
	if out, _ := d.offline(0, "plugin", "list"); !strings.Contains(out, "sqlite") || !strings.Contains(out, "lru") {
		t.Errorf("plugin list: %s", out)
	}
	d.offline(0, "delete", "img1")
	var pruned cache.Result
	d.offlineJSON(&pruned, "prune", "--max-size", "3100")
	if pruned != (cache.Result{Files: 2, Bytes: 2002}) {
		t.Errorf("pruned %+v, want the two images used least recently", pruned)
	}
	d.offline(0, "queue", "img0")
	if out, _ := d.offline(0, "queue"); !strings.Contains(out, "img0") {
		t.Errorf("the queue is %s", out)
	}
	d.offline(0, "clean")
	if left := d.files(".imgcache/trash"); len(left) > 0 {
		t.Errorf("left in trash: %v", left)
	}
	d.offline(5, "prefetch", "img2")

	d.restart()
	d.waitState("img0", cache.StateCached)
	list, err := d.api.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hits := map[string]uint64{}
	for _, i := range list {
		hits[i.ID] = i.Hits
	}
	for id, want := range map[string]uint64{"img0": 0, "img3": 3, "img4": 4, "img5": 5} {
		if got, ok := hits[id]; !ok || got != want || len(hits) != 4 {
			t.Errorf("%s has %d hits, want %d; images: %v", id, got, want, hits)
		}
	}
	d.stop()
	var cleared map[string]int
	d.offlineJSON(&cleared, "clear")
	if cleared["images"] != 4 || len(d.offlineImages()) != 0 {
		t.Errorf("cleared %v, left %v", cleared, d.offlineImages())
	}
}

// TestOfflineWithoutDriver deletes an image while the driver cannot be
// started. The command says so, and the driver learns of it at the next start
// of the service.
func TestOfflineWithoutDriver(t *testing.T) {
	t.Parallel()
	d := fillAndStop(t, 3)
	u, block := newUnderstudy(t, "driver", "sqlite", "echo the database is away >&2; exit 1")
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, d.config, string(text)+block)
	if _, stderr := d.offline(0, "delete", "img1"); !strings.Contains(stderr, "the database is away") {
		t.Errorf("delete says nothing of the driver: %s", stderr)
	}
	if out, _ := d.offline(0, "list"); strings.Contains(out, "img1") || !strings.Contains(out, "img2") {
		t.Errorf("list: %s", out)
	}
	u.play(t, "")
	d.restart()
	d.eventually("the driver knows", func() bool { return d.usage().Unsent == 0 })
	if got := d.state("img2").Hits; got != 2 {
		t.Errorf("img2 has %d hits, want 2", got)
	}
	if got := d.state("img1").State; got != cache.StateAbsent {
		t.Errorf("img1 is %s", got)
	}
	d.get("img1")
	d.waitState("img1", cache.StateCached)
	if got := d.state("img1").Hits; got != 0 {
		t.Errorf("img1 is back with %d hits, want 0", got)
	}
}

// TestOfflineExitCodes tells a service that does not run from one that does
// not answer.
func TestOfflineExitCodes(t *testing.T) {
	t.Parallel()
	d := start(t, setup{})
	if out, _ := d.offline(0, "status"); strings.Contains(out, "does not run") {
		t.Errorf("status does not ask the service: %s", out)
	}
	if err := os.Remove(d.socket); err != nil {
		t.Fatal(err)
	}
	if _, stderr := d.offline(5, "list"); !strings.Contains(stderr, fmt.Sprintf("in use by process %d", d.pid())) {
		t.Errorf("list does not say who has the directory: %s", stderr)
	}
	_ = d.p.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.wait(); err != nil {
		t.Error(err)
	}
	if code, _, _ := command(t, "list", "--socket", d.socket); code != 5 {
		t.Errorf("list with a socket: exit code %d, want 5", code)
	}
	if err := os.RemoveAll(d.dir); err != nil {
		t.Fatal(err)
	}
	d.offline(5, "list")
	if _, err := os.Stat(d.dir); err == nil {
		t.Error("list has made the directory")
	}
}
