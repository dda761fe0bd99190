package sdktest

import (
	"fmt"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

type driverCase struct {
	name     string
	sentence string // of the contract
	run      func(*store)
}

// driverCases are the sentences of the contract of drivers: operations here,
// then batches, listing, and all of it at random.
var driverCases = append([]driverCase{
	{"put stores the entry as it stands", putStores, testPut},
	{"put keeps the hits of the same version", putReplaces, testPutSameVersion},
	{"put of another version replaces the record", putReplaces, testPutNewVersion},
	{"versions are compared byte for byte", exact, testVersions},
	{"ids are compared byte for byte", exact, testIDs},
	{"delete removes the record", deletes, testDelete},
	{"delete of an absent id is no error", deleteAbsent, testDeleteAbsent},
	{"touch adds hits and moves the last access", touches, testTouch},
	{"touch never moves the last access back", touches, testTouchBack},
	{"touch of an absent id creates nothing", touchAbsent, testTouchAbsent},
	{"times keep microseconds", exact, testMicroseconds},
	{"times that are not known stay unknown", putStores, testZeroTimes},
	{"numbers keep 63 bits", exact, testBigNumbers},
}, append(append(batchCases, listCases...), modelCases...)...)

func testPut(s *store) {
	a, b := entry("a"), entry("b")
	a.Hits, b.LastModified = 7, at.Add(-time.Hour)
	s.apply(sdk.Put(a), sdk.Put(b))
	s.want(a, b)
}

func testPutSameVersion(s *store) {
	e := entry("a")
	e.Hits = 5
	s.apply(sdk.Put(e))

	earlier := e
	earlier.Hits, earlier.Size, earlier.LastAccessed, earlier.LastModified = 0, 2, at.Add(-time.Minute), at.Add(time.Minute)
	s.apply(sdk.Put(earlier))
	want := earlier
	want.Hits, want.LastAccessed = 5, at
	s.want(want)

	later := earlier
	later.Hits, later.LastAccessed = 99, at.Add(time.Hour)
	s.apply(sdk.Put(later))
	want = later
	want.Hits = 5
	s.want(want)
}

func testPutNewVersion(s *store) {
	e := entry("a")
	e.Hits = 5
	s.apply(sdk.Put(e))
	e.Version, e.Hits, e.LastAccessed = `"v2"`, 1, at.Add(-time.Hour)
	s.apply(sdk.Put(e))
	s.want(e)
}

func testVersions(s *store) {
	versions := []string{
		"", "v", "V", "v ", " v", `W/"v"`, "it's", `"; DROP TABLE x; --`, "%s%d", "a\nb", "é", "e\u0301",
		"画像-🖼", strings.Repeat("x", 4000), strings.Repeat("x", 4000) + "y",
	}
	e := entry("a")
	for i, v := range versions {
		e.Version, e.Hits = v, uint64(i+1)
		s.apply(sdk.Put(e))
		s.want(e) // no two are the same version, so no hits are kept
	}
}

func testIDs(s *store) {
	ids := []string{
		"a", "A", "a.", "a-", "a_", "a.b", "0", "00", "1e1", "null", "b_c", "bxc",
		strings.Repeat("z", sdk.MaxIDLen-1), strings.Repeat("z", sdk.MaxIDLen),
	}
	var want []sdk.Entry
	for i, id := range ids {
		e := entry(id)
		e.Size = int64(i)
		want = append(want, e)
	}
	s.apply(puts(want)...)
	s.want(want...)
	s.apply(sdk.Delete("A"), sdk.Delete("b_c"), sdk.Touch("a", 1, at))
	kept := []sdk.Entry{want[0]}
	kept[0].Hits = 1
	for _, e := range want[1:] {
		if e.ID != "A" && e.ID != "b_c" {
			kept = append(kept, e)
		}
	}
	s.want(kept...)
}

func testDelete(s *store) {
	s.apply(sdk.Put(entry("a")), sdk.Put(entry("b")))
	s.apply(sdk.Delete("a"))
	s.want(entry("b"))
	s.apply(sdk.Delete("b"))
	s.want()
}

func testDeleteAbsent(s *store) {
	s.apply(sdk.Delete("a"))
	s.apply(sdk.Put(entry("b")), sdk.Delete("a"), sdk.Delete("a"))
	s.want(entry("b"))
}

func testTouch(s *store) {
	e := entry("a")
	e.Hits = 1
	s.apply(sdk.Put(e), sdk.Put(entry("b")))
	s.apply(sdk.Touch("a", 2, at.Add(time.Second)))
	s.apply(sdk.Touch("a", 3, at.Add(time.Minute)), sdk.Touch("a", 0, at.Add(time.Hour)))
	e.Hits, e.LastAccessed = 6, at.Add(time.Hour)
	s.want(e, entry("b"))
}

func testTouchBack(s *store) {
	s.apply(sdk.Put(entry("a")))
	s.apply(sdk.Touch("a", 1, at.Add(-time.Hour)), sdk.Touch("a", 1, time.Time{}))
	want := entry("a")
	want.Hits = 2
	s.want(want)
}

func testTouchAbsent(s *store) {
	s.apply(sdk.Touch("a", 1, at))
	s.want()
	s.apply(sdk.Put(entry("a")), sdk.Delete("a"), sdk.Touch("a", 1, at))
	s.want()
}

func testMicroseconds(s *store) {
	var want []sdk.Entry
	for i := range 20 {
		e := entry(fmt.Sprint("i", i))
		e.LastAccessed = at.Add(time.Duration(i) * time.Microsecond)
		e.LastModified = at.Add(-time.Duration(i) * time.Microsecond)
		want = append(want, e)
	}
	s.apply(puts(want)...)
	s.want(want...)
	s.apply(sdk.Touch("i0", 1, at.Add(time.Microsecond)))
	want[0].Hits, want[0].LastAccessed = 1, at.Add(time.Microsecond)
	s.want(want...)
}

func testZeroTimes(s *store) {
	e := entry("a")
	e.LastAccessed, e.LastModified = time.Time{}, time.Time{}
	s.apply(sdk.Put(e))
	s.want(e)
	s.apply(sdk.Touch("a", 1, at))
	e.Hits, e.LastAccessed = 1, at
	s.want(e)
}

func testBigNumbers(s *store) {
	e := entry("a")
	e.Size, e.Hits = 1<<62+1, 1<<62+1
	e.LastModified = time.Date(2200, 1, 1, 0, 0, 0, 1000, time.UTC)
	s.apply(sdk.Put(e))
	s.apply(sdk.Touch("a", 1<<40, at))
	e.Hits += 1 << 40
	s.want(e)
}
