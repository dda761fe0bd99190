package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestManyFiles starts the service on a directory of many images: it serves
// one before it has scanned them all, and counts the hits right.
func TestManyFiles(t *testing.T) {
	many := 20_000
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		many = 100_000
	}
	origin := t.TempDir()
	writeFile(t, filepath.Join(origin, "img12345"), "img12345")
	d := prepare(t, setup{origin: directoryOrigin(origin), cache: `max_size = "1GiB"`})
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range many {
		id := fmt.Sprint("img", i)
		if err := os.WriteFile(filepath.Join(d.dir, id), []byte(id), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	d.launchLame()
	first := d.get("img12345")
	took := time.Since(begun)
	if string(first.body) != "img12345" || !strings.HasPrefix(first.cacheStatus(), "imgcache; hit") {
		t.Errorf("first download: %q, %s", first.body, first.cacheStatus())
	}
	for range 2 {
		d.get("img12345")
	}
	d.eventually("all is scanned", func() bool { return strings.Contains(d.logs[0].String(), `"msg":"scanned the cache directory"`) })
	scanned := time.Since(begun)
	log := d.logs[0].String()
	if served := strings.Index(log, "/images/img12345"); served < 0 || served > strings.Index(log, `"msg":"scanned the cache directory"`) {
		t.Error("the scan came first")
	}
	d.eventually("the records are there", func() bool { u := d.usage(); return u.Records == "ready" && u.Images == many })
	if got := d.state("img12345").Hits; got != 3 {
		t.Errorf("%d hits, want 3", got)
	}
	d.eventually("the driver has all", func() bool { return d.usage().Unsent == 0 })
	t.Logf("%d images: the first was served after %v, scanned after %v, recorded after %v", many, took, scanned, time.Since(begun))
	d.stop()

	begun = time.Now()
	d.launchLame()
	d.get("img12345")
	took = time.Since(begun)
	d.eventually("the records are read", func() bool { return d.usage().Records == "ready" })
	if got := d.state("img12345").Hits; got != 4 {
		t.Errorf("%d hits after a restart, want 4", got)
	}
	t.Logf("with records: the first was served after %v, the records were read after %v", took, time.Since(begun))
}
