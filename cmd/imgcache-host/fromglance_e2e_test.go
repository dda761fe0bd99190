package main

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
)

// TestConfigFromGlance takes the cache of a Glance over with the configuration
// that was made of Glance's own: its images are hits, with the hits that Glance
// has counted.
func TestConfigFromGlance(t *testing.T) {
	for driver, leave := range map[string]func(m *move, t *testing.T) (options string){
		"sqlite":         (*move).fill,
		"xattr":          (*move).fill,
		"centralized_db": (*move).fillCentral,
	} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			m := &move{driver: driver, store: t.TempDir(), dir: filepath.Join(t.TempDir(), "image-cache")}
			m.img = newImage("5d6e8a44-8c2b-4b6a-9d3e-0f1a2b3c4d5e", 3*mib)
			writeFile(t, filepath.Join(m.store, m.img.id), string(m.img.bytes(0, m.img.size)))
			writeFile(t, filepath.Join(m.dir, "checkme"), "XXX")
			conf := filepath.Join(t.TempDir(), "glance-api.conf")
			writeFile(t, conf, leave(m, t)+fmt.Sprintf("[DEFAULT]\nroot = %s\nimage_cache_dir = ${root}/image-cache\nimage_cache_driver = %s\n"+
				"[glance_store]\nfilesystem_store_datadir = %s\n[paste_deploy]\nflavor = keystone+caching\n", filepath.Dir(m.dir), driver, m.store))
			code, made, notes := command(t, "config", "from-glance", conf)
			if code != 0 {
				t.Fatalf("from-glance: exit code %d: %s", code, notes)
			}
			m.wantTakenOver(t, made, notes)
		})
	}
}

// move is the cache of a Glance that moves.
type move struct {
	driver, store, dir string
	img                *testImage
}

// fill lets Glance fill its cache, and returns what is particular to its options.
func (m *move) fill(t *testing.T) string {
	id := m.img.id
	glance(t, m.driver, m.dir, m.store, do(true, "store", id), do(true, "read", id), do(true, "read", id))
	return ""
}

// fillCentral makes the cache and the tables that a Glance with central records
// leaves, which is newer than the one that the tests have.
func (m *move) fillCentral(t *testing.T) string {
	const self = "http://node-1.example:9292"
	server := dbtest.MariaDB(t)
	dsn := server.Database(t)
	db := server.Open(t, dsn)
	for _, statement := range []string{
		`CREATE TABLE node_reference (
			node_reference_id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
			node_reference_url VARCHAR(255) NOT NULL UNIQUE)`,
		`CREATE TABLE cached_images (
			id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, image_id VARCHAR(36) NOT NULL,
			last_accessed DATETIME NOT NULL, last_modified DATETIME NOT NULL,
			size BIGINT NOT NULL, hits INTEGER NOT NULL, checksum VARCHAR(32), node_reference_id BIGINT NOT NULL,
			UNIQUE (image_id, node_reference_id), FOREIGN KEY (node_reference_id) REFERENCES node_reference (node_reference_id))`,
		"INSERT INTO node_reference (node_reference_url) VALUES ('" + self + "')",
		fmt.Sprintf(`INSERT INTO cached_images (image_id, last_accessed, last_modified, size, hits, node_reference_id)
			VALUES ('%s', '2026-01-02 03:04:05', '2026-01-02 03:04:05', %d, 2, 1)`, m.img.id, m.img.size),
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(m.dir, m.img.id), string(m.img.bytes(0, m.img.size)))
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[database]\nconnection = mysql+pymysql://root:@%s%s?charset=utf8&unix_socket=%s\n[DEFAULT]\nworker_self_reference_url = %s\n",
		u.Host, u.Path, u.Query().Get("socket"), self)
}

var proposedDSN = regexp.MustCompile(`IMGCACHE_DSN=(\S+)`)

// wantTakenOver starts the service with a configuration that was made, and the
// database that the notes name. The test needs a port of its own, and places
// for what is not the cache's.
func (m *move) wantTakenOver(t *testing.T, made, notes string) {
	t.Helper()
	d := prepare(t, setup{dir: m.dir})
	made = strings.Replace(made, "127.0.0.1:9293", "127.0.0.1:0", 1)
	places := fmt.Sprintf("node {\n  data_dir = %q\n  run_dir  = %q\n", t.TempDir(), d.runDir)
	if before, after, found := strings.Cut(made, "node {\n"); found {
		made = before + places + after
	} else {
		made += places + "}\n"
	}
	if dsn := proposedDSN.FindStringSubmatch(notes); dsn != nil { // root of the test's server has no password
		made = strings.Replace(made, `env("IMGCACHE_DSN")`, fmt.Sprintf("%q", strings.Replace(dsn[1], ":PASSWORD", "", 1)), 1)
	}
	writeFile(t, d.config, made)
	d.launch()
	if info := d.state(m.img.id); info.State != "cached" || info.Hits != 2 {
		t.Errorf("what Glance had cached and sent twice is %+v", info)
	}
	a := d.get(m.img.id)
	if err := m.img.check(a); err != nil || !strings.Contains(a.cacheStatus(), "; hit") {
		t.Errorf("download: %v, %s", err, a.cacheStatus())
	}
	d.eventually("the hit is counted", func() bool { return d.state(m.img.id).Hits == 3 })
}
