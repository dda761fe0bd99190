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

// TellOnly makes these the record logs to which the index reports what happens.
func (x *Index) TellOnly(inUse, home *journal.Journal) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.journals = slices.Compact(journal.Logs{inUse, home})
}

// Retell begins a record log again, with the records of all images and all their
// hits. From now on the index reports to it what happens. Each record is deleted
// before it is put, because a put keeps the hits of a record that is there.
// Records with the ids in older that have no image are deleted too. The recorder's
// goroutine calls it, and does not write the log meanwhile.
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
			j.Delete(id) // this drops earlier operations of the id too
			if im := x.images[id]; im != nil {
				j.Put(im.entry())
			}
		}
		x.mu.Unlock()
	}
	j.Gather()
}

// Outline counts what a move of the records would do. It returns the number of
// images, the sum of their hits, and how many of the older records in the new
// driver it would replace and remove.
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

// expectation is what the record of an image must be: the entry, except for what
// the driver was not told yet.
type expectation struct {
	im     *Image
	entry  sdk.Entry
	unsent journal.Unsaid
}

// Expect returns, by id, the records that a driver must have. j is its record log,
// of which no batch may be on its way.
func (x *Index) Expect(j *journal.Journal) map[string]expectation {
	x.mu.Lock()
	defer x.mu.Unlock()
	want := make(map[string]expectation, len(x.images))
	for id, im := range x.images {
		want[id] = expectation{im, im.entry(), j.Unacknowledged(id)}
	}
	return want
}

// Differences compares the records that a driver has with those that it must have,
// and returns what is wrong, in the order of the ids. log is the driver's record
// log. bare says that its records have neither versions nor times of commit of their
// own.
func (x *Index) Differences(want map[string]expectation, got map[string]sdk.Entry, log *journal.Journal, bare bool) []Difference {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []Difference
	for id, e := range want {
		if e.unsent.Renewed || x.images[id] != e.im {
			continue // the image came or went after the driver was told
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
			list = append(list, Difference{id, "there is a record, but no image"})
		}
	}
	slices.SortFunc(list, func(a, b Difference) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// glanceID reports whether an id can be one of Glance. Its tables cannot hold
// others.
func glanceID(id string) bool { return len(id) <= 36 && id == strings.ToLower(id) }

// compare says what is wrong with a record, or "". Drivers keep microseconds,
// rounded up or down. A bare driver may keep seconds only, and may have counted a
// batch twice. The last access may be later than expected, since with some drivers
// reading the file moves it.
func (e expectation) compare(have sdk.Entry, bare bool) string {
	hits, least := e.entry.Hits-e.unsent.Hits, time.Microsecond
	if bare {
		least = time.Second
	}
	switch {
	case have.Version != e.entry.Version && !bare:
		return fmt.Sprintf("version %q, expected %q", have.Version, e.entry.Version)
	case have.Size != e.entry.Size:
		return fmt.Sprintf("size %d, expected %d", have.Size, e.entry.Size)
	case have.Hits < hits, have.Hits > hits && !bare:
		return fmt.Sprintf("%d hits, expected %d", have.Hits, hits)
	case !e.unsent.Any && have.LastAccessed.Before(e.entry.LastAccessed.Add(-least)):
		return fmt.Sprintf("last access %v, expected %v", have.LastAccessed, e.entry.LastAccessed)
	case !bare && have.LastModified.Sub(e.entry.LastModified).Abs() > time.Microsecond:
		return fmt.Sprintf("cached at %v, expected %v", have.LastModified, e.entry.LastModified)
	}
	return ""
}

// Difference says what is wrong with the record of an id.
type Difference struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// retellAtOnce is how many images Retell handles before others may use the index:
// they take a millisecond or two.
const retellAtOnce = 1000
