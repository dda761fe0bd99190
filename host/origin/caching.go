package origin

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Caching is what the origin's answer says about storing it in a shared cache
// (RFC 9111). The zero value says nothing.
type Caching struct {
	NoStore        bool          `json:",omitempty"` // it must not be stored, or not by a shared cache
	NoCache        bool          `json:",omitempty"` // it may be served only when the origin has just confirmed it
	MustRevalidate bool          `json:",omitempty"` // it must not be served stale
	Known          bool          `json:",omitempty"` // For is set
	For            time.Duration `json:",omitempty"` // how long it is fresh from now on; 0: it is not
}

// maxFresh bounds how long an answer is fresh. No origin plans further ahead than a
// year, which RFC 2616 had as the longest time.
const maxFresh = 365 * 24 * time.Hour

// TrustFor returns how long an image is served before the origin is asked about
// it: as long as both the configuration and the origin allow.
func (t Terms) TrustFor(c Caching) time.Duration {
	switch {
	case t.IgnoreCacheControl:
		return t.RevalidateAfter
	case c.NoCache || c.NoStore:
		return 0
	case c.Known:
		return min(c.For, t.RevalidateAfter)
	}
	return t.RevalidateAfter
}

// caching reads the fields of an answer that came at the time now. A malformed
// lifetime counts as stale, as RFC 9111, section 4.2.1, recommends.
func caching(h http.Header, now time.Time) Caching {
	d := directives(h.Values("Cache-Control"))
	_, noStore := d["no-store"]
	private, isPrivate := d["private"]
	noCache, isNoCache := d["no-cache"]
	_, must := d["must-revalidate"]
	_, proxyMust := d["proxy-revalidate"]
	c := Caching{
		NoStore:        noStore || isPrivate && private == "",
		NoCache:        isNoCache && noCache == "" || strings.TrimSpace(h.Get("Vary")) == "*",
		MustRevalidate: must || proxyMust,
	}
	lifetime, known := freshFor(h, d, now)
	if known {
		c.Known, c.For = true, max(lifetime-age(h), 0)
	}
	return c
}

// freshFor returns how long an answer is fresh after it was made. What it says to
// shared caches counts more than what it says to all.
func freshFor(h http.Header, d map[string]string, now time.Time) (time.Duration, bool) {
	for _, name := range []string{"s-maxage", "max-age"} {
		if v, ok := d[name]; ok {
			n, _ := seconds(v) // 0 if it is not a number
			return n, true
		}
	}
	expires := h.Values("Expires")
	if len(expires) == 0 {
		return 0, false
	}
	at, err := http.ParseTime(expires[0])
	if err != nil {
		return 0, true // such as "0", which means the past
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), maxFresh), true
}

// age returns how long other caches have had the answer.
func age(h http.Header) time.Duration {
	n, _ := seconds(strings.TrimSpace(h.Get("Age")))
	return n
}

// seconds reads a number of seconds and returns at most maxFresh.
func seconds(v string) (time.Duration, bool) {
	if v == "" || strings.Trim(v, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil { // it has too many digits
		return maxFresh, true
	}
	return min(time.Duration(n)*time.Second, maxFresh), true
}

// directives reads the lines of Cache-Control. Names are returned in lower case; if
// a name occurs twice, the first one counts. A value in quotes may contain commas.
func directives(lines []string) map[string]string {
	found := map[string]string{}
	for rest := strings.Join(lines, ","); rest != ""; {
		var name, value string
		name, rest = cutAny(rest, "=,")
		if strings.HasPrefix(rest, "=") {
			value, rest = directiveValue(strings.TrimLeft(rest[1:], " \t"))
		}
		rest = strings.TrimPrefix(rest, ",")
		name = strings.ToLower(strings.TrimSpace(name))
		if _, twice := found[name]; name != "" && !twice {
			found[name] = value
		}
	}
	return found
}

// directiveValue reads a token or a quoted string, up to the next comma.
func directiveValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutAny(s, ",")
		return strings.TrimSpace(value), rest
	}
	var b strings.Builder
	i := 1
	for ; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	_, rest = cutAny(s[min(i+1, len(s)):], ",")
	return b.String(), rest
}

// cutAny cuts s before the first occurrence of one of the bytes.
func cutAny(s, bytes string) (before, rest string) {
	if i := strings.IndexAny(s, bytes); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}
