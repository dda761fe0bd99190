package httpd

import (
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"
	"github.com/imgcache/imgcache-host/host/cache"
)

func TestCacheStatus(t *testing.T) {
	for want, o := range map[string]cache.Outcome{
		"imgcache; hit":                                     {Hit: true},
		"imgcache; hit; detail=unverified":                  {Hit: true, Detail: "unverified"},
		"imgcache; fwd=miss":                                {},
		"imgcache; fwd=miss; stored":                        {Stored: true},
		"imgcache; fwd=miss; collapsed; stored":             {Collapsed: true, Stored: true},
		`imgcache; fwd=miss; detail="no \"space\" here \\"`: {Detail: `no "space" here \`},
		`imgcache; fwd=miss; detail="9"`:                    {Detail: "9"},
		`imgcache; fwd=miss; detail="a??b?"`:                {Detail: "a\r\nbü"},
		"imgcache; fwd=miss; detail=origin-down":            {Detail: "origin-down"},
	} {
		if got := cacheStatus(o); got != want {
			t.Errorf("cacheStatus(%+v) = %s, want %s", o, got, want)
		}
	}
}

// FuzzCacheStatus reads what was written with a parser of structured fields.
func FuzzCacheStatus(f *testing.F) {
	for _, detail := range []string{"", "unverified", "two words", `"`, `\`, "\x00\x7f", "ü", "*t", "1st", "a;b", "a,b"} {
		f.Add(detail, true)
	}
	f.Fuzz(func(t *testing.T, detail string, hit bool) {
		value := cacheStatus(cache.Outcome{Hit: hit, Detail: detail})
		list, err := httpsfv.UnmarshalList([]string{value})
		if err != nil || len(list) != 1 {
			t.Fatalf("%q is no list of one item: %v", value, err)
		}
		item := list[0].(httpsfv.Item)
		if item.Value != httpsfv.Token("imgcache") {
			t.Fatalf("%q is not of imgcache", value)
		}
		if _, isHit := item.Params.Get("hit"); isHit != hit {
			t.Fatalf("%q: hit is %v, want %v", value, isHit, hit)
		}
		got, _ := item.Params.Get("detail")
		if token, ok := got.(httpsfv.Token); ok {
			got = string(token)
		}
		want := strings.Map(func(c rune) rune {
			if c < ' ' || c > '~' {
				return '?'
			}
			return c
		}, detail)
		if detail != "" && got != want {
			t.Fatalf("%q has detail %q, want %q", value, got, want)
		}
	})
}
