package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
)

// run runs the command line against the daemon, and fails the test unless it
// exits with a code.
func (d *daemon) run(want int, args ...string) (stdout, stderr string) {
	d.t.Helper()
	code, stdout, stderr := command(d.t, append([]string{"--socket", d.socket}, args...)...)
	if code != want {
		d.t.Errorf("imgcache-host %s: exit code %d, want %d: %s", strings.Join(args, " "), code, want, stderr)
	}
	return stdout, stderr
}

// TestPins pins images by the command line: before they are cached, through a
// kill -9, against a prune to nothing, and until the cache is full of them.
func TestPins(t *testing.T) {
	origin := t.TempDir()
	for name, size := range map[string]int{"gold": 900_000, "a": 10_000, "b": 10_000, "c": 10_000, "large": 300_000} {
		writeFile(t, filepath.Join(origin, name), strings.Repeat("x", size))
	}
	d := start(t, setup{
		origin: directoryOrigin(origin), cache: `max_size = "1MB"`,
		more: "pin \"base\" {\n  images = [\"c\"]\n}",
	})
	d.run(0, "pin", "gold", "--for", "24h")
	d.run(2, "pin", "gold", "--for", "0s")
	d.run(1, "pin", "gold", "--until", "2001-01-31")
	d.run(0, "pin", "b")
	d.kill9()
	d.restart()
	for _, id := range []string{"gold", "a", "b", "c"} {
		d.get(id)
		d.waitState(id, cache.StateCached)
	}
	if out, _ := d.run(0, "pin", "list"); !strings.Contains(out, "b     for ever") || strings.Count(out, "a request") != 2 {
		t.Errorf("after a kill -9 the pins are:\n%s", out)
	}
	if out, _ := d.run(0, "list"); strings.Count(out, "cached, pinned") != 3 {
		t.Errorf("list does not tell the pins:\n%s", out)
	}
	d.run(0, "prune", "--max-size", "0")
	if got := d.files("."); !slices.Equal(got, []string{"b", "c", "gold"}) {
		t.Errorf("a prune to nothing left %v", got)
	}
	if a := d.get("large"); len(a.body) != 300_000 || a.err != nil {
		t.Errorf("beside pinned images a client got %d bytes, %v", len(a.body), a.err)
	}
	d.waitState("large", cache.StateAbsent)
	if _, why := d.run(3, "show", "large"); !strings.Contains(why, "pinned images hold 920000 of the 1000000 of max_size") {
		t.Errorf("show does not say why the image is not cached: %s", why)
	}
	if out, _ := d.run(0, "delete", "b"); !strings.Contains(out, "still pinned  b") {
		t.Errorf("delete says:\n%s", out)
	}
	d.run(0, "unpin", "gold", "b")
	if _, why := d.run(1, "unpin", "c"); !strings.Contains(why, `pin "base" of the configuration`) {
		t.Errorf("unpin does not say where the pin stands: %s", why)
	}
	d.run(0, "prune", "--max-size", "0")
	if got := d.files("."); !slices.Equal(got, []string{"c"}) {
		t.Errorf("without the other pins a prune to nothing left %v", got)
	}
}

// TestPinsFillTheCache: the status and /readyz say it when pinned images leave
// no room, and downloads go on.
func TestPinsFillTheCache(t *testing.T) {
	origin := t.TempDir()
	writeFile(t, filepath.Join(origin, "gold"), strings.Repeat("x", 990_000))
	writeFile(t, filepath.Join(origin, "other"), strings.Repeat("y", 20_000))
	d := start(t, setup{origin: directoryOrigin(origin), cache: `max_size = "1MB"`})
	d.run(0, "pin", "gold")
	d.get("gold")
	d.waitState("gold", cache.StateCached)
	if a := d.get("other"); len(a.body) != 20_000 || a.err != nil {
		t.Errorf("got %d bytes, %v", len(a.body), a.err)
	}
	if out, _ := d.run(0, "status"); !strings.Contains(out, "1 image, 967 KiB: they fill the cache") {
		t.Errorf("status says:\n%s", out)
	}
	if a := d.call(http.MethodGet, "/readyz", ""); a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "pins: ") {
		t.Errorf("readyz answers %d: %s", a.status, a.body)
	}
}

// TestDamagedPins: a file of pins that was damaged costs no start.
func TestDamagedPins(t *testing.T) {
	d := start(t, setup{})
	d.run(0, "pin", "a", "b")
	d.stop()
	path := filepath.Join(d.dir, ".imgcache/pins")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, strings.Replace(string(text), `"id":"b"`, `"id":"x"`, 1))
	d.restart()
	if out, _ := d.run(0, "pin", "list"); !strings.Contains(out, "\na ") || strings.Contains(out, "\nx ") {
		t.Errorf("after the damage the pins are:\n%s", out)
	}
	if log := d.logs[1].String(); !strings.Contains(log, "the file of pins is damaged") {
		t.Errorf("the log does not tell the damage:\n%s", log)
	}
}
