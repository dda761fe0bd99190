package origin_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

func TestCaching(t *testing.T) {
	now := time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC)
	const year = 365 * 24 * time.Hour
	fresh := func(d time.Duration) origin.Caching { return origin.Caching{Known: true, For: d} }
	for _, c := range []struct {
		fields string // NAME: VALUE, separated by |
		want   origin.Caching
	}{
		{"", origin.Caching{}},
		{"Cache-Control: public", origin.Caching{}},
		{"Cache-Control: no-store", origin.Caching{NoStore: true}},
		{"Cache-Control: NO-STORE", origin.Caching{NoStore: true}},
		{"Cache-Control: private", origin.Caching{NoStore: true}},
		{`Cache-Control: private="Set-Cookie", max-age=5`, fresh(5 * time.Second)},
		{"Cache-Control: no-cache", origin.Caching{NoCache: true}},
		{`Cache-Control: no-cache="Set-Cookie, X"`, origin.Caching{}},
		{"Cache-Control: must-revalidate, max-age=60", origin.Caching{MustRevalidate: true, Known: true, For: time.Minute}},
		{"Cache-Control: proxy-revalidate", origin.Caching{MustRevalidate: true}},
		{"Cache-Control: max-age=60", fresh(time.Minute)},
		{"Cache-Control: Max-Age = 60", fresh(time.Minute)},
		{`Cache-Control: max-age="60"`, fresh(time.Minute)},
		{"Cache-Control: max-age=0", fresh(0)},
		{"Cache-Control: max-age=-1", fresh(0)},
		{"Cache-Control: max-age=1.5", fresh(0)},
		{"Cache-Control: max-age", fresh(0)},
		{"Cache-Control: max-age=99999999999999999999", fresh(year)},
		{"Cache-Control: max-age=60, max-age=5", fresh(time.Minute)},
		{"Cache-Control: max-age=60|Cache-Control: no-cache", origin.Caching{NoCache: true, Known: true, For: time.Minute}},
		{"Cache-Control: max-age=60, s-maxage=5", fresh(5 * time.Second)},
		{"Cache-Control: x=\"no-store, max-age=1\", max-age=60", fresh(time.Minute)},
		{`Cache-Control: x="a\", no-store`, origin.Caching{}}, // the quotes never end
		{"Cache-Control: ,,max-age=60,,", fresh(time.Minute)},
		{"Cache-Control: max-age=60|Age: 20", fresh(40 * time.Second)},
		{"Cache-Control: max-age=60|Age: 90", fresh(0)},
		{"Cache-Control: max-age=60|Age: old", fresh(time.Minute)},
		{"Expires: Tue, 03 Nov 2026 10:01:00 GMT", fresh(time.Minute)},
		{"Expires: Tue, 03 Nov 2026 09:00:00 GMT", fresh(0)},
		{"Expires: 0", fresh(0)},
		{"Expires: Tue, 03 Nov 2020 10:01:00 GMT|Date: Tue, 03 Nov 2020 10:00:00 GMT", fresh(time.Minute)},
		{"Expires: Tue, 03 Nov 2099 10:00:00 GMT", fresh(year)},
		{"Expires: Tue, 03 Nov 2026 10:01:00 GMT|Cache-Control: max-age=5", fresh(5 * time.Second)},
		{"Vary: *", origin.Caching{NoCache: true}},
		{"Vary: Accept-Encoding", origin.Caching{}},
	} {
		if got := origin.CachingOf(header(c.fields), now); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.fields, got, c.want)
		}
	}
}

func TestTrustFor(t *testing.T) {
	hour := origin.Terms{RevalidateAfter: time.Hour}
	ignorant := origin.Terms{RevalidateAfter: time.Hour, IgnoreCacheControl: true}
	for _, c := range []struct {
		terms origin.Terms
		says  origin.Caching
		want  time.Duration
	}{
		{hour, origin.Caching{}, time.Hour},
		{hour, origin.Caching{Known: true, For: time.Minute}, time.Minute},
		{hour, origin.Caching{Known: true, For: 24 * time.Hour}, time.Hour}, // or a withdrawn image is not noticed
		{hour, origin.Caching{Known: true}, 0},
		{hour, origin.Caching{NoCache: true, Known: true, For: time.Minute}, 0},
		{hour, origin.Caching{NoStore: true}, 0},
		{ignorant, origin.Caching{NoStore: true, NoCache: true, Known: true}, time.Hour},
		{origin.Terms{}, origin.Caching{Known: true, For: time.Minute}, 0},
	} {
		if got := c.terms.TrustFor(c.says); got != c.want {
			t.Errorf("%+v: %v, want %v", c.says, got, c.want)
		}
	}
}

func FuzzCaching(f *testing.F) {
	f.Add(`max-age=60, x="a,b\"", no-store`, "0", "3")
	f.Add(`=,="`, "Tue, 03 Nov 2026 10:01:00 GMT", "")
	f.Fuzz(func(t *testing.T, control, expires, age string) {
		c := origin.CachingOf(http.Header{"Cache-Control": {control}, "Expires": {expires}, "Age": {age}}, time.Unix(1e9, 0))
		if c.For < 0 || c.For > 365*24*time.Hour || !c.Known && c.For != 0 {
			t.Errorf("%q: %+v", control, c)
		}
		// A directive in front of anything else counts.
		if c := origin.CachingOf(http.Header{"Cache-Control": {"no-store," + control}}, time.Unix(1e9, 0)); !c.NoStore {
			t.Errorf("no-store,%q: %+v", control, c)
		}
	})
}
