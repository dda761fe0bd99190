package httpd

import (
	"testing"

	"github.com/dunglas/httpsfv"
	"github.com/imgcache/imgcache-host/host/cache"
)

func TestCacheStatus(t *testing.T) {
	for want, o := range map[string]cache.Outcome{
		"imgcache; hit":                             {Hit: true},
		"imgcache; hit; detail=unverified":          {Hit: true, Detail: cache.DetailUnverified},
		"imgcache; fwd=miss":                        {},
		"imgcache; fwd=miss; stored":                {Stored: true},
		"imgcache; fwd=miss; collapsed; stored":     {Collapsed: true, Stored: true},
		"imgcache; fwd=miss; detail=max_image_size": {Detail: cache.DetailMaxImageSize},
		"imgcache; fwd=miss; collapsed":             {Collapsed: true, Detail: "mkdir /srv/images: permission denied"},
	} {
		if got := cacheStatus(o); got != want {
			t.Errorf("cacheStatus(%+v) = %s, want %s", o, got, want)
		}
	}
}

// TestEveryOutcome reads what is written of every outcome with a parser of
// structured fields.
func TestEveryOutcome(t *testing.T) {
	for _, detail := range append(cache.Details(), "", "open /srv/x: no such file", "a\r\nSet-Cookie: b") {
		for n := range 8 {
			o := cache.Outcome{Hit: n&1 != 0, Collapsed: n&2 != 0, Stored: n&4 != 0, Detail: detail}
			value := cacheStatus(o)
			list, err := httpsfv.UnmarshalList([]string{value})
			if err != nil || len(list) != 1 {
				t.Fatalf("%q is no list of one item: %v", value, err)
			}
			item := list[0].(httpsfv.Item)
			if item.Value != httpsfv.Token("imgcache") {
				t.Errorf("%q is not of imgcache", value)
			}
			for name, want := range map[string]bool{"hit": o.Hit, "fwd": !o.Hit, "collapsed": o.Collapsed, "stored": o.Stored} {
				if _, got := item.Params.Get(name); got != want {
					t.Errorf("%+v is %q: %s is wrong", o, value, name)
				}
			}
			told, ok := item.Params.Get("detail")
			switch {
			case isDetail(detail) != ok:
				t.Errorf("%+v is %q", o, value)
			case ok && told != httpsfv.Token(detail):
				t.Errorf("%+v tells %v", o, told)
			}
		}
	}
}

func isDetail(d cache.Detail) bool {
	for _, known := range cache.Details() {
		if d == known {
			return true
		}
	}
	return false
}
