package xattr

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// leave makes a file as Glance does: with hits, an access time and a time.
func leave(t *testing.T, dir, id, hits string, accessed, modified time.Time) sdk.Entry {
	t.Helper()
	writeFile(t, dir, id)
	path := filepath.Join(dir, id)
	setAttribute(t, path, hitsName, hits)
	if err := os.Chtimes(path, accessed, modified); err != nil {
		t.Fatal(err)
	}
	return sdk.Entry{ID: id, Size: int64(len(id)), LastAccessed: accessed, LastModified: modified}
}

// TestAdoption: a file of Glance has a record from the first listing on, which
// stays as it is whatever reads the file.
func TestAdoption(t *testing.T) {
	dir := cacheDir(t)
	used := leave(t, dir, "used", "12", moment.Add(-time.Hour), moment.Add(-2*time.Hour))
	used.Hits = 12
	odd := leave(t, dir, "odd", "many", moment, moment)
	writeFile(t, dir, "bare") // not stored by Glance: the host has not put it yet
	d, log := open(t, dir, nil)
	want(t, d, used, odd)
	if !strings.Contains(log.String(), "images=2") {
		t.Errorf("the log does not say how many records were adopted: %s", log)
	}
	for _, id := range []string{"used", "odd"} { // as a scrub does that reads them
		if err := os.Chtimes(filepath.Join(dir, id), time.Now(), used.LastModified); err != nil {
			t.Fatal(err)
		}
	}
	want(t, d, used, odd)

	batch := next(logA)
	apply(t, d, batch(sdk.Touch("used", 3, moment), sdk.Touch("bare", 1, moment)))
	used.Hits, used.LastAccessed = 15, moment
	want(t, d, used, odd)
	known := used // as the host puts it once it knows the version
	known.Version = "sha256:1"
	apply(t, d, batch(sdk.Put(known), sdk.Delete("odd")))
	want(t, d, known)
	if got := attribute(t, filepath.Join(dir, "used"), hitsName); got != "15" {
		t.Errorf("Glance sees %s hits, want 15", got)
	}
}

// TestAccessTimesAreNotRead: which image was used last is on record, to the
// nanosecond, whatever the file system says.
func TestAccessTimesAreNotRead(t *testing.T) {
	dir := cacheDir(t)
	writeFile(t, dir, "a", "b")
	d, _ := open(t, dir, nil)
	batch := next(logA)
	a, b := entry("a", 0), entry("b", 0)
	apply(t, d, batch(sdk.Put(a), sdk.Put(b)))
	for i := range 3 { // a, b, a, a: the file system moves an access time once a day
		a.Hits, a.LastAccessed = a.Hits+1, moment.Add(time.Duration(2*i+1))
		apply(t, d, batch(sdk.Touch("a", 1, a.LastAccessed)))
		if i == 0 {
			b.Hits, b.LastAccessed = 1, moment.Add(2)
			apply(t, d, batch(sdk.Touch("b", 1, b.LastAccessed)))
		}
	}
	for id, at := range map[string]time.Time{"a": moment.Add(-time.Hour), "b": moment.Add(time.Hour)} {
		if err := os.Chtimes(filepath.Join(dir, id), at, at); err != nil {
			t.Fatal(err)
		}
	}
	d, _ = open(t, dir, nil)
	want(t, d, a, b)
}

// TestGlanceCountsMeanwhile hands files back and over again.
func TestGlanceCountsMeanwhile(t *testing.T) {
	dir := cacheDir(t)
	writeFile(t, dir, "read", "idle")
	d, _ := open(t, dir, nil)
	batch := next(logA)
	apply(t, d, batch(sdk.Put(entry("read", 5)), sdk.Put(entry("idle", 5))))

	path := filepath.Join(dir, "read")
	setAttribute(t, path, hitsName, "8") // Glance served it three times
	if err := os.Chtimes(path, moment.Add(time.Hour), moment); err != nil {
		t.Fatal(err)
	}
	read := entry("read", 8)
	read.LastAccessed = moment.Add(time.Hour)
	d, _ = open(t, dir, nil)
	want(t, d, read, entry("idle", 5))
	want(t, d, read, entry("idle", 5))
	apply(t, d, batch(sdk.Touch("read", 1, moment)))
	read.Hits = 9
	want(t, d, read, entry("idle", 5))
}

// TestFormatGlance keeps what Glance keeps, and nothing of ours.
func TestFormatGlance(t *testing.T) {
	dir := cacheDir(t)
	format := sdk.Config{"format": "glance"}
	old := leave(t, dir, "old", "4", moment.Add(-time.Hour), moment)
	old.Hits = 4
	writeFile(t, dir, "new")
	if err := os.Chtimes(filepath.Join(dir, "new"), moment.Add(-time.Hour), moment); err != nil {
		t.Fatal(err)
	}
	d, _ := open(t, dir, format)
	batch := next(logA)
	batch() // what another form of records has seen
	apply(t, d, batch(sdk.Put(entry("new", 7)), sdk.Touch("old", 2, moment.Add(time.Minute))))
	old.Hits, old.LastAccessed = 6, moment.Add(time.Minute)
	fresh := sdk.Entry{ID: "new", Size: 3, Hits: 7, LastAccessed: moment, LastModified: moment}
	want(t, d, old, fresh)
	apply(t, d, batch(sdk.Put(entry("new", 2)), sdk.Put(sdk.Entry{ID: "old", Hits: 1}))) // both without a version on record
	fresh.Hits = 2
	want(t, d, old, fresh)
	repeated := batch(sdk.Touch("new", 1, time.Time{}))
	apply(t, d, repeated)
	apply(t, d, repeated) // known since the start
	fresh.Hits = 3
	want(t, d, old, fresh)
	batch()
	if err := d.Apply(t.Context(), batch()); err == nil {
		t.Errorf("a gap is not refused")
	}
	for _, id := range []string{"old", "new"} {
		if got := attribute(t, filepath.Join(dir, id), recordName); got != "-" {
			t.Errorf("%s has a record of ours: %s", id, got)
		}
	}
	if got := attribute(t, filepath.Join(dir, ".imgcache"), sourcesName); got != "-" {
		t.Errorf("the sources are kept: %s", got)
	}

	d, _ = open(t, dir, format)
	apply(t, d, repeated) // at least once: nothing says that it was applied
	fresh.Hits = 4
	want(t, d, old, fresh)
	apply(t, d, next(logB)(sdk.Delete("old")))
	if got := attribute(t, filepath.Join(dir, "old"), hitsName); got != "-" {
		t.Errorf("a record that was deleted still has %s hits", got)
	}

	d, _ = open(t, dir, nil) // and to ours
	want(t, d, fresh)

	d, _ = open(t, dir, format) // and back
	apply(t, d, next(logB)(sdk.Delete("new")))
	d, _ = open(t, dir, nil)
	want(t, d)
}
