package httpd

import (
	"strings"

	"github.com/imgcache/imgcache-host/host/cache"
)

// cacheStatus writes o as the value of Cache-Status (RFC 9211): a structured
// field of one token with parameters.
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
	if o.Detail != "" {
		v += "; detail=" + fieldValue(o.Detail)
	}
	return v
}

// fieldValue writes s as a token of a structured field (RFC 9651) when it is
// one, else as a string. Characters that no string can hold become '?'.
func fieldValue(s string) string {
	if isToken(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c < ' ' || c > '~':
			b.WriteByte('?')
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			fallthrough
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func isToken(s string) bool {
	const marks = "!#$%&'*+-.^_`|~:/"
	for i, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		digit := '0' <= c && c <= '9'
		switch {
		case letter || c == '*':
		case i > 0 && (digit || strings.IndexByte(marks, c) >= 0):
		default:
			return false
		}
	}
	return s != ""
}
