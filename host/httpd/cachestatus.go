package httpd

import (
	"slices"

	"github.com/imgcache/imgcache-host/host/cache"
)

// cacheStatus writes o as the value of Cache-Status (RFC 9211): a structured
// field of one token with parameters. A detail that is none of [cache.Details],
// which are tokens, is not told to anybody.
func cacheStatus(o cache.Outcome) string {
	v := "imgcache; fwd=miss"
	if o.Hit {
		v = "imgcache; hit"
	}
	if o.Collapsed {
		v += "; collapsed"
	}
	if o.Stored {
		v += "; stored"
	}
	if slices.Contains(details, o.Detail) {
		v += "; detail=" + string(o.Detail)
	}
	return v
}

var details = cache.Details()
