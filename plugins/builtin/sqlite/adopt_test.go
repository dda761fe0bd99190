package sqlite

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgcache/imgcache-host/sdk"
)

// glanceTable is what Glance's driver makes of a new file.
const glanceTable = `CREATE TABLE cached_images (
	image_id TEXT PRIMARY KEY, last_accessed REAL DEFAULT 0.0, last_modified REAL DEFAULT 0.0,
	size INTEGER DEFAULT 0, hits INTEGER DEFAULT 0, checksum TEXT);`

// glanceDatabase makes a database of Glance with two good rows, and others.
func glanceDatabase(t *testing.T, path, more string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.ExecContext(t.Context(), glanceTable+`
		INSERT INTO cached_images (image_id, last_accessed, last_modified, size, hits) VALUES
			('a', 1763856000.123456, 1763855000.5, 1048576, 7),
			('b', 1763857000.0, 1763857000.0, 4, 0);`+more)
	if err != nil {
		t.Fatal(err)
	}
}

// glanceEntries are the two rows as records.
func glanceEntries() []sdk.Entry {
	micro := func(n int64) time.Time { return time.UnixMicro(n).UTC() }
	return []sdk.Entry{
		{ID: "a", Size: 1 << 20, Hits: 7, LastAccessed: micro(1763856000123456), LastModified: micro(1763855000500000)},
		{ID: "b", Size: 4, LastAccessed: micro(1763857000000000), LastModified: micro(1763857000000000)},
	}
}

func entries(t *testing.T, d *Driver) (list []sdk.Entry) {
	t.Helper()
	err := d.List(t.Context(), func(entries []sdk.Entry) error {
		list = append(list, entries...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func mustHold(t *testing.T, d *Driver, want ...sdk.Entry) {
	t.Helper()
	if diff := cmp.Diff(want, entries(t, d)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// contents returns what is in the files of a directory, by name.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range list {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fi, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = fmt.Sprint(fi.ModTime(), fi.Mode(), " ") + string(b)
	}
	return files
}

// TestAdopt takes Glance's records over, once, and leaves its file as it is.
func TestAdopt(t *testing.T) {
	for name, tt := range map[string]struct {
		file    string
		options sdk.Config
	}{
		"default":       {file: "cache.db"},
		"other name":    {file: "images.sqlite", options: sdk.Config{"glance_db": "images.sqlite"}},
		"absolute path": {file: "far/away.db", options: sdk.Config{"glance_db": "/far/away.db"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, tt.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if filepath.IsAbs(tt.options.Text("glance_db")) {
				tt.options = sdk.Config{"glance_db": file}
			}
			glanceDatabase(t, file, "")
			before := contents(t, filepath.Dir(file))
			d, log := open(t, dir, tt.options)
			mustHold(t, d, glanceEntries()...)
			if !strings.Contains(log.String(), "records=2 unusable=0") {
				t.Errorf("the log does not tell what was taken over: %s", log)
			}
			if diff := cmp.Diff(before, contents(t, filepath.Dir(file))); diff != "" {
				t.Errorf("Glance's files were touched (-before +after):\n%s", diff)
			}
			if left, _ := filepath.Glob(databaseIn(dir) + "-glance*"); len(left) > 0 {
				t.Errorf("the copy is left behind: %v", left)
			}
			apply(t, d, sdk.Batch{Source: "s", Seq: 1, Ops: []sdk.Op{sdk.Delete("a"), sdk.Touch("b", 3, time.Time{})}})
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d, _ = open(t, dir, tt.options)
			b := glanceEntries()[1]
			b.Hits = 3
			mustHold(t, d, b)
		})
	}
}

// TestAdoptOddRows takes over what can be a record, and counts the rest.
func TestAdoptOddRows(t *testing.T) {
	dir := t.TempDir()
	glanceDatabase(t, filepath.Join(dir, "cache.db"), `
		INSERT INTO cached_images (image_id, last_accessed, last_modified, size, hits) VALUES
			('c', NULL, 'never', NULL, NULL), ('d', 9e99, -9e99, '12', '3'),
			('', 1, 1, 1, 1), (NULL, 1, 1, 1, 1), ('negative', 1, 1, -1, 1), ('hits', 1, 1, 1, -1),
			(CAST(zeroblob(200) AS TEXT) || printf('%0200d', 1), 1, 1, 1, 1);`)
	d, log := open(t, dir, nil)
	mustHold(t, d, append(glanceEntries(), sdk.Entry{ID: "c"}, sdk.Entry{ID: "d", Size: 12, Hits: 3})...)
	if !strings.Contains(log.String(), "records=4 unusable=4") {
		t.Errorf("the log does not tell what was taken over: %s", log)
	}
}

// TestAdoptAfterCrash: a transaction that Glance did not end is undone, in the
// copy only.
func TestAdoptAfterCrash(t *testing.T) {
	work, dir := t.TempDir(), t.TempDir()
	glanceDatabase(t, filepath.Join(work, "cache.db"), `
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
		INSERT INTO cached_images (image_id, size) SELECT printf('x%0100d', i), 1 FROM n`)
	db, err := sql.Open("sqlite3", filepath.Join(work, "cache.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	// With a cache this small changed pages are on the disk before the end.
	if _, err := db.ExecContext(t.Context(), "PRAGMA cache_size = 5; BEGIN; UPDATE cached_images SET size = 666, hits = 666"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cache.db", "cache.db-journal"} {
		b, err := os.ReadFile(filepath.Join(work, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	alone, _ := open(t, t.TempDir(), sdk.Config{"glance_db": copyOf(t, filepath.Join(dir, "cache.db"))})
	if !slices.ContainsFunc(entries(t, alone), func(e sdk.Entry) bool { return e.Hits == 666 }) {
		t.Fatal("without its journal the file is as it was before: this test shows nothing")
	}
	before := contents(t, dir)
	d, _ := open(t, dir, nil)
	got := entries(t, d)
	for _, e := range got {
		if e.Hits == 666 || e.Size == 666 {
			t.Fatalf("%v is of the transaction that did not end", e)
		}
	}
	if len(got) != 5002 {
		t.Errorf("%d records, want 5002", len(got))
	}
	if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
		t.Error("Glance's files were touched")
	}
}

func copyOf(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy.db")
	if err := copyFile(path, to); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestAdoptDamaged: what cannot be read is said, and is no reason not to
// start.
func TestAdoptDamaged(t *testing.T) {
	for name, content := range map[string][]byte{
		"no database": bytes.Repeat([]byte("not a database. "), 1000),
		"empty":       {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "cache.db"), content, 0o644); err != nil {
				t.Fatal(err)
			}
			before := contents(t, dir)
			d, log := open(t, dir, nil)
			mustHold(t, d)
			if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
				t.Errorf("the file was touched (-before +after):\n%s", diff)
			}
			if !strings.Contains(log.String(), filepath.Join(dir, "cache.db")) {
				t.Errorf("the log does not name the file: %s", log)
			}
			apply(t, d, put("a", 1))
		})
	}
}

// TestAdoptOnlyAtFirst: a database that is made because the former one was
// lost begins empty; what Glance knew is outdated by then.
func TestAdoptOnlyAtFirst(t *testing.T) {
	dir := t.TempDir()
	glanceDatabase(t, filepath.Join(dir, "cache.db"), "")
	d, _ := open(t, dir, nil)
	mustHold(t, d, glanceEntries()...)
	if err := os.Remove(databaseIn(dir)); err != nil {
		t.Fatal(err)
	}
	mustHold(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(databaseIn(dir), bytes.Repeat([]byte("not a database. "), 1000), 0o640); err != nil {
		t.Fatal(err)
	}
	d, _ = open(t, dir, nil)
	mustHold(t, d)
}
