package index

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/journal"
	"github.com/imgcache/imgcache-host/sdk"
)

// TellOnly has these record logs told what happens, and no others.
func (x *Index) TellOnly(inUse, home *journal.Journal) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.journals = slices.Compact(journal.Logs{inUse, home})
}

// Retell begins a record log anew, with the records of all images and their
// full hits, and has it told from now on what happens. Each record is deleted
// before it is put, since a driver keeps the hits of one that it has; so are
// older ones that have no image. It is called by the recorder's goroutine,
// which writes nothing of it meanwhile.
func (x *Index) Retell(j *journal.Journal, older []string) {
	x.mu.Lock()
	j.Begin()
	if !slices.Contains(x.journals, j) {
		x.journals = append(x.journals, j)
	}
	ids := slices.AppendSeq(older, maps.Keys(x.images))
	x.mu.Unlock()
	slices.Sort(ids)
	for some := range slices.Chunk(slices.Compact(ids), retellAtOnce) {
		x.mu.Lock()
		for _, id := range some {
			j.Delete(id) // and whatever else was told of it
			if im := x.images[id]; im != nil {
				j.Put(im.entry())
			}
		}
		x.mu.Unlock()
	}
	j.Gather()
}

// Outline counts what a move of the records would do: the images and their
// hits, and of the older records that the driver has those of images and the
// others.
func (x *Index) Outline(older []string) (images int, hits uint64, replaced, removed int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, im := range x.images {
		hits += im.hits
	}
	for _, id := range older {
		if x.images[id] != nil {
			replaced++
		} else {
			removed++
		}
	}
	return len(x.images), hits, replaced, removed
}

// expectation is what the record of an image must be: the entry, but for what
// the driver has still to be told.
type expectation struct {
	im     *Image
	entry  sdk.Entry
	unsent journal.Unsaid
}

// Expect returns what a driver must have, by its record log, of which no batch
// is on its way.
func (x *Index) Expect(j *journal.Journal) map[string]expectation {
	x.mu.Lock()
	defer x.mu.Unlock()
	want := make(map[string]expectation, len(x.images))
	for id, im := range x.images {
		want[id] = expectation{im, im.entry(), j.Unacknowledged(id)}
	}
	return want
}

// Differences compares the records that a driver has with what it must have, by
// its record log, and returns those that are wrong by id. Bare says that the
// driver's records have neither versions nor times of commit of their own.
func (x *Index) Differences(want map[string]expectation, got map[string]sdk.Entry, log *journal.Journal, bare bool) []Difference {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []Difference
	for id, e := range want {
		if e.unsent.Renewed || x.images[id] != e.im {
			continue // it has come or gone since the driver was told
		}
		if have, ok := got[id]; !ok && bare && !glanceID(id) {
			continue
		} else if !ok {
			list = append(list, Difference{id, "there is no record"})
		} else if why := e.compare(have, bare); why != "" {
			list = append(list, Difference{id, why})
		}
	}
	for id := range got {
		if sdk.ValidID(id) && x.images[id] == nil && want[id].im == nil && !log.Unacknowledged(id).Any {
			list = append(list, Difference{id, "there is a record, and no image"})
		}
	}
	slices.SortFunc(list, func(a, b Difference) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// glanceID reports whether an id can be one of Glance, whose tables have no
// place for others.
func glanceID(id string) bool { return len(id) <= 36 && id == strings.ToLower(id) }

// compare says what is wrong with a record, or "". Drivers keep microseconds,
// rounded either way. A bare one may keep seconds, and may have counted a batch
// twice. A last access may be later, where whoever reads the file moves it.
func (e expectation) compare(have sdk.Entry, bare bool) string {
	hits, least := e.entry.Hits-e.unsent.Hits, time.Microsecond
	if bare {
		least = time.Second
	}
	switch {
	case have.Version != e.entry.Version && !bare:
		return fmt.Sprintf("version %q, want %q", have.Version, e.entry.Version)
	case have.Size != e.entry.Size:
		return fmt.Sprintf("size %d, want %d", have.Size, e.entry.Size)
	case have.Hits < hits, have.Hits > hits && !bare:
		return fmt.Sprintf("%d hits, want %d", have.Hits, hits)
	case !e.unsent.Any && have.LastAccessed.Before(e.entry.LastAccessed.Add(-least)):
		return fmt.Sprintf("last access %v, want %v", have.LastAccessed, e.entry.LastAccessed)
	case !bare && have.LastModified.Sub(e.entry.LastModified).Abs() > time.Microsecond:
		return fmt.Sprintf("cached at %v, want %v", have.LastModified, e.entry.LastModified)
	}
	return ""
}

// Difference is a record that is not as it should be.
type Difference struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// retellAtOnce is how many images are looked at before others may use the index:
// a millisecond or two.
const retellAtOnce = 1000
