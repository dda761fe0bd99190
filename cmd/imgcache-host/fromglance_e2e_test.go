package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestConfigFromGlance takes the cache of a Glance over with the configuration
// that was made of Glance's own: its images are hits, with the hits that Glance
// has counted.
func TestConfigFromGlance(t *testing.T) {
	for _, driver := range []string{"sqlite", "xattr"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			store, dir := t.TempDir(), filepath.Join(t.TempDir(), "image-cache")
			img := newImage("kept", 3*mib)
			writeFile(t, filepath.Join(store, img.id), string(img.bytes(0, img.size)))
			writeFile(t, filepath.Join(dir, "checkme"), "XXX")
			glance(t, driver, dir, store, do(true, "store", "kept"), do(true, "read", "kept"), do(true, "read", "kept"))
			conf := filepath.Join(t.TempDir(), "glance-api.conf")
			writeFile(t, conf, fmt.Sprintf("[DEFAULT]\nroot = %s\nimage_cache_dir = ${root}/image-cache\nimage_cache_driver = %s\n"+
				"[glance_store]\nfilesystem_store_datadir = %s\n[paste_deploy]\nflavor = keystone+caching\n", filepath.Dir(dir), driver, store))
			code, made, notes := command(t, "config", "from-glance", conf)
			if code != 0 || strings.Count(notes, "note: ") != 1 {
				t.Fatalf("from-glance: exit code %d: %s", code, notes)
			}

			d := prepare(t, setup{dir: dir})
			// The test needs a port of its own, and a place for sockets.
			made = strings.Replace(made, "127.0.0.1:9293", "127.0.0.1:0", 1)
			writeFile(t, d.config, fmt.Sprintf("%s\nnode {\n  data_dir = %q\n  run_dir = %q\n}\n", made, t.TempDir(), d.runDir))
			d.launch()
			if info := d.state("kept"); info.State != "cached" || info.Hits != 2 {
				t.Errorf("what Glance had cached and read twice is %+v", info)
			}
			a := d.get("kept")
			if err := img.check(a); err != nil || !strings.Contains(a.cacheStatus(), "; hit") {
				t.Errorf("download: %v, %s", err, a.cacheStatus())
			}
			d.eventually("the hit is counted", func() bool { return d.state("kept").Hits == 3 })
		})
	}
}
