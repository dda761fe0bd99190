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

// The name of an image is the rest of a URL path as a person would write it: with
// spaces and letters of all scripts, and without escapes, unless it would be
// another path without them. By RFC 3986 "%7E" is the same as "~", but "%2B" is not
// the same as "+": an object store may have one and not the other. So such an escape
// stays in the name, with upper-case digits. A name has exactly one path, which is
// equivalent to the one that the client sent.
//
//	path           name
//	a%20b.img      a b.img
//	gr%C3%B6.img   grö.img
//	%7Ea/%61       ~a/a
//	a+b  a%2bb     a+b  a%2Bb
//	100%25.img     100%.img
//	%2541          %2541         because %41 would be the name "A"
//	%FF            %FF           it is not a character
//	a%3Fb          a%3Fb         the first ? of a name begins a query
//	a?v=1          a?v=1         where the query is part of it: see [Query]

// maxName bounds the name of an image in bytes. Object stores have the same bound,
// and it bounds the memory of a Set, whatever clients ask for.
const maxName = 1024

// spelled are the characters that mean different things in a path with and without
// an escape. Other characters than these, letters, digits, '-', '.', '_' and '~'
// are always escaped in a path.
const spelled = "!$&'()*+,;=:@[]"

// parseName returns the name for the rest of a path after its prefix, which is given
// as it was sent, with its escapes and without a query. It fails if there are empty
// segments, segments "." or "..", or an escaped slash, backslash or control
// character.
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

// withQuery returns a name with a query appended.
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

// parseQuery returns a query in its only spelling: without escapes that are not
// needed, and with upper-case digits in the others.
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

// nextRune returns the first character of a path, which has several bytes, and its
// length in the path; 0: the bytes are not a character.
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

// hexFollows reports whether the path continues with two hexadecimal digits, which
// may be escaped themselves. After a '%' they would make it an escape.
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

// escapeName returns the path of a name, with its query. It is the inverse of
// parseName.
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

// canonical returns the name that a person means, who may write a name or a path
// from a URL.
func canonical(text string) (string, error) {
	path, query, _ := strings.Cut(escapeName(text), "?")
	name, err := parseName(path)
	if err != nil {
		return "", err
	}
	return withQuery(name, query)
}

// isName reports whether name is the name of an image, as parseName returns it.
func isName(name string) bool {
	again, err := canonical(name)
	return err == nil && again == name
}

// fileName returns the name of an image's file in a directory. There an escaped
// character is the same as the character itself.
func fileName(name string) (string, error) {
	file, err := url.PathUnescape(escapeName(name))
	if err != nil || !isName(name) || strings.Contains(name, "?") || !fs.ValidPath(file) {
		return "", fmt.Errorf("%w: %.64q cannot be the name of a file", ErrNotFound, name)
	}
	return file, nil
}
