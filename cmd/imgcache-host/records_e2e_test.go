package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
)

// glanceRecord is what Glance says of an image. Times are in seconds.
type glanceRecord struct {
	ID       string  `json:"image_id"`
	Size     int64   `json:"size"`
	Hits     uint64  `json:"hits"`
	Accessed float64 `json:"last_accessed"`
	Modified float64 `json:"last_modified"`
}

func (a *adoption) glanceRecords(t *testing.T, dir string) (records []glanceRecord) {
	t.Helper()
	if err := json.Unmarshal(runGlance(t, a.driver, dir, a.source, do(nil, "records"))[0], &records); err != nil {
		t.Fatal(err)
	}
	return records
}

// differs says in what a record of Glance and an image of ours differ, which
// keep times to the microsecond, "" for nothing.
func (r glanceRecord) differs(info cache.ImageInfo) string {
	apart := func(seconds float64, at time.Time) bool { return math.Abs(seconds*1e6-float64(at.UnixMicro())) > 1 }
	switch {
	case r.ID != info.ID || r.Size != info.Size:
		return "size"
	case r.Hits != info.Hits:
		return "hits"
	case apart(r.Accessed, info.LastAccessed):
		return "last access"
	}
	return ""
}

// TestRecordsOfGlance: what Glance's driver sqlite has recorded is taken over,
// and its images are served without asking the origin for a byte. When our
// records have been moved into Glance's database it goes on with them.
func TestRecordsOfGlance(t *testing.T) {
	t.Parallel()
	a := &adoption{origin: newOrigin(t), driver: "sqlite", source: t.TempDir(), images: map[string]*testImage{}}
	dir := filepath.Join(t.TempDir(), "images")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ids := strings.Fields("never often once")
	for i, id := range ids {
		size := int64(mib + i)
		a.image(t, id, size)
		a.origin.add(id, size)
	}
	a.glance(t, dir, append(each(true, "store", ids...), each(true, "read", "often", "once", "often", "often")...)...)

	a.daemon = start(t, setup{origin: a.origin.block(), dir: dir})
	a.eventually("the records are there", func() bool { return a.usage().Records == "ready" })
	theirs := a.glanceRecords(t, dir)
	if len(theirs) != len(ids) || theirs[1].Hits != 3 {
		t.Fatalf("Glance has %+v", theirs)
	}
	for _, r := range theirs {
		info := a.state(r.ID)
		if what := r.differs(info); what != "" {
			t.Errorf("the %s of %+v is another than in %+v", what, info, r)
		}
		if stored := info.LastModified.Sub(time.UnixMicro(int64(r.Modified * 1e6))); stored.Abs() > time.Minute {
			t.Errorf("%+v was stored %v apart from %+v", info, stored, r)
		}
	}
	for _, id := range strings.Fields("often never once never") {
		if got := a.get(id); a.images[id].check(got) != nil || !strings.Contains(got.cacheStatus(), "; hit") {
			t.Errorf("%v, %s", a.images[id].check(got), got.cacheStatus())
		}
	}
	if got := a.origin.gets(); len(got) > 0 {
		t.Errorf("fetched from the origin: %v", got)
	}
	a.eventually("the hits are counted", func() bool { return a.state("never").Hits == 2 && a.state("once").Hits == 2 })
	ours := map[string]cache.ImageInfo{}
	for _, id := range ids {
		ours[id] = a.state(id)
	}
	a.stop()

	a.offline(0, "driver", "migrate", "--to", "glance-sqlite")
	for _, r := range a.glanceRecords(t, dir) {
		if what := r.differs(ours[r.ID]); what != "" {
			t.Errorf("handed back: the %s of %+v is another than in %+v", what, r, ours[r.ID])
		}
	}
	steps := each(true, "read", "never", "once")
	steps = append(steps, do(3, "hits", "never"), do(3, "hits", "once"), do([]int{1, mib + 1}, "prune", 3*mib), do([]string{"never", "once"}, "list"))
	a.glance(t, dir, steps...)
}

// TestGlanceDatabase has the service keep its records in Glance's database all
// the time: they outlive a restart, and Glance finds them.
func TestGlanceDatabase(t *testing.T) {
	t.Parallel()
	a := serveAsGlance(t, "sqlite")
	ids := strings.Fields("first second third")
	want := []uint64{3, 2, 1}
	hits := func() (n []uint64) {
		for _, id := range ids {
			n = append(n, a.state(id).Hits)
		}
		return n
	}
	a.eventually("the hits are counted", func() bool { return slices.Equal(hits(), want) })
	a.stop()
	a.restart()
	a.eventually("the records are there", func() bool { return a.usage().Records == "ready" })
	if got := hits(); !slices.Equal(got, want) {
		t.Errorf("after a restart the hits are %v, want %v", got, want)
	}
	ours := map[string]cache.ImageInfo{}
	for _, id := range ids {
		ours[id] = a.state(id)
	}
	a.stop()
	for _, r := range a.glanceRecords(t, a.dir) {
		if what := r.differs(ours[r.ID]); what != "" {
			t.Errorf("the %s of %+v is another than in %+v", what, r, ours[r.ID])
		}
		delete(ours, r.ID)
	}
	if len(ours) > 0 {
		t.Errorf("Glance does not know %v", ours)
	}
	a.glance(t, a.dir, do(true, "read", "third"), do(2, "hits", "third"), do([]int{1, 100_000}, "prune", 250_000), do([]string{"first", "third"}, "list"))
}
