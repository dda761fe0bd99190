package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
)

// TestShowTellsWhy: why an image is not cached is told after a restart too,
// and a damaged history keeps nothing from starting.
func TestShowTellsWhy(t *testing.T) {
	origin := t.TempDir()
	writeFile(t, filepath.Join(origin, "a"), strings.Repeat("x", 10_000))
	d := start(t, setup{origin: directoryOrigin(origin)})
	d.get("a")
	d.waitState("a", cache.StateCached)
	if out, _ := d.run(0, "show", "a"); !strings.Contains(out, "cached         fetched in ") {
		t.Errorf("show does not say how the image came here:\n%s", out)
	}
	d.run(0, "prune", "--max-size", "0")
	d.get("none")
	evicted := func() {
		t.Helper()
		out, why := d.run(3, "show", "a")
		for _, want := range []string{"cached         fetched in ", "evicted        lru: score ", ", by a prune from 10000 to 0 bytes"} {
			if !strings.Contains(out, want) {
				t.Errorf("show lacks %q:\n%s", want, out)
			}
		}
		if !strings.Contains(why, "image a is not found in the cache; the last thing that happened: evicted: lru") {
			t.Errorf("show says %s", why)
		}
		if out, _ := d.run(3, "show", "none"); !strings.Contains(out, "not fetched    ") {
			t.Errorf("show of what the origin has not:\n%s", out)
		}
	}
	evicted()
	d.stop()
	path := filepath.Join(d.dir, ".imgcache/history")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, "garbage\n"+string(text)+"more")
	d.restart()
	evicted()
	if log := d.logs[1].String(); !strings.Contains(log, "a part of the history of images is lost") {
		t.Errorf("the log does not tell the damage:\n%s", log)
	}
}
