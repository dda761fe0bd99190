package httpd

import (
	"net/http"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
)

// precondition evaluates the conditional headers of a GET or HEAD in the order
// of RFC 9110 section 13.2.2. It returns 0 when the request goes on, else 304
// or 412.
func precondition(h http.Header, c cache.Content) int {
	etag, modified := c.ETag(), c.ModTime()
	if match := h.Values("If-Match"); len(match) > 0 {
		if !matchETag(match, etag, strongly) {
			return http.StatusPreconditionFailed
		}
	} else if at, ok := date(h, "If-Unmodified-Since"); ok && !modified.IsZero() && seconds(modified).After(at) {
		return http.StatusPreconditionFailed
	}
	if none := h.Values("If-None-Match"); len(none) > 0 {
		if matchETag(none, etag, weakly) {
			return http.StatusNotModified
		}
	} else if at, ok := date(h, "If-Modified-Since"); ok && !modified.IsZero() && !seconds(modified).After(at) {
		return http.StatusNotModified
	}
	return 0
}

// rangeHolds reports whether If-Range, when there is one, names exactly what
// c is, so that the Range may be obeyed.
func rangeHolds(h http.Header, c cache.Content) bool {
	value := h.Get("If-Range")
	switch {
	case value == "":
		return true
	case strings.HasPrefix(value, `"`):
		return value == c.ETag()
	default: // a date; a weak tag is none and never holds
		at, ok := date(h, "If-Range")
		return ok && !c.ModTime().IsZero() && seconds(c.ModTime()).Equal(at)
	}
}

// comparison says whether weak entity tags count.
type comparison bool

const (
	strongly comparison = false
	weakly   comparison = true
)

// matchETag reports whether one of the entity tags in the lines of a header is
// etag, which is strong or empty. "*" matches every image.
func matchETag(lines []string, etag string, how comparison) bool {
	rest := strings.Join(lines, ",")
	for {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			return false
		}
		if rest[0] == '*' {
			return true
		}
		tag, weak := strings.CutPrefix(rest, "W/")
		if !strings.HasPrefix(tag, `"`) {
			return false // no entity tag, so neither is what follows
		}
		end := strings.IndexByte(tag[1:], '"')
		if end < 0 {
			return false
		}
		tag, rest = tag[:end+2], tag[end+2:]
		if tag == etag && (!weak || how == weakly) {
			return true
		}
	}
}

// date reads a header that holds a time of HTTP.
func date(h http.Header, name string) (time.Time, bool) {
	t, err := http.ParseTime(h.Get(name))
	return t, err == nil
}

// seconds is t as Last-Modified can say it.
func seconds(t time.Time) time.Time { return t.Truncate(time.Second) }
