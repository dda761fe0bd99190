package origin

import (
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/imgcache/imgcache-host/host/store"
)

// The name of an image is the rest of a URL path as a person would write it:
// with spaces and letters of all scripts, and without escapes, except where
// without them it would be another path. RFC 3986 lets "%7E" be written "~",
// but not "%2B" as "+": an object store may have one and not the other. So such
// an escape stays in the name, with upper-case digits, and a name has one path,
// which is the one that the client asked for but for equivalent spellings.
//
//	path           name
//	a%20b.img      a b.img
//	gr%C3%B6.img   grö.img
//	%7Ea/%61       ~a/a
//	a+b  a%2bb     a+b  a%2Bb
//	100%25.img     100%.img
//	%2541          %2541         else it would be the name of "A"
//	%FF            %FF           no character
//	a%3Fb          a%3Fb         the first ? of a name begins a query
//	a?v=1          a?v=1         where the query is part of it: see [Query]

// maxName bounds the name of an image in bytes. It is the bound of object
// stores, and keeps what a Set remembers small whatever clients ask for.
const maxName = 1024

// spelled are the characters that mean one thing in a path as they are, and
// another thing escaped. The rest of what is no letter, digit, '-', '.', '_' or
// '~' stands in a path only in an escape.
const spelled = "!$&'()*+,;=:@[]"

// parseName returns the name of what was sent behind a prefix, with its
// escapes and without a query. It fails for what has empty segments or dots for
// segments, or hides a slash, backslash or control character in an escape.
func parseName(sent string) (string, error) {
	bad := func() (string, error) { return "", fmt.Errorf("%w: %.64q", store.ErrBadID, sent) }
	var b strings.Builder
	for i := 0; i < len(sent); {
		c, escaped, ok := nextByte(sent[i:])
		if !ok {
			return bad()
		}
		n := width(escaped)
		switch {
		case c == '/' && escaped, c == '?' && !escaped:
			return bad()
		case escaped && (c == '?' || strings.IndexByte(spelled, c) >= 0):
			fmt.Fprintf(&b, "%%%02X", c)
		case c >= utf8.RuneSelf:
			r, used := nextRune(sent[i:])
			if used > 0 {
				b.WriteRune(r)
				n = used
			} else {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		case c == '%' && hexFollows(sent[i+n:]):
			b.WriteString("%25")
		default:
			b.WriteByte(c)
		}
		i += n
	}
	name := b.String()
	if len(name) > maxName || name == "." || !fs.ValidPath(name) ||
		strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || unicode.IsControl(r) }) {
		return bad()
	}
	return name, nil
}

// withQuery returns the name of the path that has a name, and a query.
func withQuery(name, query string) (string, error) {
	query, err := parseQuery(query)
	if err != nil || query == "" {
		return name, err
	}
	if name += "?" + query; len(name) > maxName {
		return "", fmt.Errorf("%w: %.64q", store.ErrBadID, name)
	}
	return name, nil
}

// parseQuery returns the one spelling of a query: what needs no escape has
// none, and the digits of the others are upper-case.
func parseQuery(sent string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(sent); {
		c, escaped, ok := nextByte(sent[i:])
		switch {
		case !ok, !escaped && (c < ' ' || c == 0x7f):
			return "", fmt.Errorf("%w: the query %.64q is malformed", store.ErrBadID, sent)
		case isUnreserved(c), !escaped && strings.IndexByte("/?"+spelled, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
		i += width(escaped)
	}
	return b.String(), nil
}

// isUnreserved reports whether a character means the same with an escape and
// without (RFC 3986, section 2.3).
func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// nextByte returns the first byte of a path, which may be escaped.
func nextByte(s string) (c byte, escaped, ok bool) {
	if s[0] != '%' {
		return s[0], false, true
	}
	if len(s) < 3 || !isHex(s[1]) || !isHex(s[2]) {
		return 0, false, false
	}
	return fromHex(s[1])<<4 | fromHex(s[2]), true, true
}

func width(escaped bool) int {
	if escaped {
		return 3
	}
	return 1
}

// nextRune returns the character of several bytes with which a path begins, and
// how long it is there; 0 when the bytes are none.
func nextRune(s string) (rune, int) {
	var buf [utf8.UTFMax]byte
	used := 0
	for n := range buf {
		if used >= len(s) {
			break
		}
		c, escaped, ok := nextByte(s[used:])
		if !ok {
			break
		}
		buf[n] = c
		used += width(escaped)
		if r, size := utf8.DecodeRune(buf[:n+1]); r != utf8.RuneError || size > 1 {
			return r, used
		}
	}
	return 0, 0
}

// hexFollows reports whether the name goes on with two hexadecimal digits, which
// may be escaped: behind a '%' they would make an escape of it.
func hexFollows(s string) bool {
	for range 2 {
		if s == "" {
			return false
		}
		c, escaped, ok := nextByte(s)
		if !ok || !isHex(c) {
			return false
		}
		s = s[width(escaped):]
	}
	return true
}

func isHex(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }

func fromHex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

// escapeName returns the path of a name, with its query: parseName backwards.
func escapeName(name string) string {
	path, query, ok := strings.Cut(name, "?")
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case isUnreserved(c), strings.IndexByte("/"+spelled, c) >= 0:
			b.WriteByte(c)
		case c == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if ok {
		b.WriteString("?" + query)
	}
	return b.String()
}

// canonical returns the name that a person means, who may as well give the path
// as it stands in a URL.
func canonical(text string) (string, error) {
	path, query, _ := strings.Cut(escapeName(text), "?")
	name, err := parseName(path)
	if err != nil {
		return "", err
	}
	return withQuery(name, query)
}

// isName reports whether it is the name of an image, as parseName gives it.
func isName(name string) bool {
	again, err := canonical(name)
	return err == nil && again == name
}

// fileName returns the name of the file that an image is in a directory, where
// an escaped character is the same one.
func fileName(name string) (string, error) {
	file, err := url.PathUnescape(escapeName(name))
	if err != nil || !isName(name) || strings.Contains(name, "?") || !fs.ValidPath(file) {
		return "", fmt.Errorf("%w: %.64q is no name of a file", ErrNotFound, name)
	}
	return file, nil
}
