package sqlite

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgcache/imgcache-host/sdk"
)

var asGlance = sdk.Config{"format": "glance"}

// columns describes those of a table, as SQLite does.
func columns(t *testing.T, path string) string {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var text, mode string
	err = errors.Join(
		db.QueryRowContext(t.Context(), `SELECT group_concat(format('%s %s %s %s', name, type, dflt_value, pk)) FROM pragma_table_info('cached_images')`).Scan(&text),
		db.QueryRowContext(t.Context(), `PRAGMA journal_mode`).Scan(&mode))
	if err != nil {
		t.Fatal(err)
	}
	return text + " " + mode
}

// TestGlanceFormat makes, or goes on with, a database as Glance has it.
func TestGlanceFormat(t *testing.T) {
	theirs := filepath.Join(t.TempDir(), "cache.db")
	glanceDatabase(t, theirs, "")
	dir := t.TempDir()
	d, _ := open(t, dir, asGlance)
	at := time.Date(2026, 11, 23, 1, 2, 3, 456789000, time.UTC)
	a := sdk.Entry{ID: "a", Version: "v", Size: 9, Hits: 3, LastAccessed: at, LastModified: at.Add(-time.Hour)}
	b := sdk.Entry{ID: "b", Size: 1}
	apply(t, d, sdk.Batch{Source: "s", Seq: 1, Ops: []sdk.Op{
		sdk.Put(sdk.Entry{ID: "a", Hits: 100}), sdk.Put(a), sdk.Put(b), sdk.Put(b), sdk.Delete("b"), sdk.Put(b),
		sdk.Touch("a", 4, at.Add(time.Second)), sdk.Touch("a", 0, at), sdk.Touch("absent", 1, at),
	}})
	a.Version, a.Hits, a.LastAccessed = "", 7, at.Add(time.Second)
	mustHold(t, d, a, b)
	path := filepath.Join(dir, "cache.db")
	if diff := cmp.Diff(columns(t, theirs), columns(t, path)); diff != "" {
		t.Errorf("the table is not Glance's (-Glance's +ours):\n%s", diff)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if files := contents(t, dir); len(files) != 1 {
		t.Errorf("a driver that ends leaves %d files, want one", len(files))
	}

	if err := os.Rename(theirs, path); err != nil {
		t.Fatal(err)
	}
	d, _ = open(t, dir, asGlance)
	mustHold(t, d, glanceEntries()...)
}

// TestGlanceFormatSequence: the number of a batch is known until the driver
// ends. Then the host reconciles.
func TestGlanceFormatSequence(t *testing.T) {
	dir := t.TempDir()
	d, _ := open(t, dir, asGlance)
	apply(t, d, put("a", 1))
	touch := sdk.Batch{Source: "s", Seq: 2, Ops: []sdk.Op{sdk.Touch("a", 1, time.Time{})}}
	apply(t, d, touch)
	apply(t, d, touch)
	mustHold(t, d, sdk.Entry{ID: "a", Size: 1, Hits: 1})
	gap := touch
	gap.Seq = 4
	if err := d.Apply(t.Context(), gap); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("Apply(gap) = %v, want %v", err, sdk.ErrInvalid)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, _ = open(t, dir, asGlance)
	touch.Seq = 3
	if err := d.Apply(t.Context(), touch); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("Apply(after a restart) = %v, want %v", err, sdk.ErrInvalid)
	}
	mustHold(t, d, sdk.Entry{ID: "a", Size: 1, Hits: 1})
}

// TestGlanceFormatRefuses files that are not Glance's, and leaves a damaged
// one where it is.
func TestGlanceFormatRefuses(t *testing.T) {
	dir := t.TempDir()
	own, _ := open(t, dir, nil)
	apply(t, own, put("a", 1))
	refused := func(options sdk.Config, want error, text string) {
		t.Helper()
		d := New(own.log)
		if err := d.Configure(t.Context(), sdk.Settings{CacheDir: dir, Options: options}); !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("Configure(%v) = %v, want %v with %q", options, err, want, text)
		}
	}
	refused(sdk.Config{"format": "glance", "path": databaseIn(dir)}, sdk.ErrInvalid, "is not Glance's")
	refused(sdk.Config{"format": "glence"}, sdk.ErrInvalid, "expected own or glance")
	if err := os.WriteFile(filepath.Join(dir, "cache.db"), []byte(strings.Repeat("not a database. ", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	refused(asGlance, sdk.ErrUnavailable, "damaged")
	if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
		t.Errorf("the damaged file was touched (-before +after):\n%s", diff)
	}
}
