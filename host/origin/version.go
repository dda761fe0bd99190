package origin

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A version is a text. Two answers have the same version only if they are about the
// same bytes, as far as the origin says:
//
//	sha256:HEX                   a declared digest, also sha512 and md5
//	"TAG"                        a strong entity tag, with its quotes
//	stat:SIZE-NANOSECONDS        length and time of the last change
//	stat:SIZE-NANOSECONDS-wHASH  the same with a weak or malformed entity tag
//	stat:SIZE-NANOSECONDS-fHASH  of a file in a directory, with its identity
//	weak:HASH                    a weak or malformed entity tag alone
//
// The first of these that is known is the version. A version of the kind weak can
// prove that an image has changed, but never that two parts belong together.
const (
	statKind = "stat:"
	weakKind = "weak:"
)

// longestTag bounds an entity tag that is stored and sent on. The tags of all known
// servers have less than 100 bytes.
const longestTag = 1 << 10

// tagHash is the beginning of a text that stands for an entity tag by its SHA-256.
// That does not have the form of an entity tag, so it is never sent.
const tagHash = "sha256:"

// hashDigits is how many digits of its SHA-256 stand for a text: 128 bits.
const hashDigits = 32

// isHash reports whether s has the form of a text's hash.
func isHash(s string) bool { return len(s) == hashDigits && strings.Trim(s, "0123456789abcdef") == "" }

func hashText(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:hashDigits]
}

// entityTag returns the entity tag of a response in the form of [Validators].
func entityTag(h http.Header) string {
	switch tag := h.Get("ETag"); {
	case tag == `""`, tag == `W/""`: // it identifies nothing, and would never change
		return ""
	case len(tag) > longestTag, !utf8.ValidString(tag): // it is stored as JSON, which must be UTF-8
		return tagHash + hashText(opaque(tag))
	default:
		return tag
	}
}

// opaque returns an entity tag without the mark of a weak one. Some servers make
// their tags weak for a while after a file was written, and the tag is still about
// the same bytes.
func opaque(tag string) string { return strings.TrimPrefix(tag, "W/") }

// tagKey returns a text by which entity tags of any form are compared; "": there is
// no tag.
func tagKey(tag string) string {
	if tag == "" || isTagHash(tag) {
		return tag
	}
	return tagHash + hashText(opaque(tag))
}

func isTagHash(tag string) bool {
	hash, ok := strings.CutPrefix(tag, tagHash)
	return ok && isHash(hash)
}

// isETag reports whether tag is a strong entity tag, which promises that the bytes
// are equal.
func isETag(tag string) bool {
	n := len(tag)
	return n > 2 && tag[0] == '"' && tag[n-1] == '"' && !strings.ContainsFunc(tag[1:n-1], func(r rune) bool {
		return r <= ' ' || r == '"' || r == 0x7f
	})
}

// version makes a version of the validators that count.
func (v Validators) version(t Terms) string {
	tag := ""
	if t.counts(ByETag) {
		tag = v.ETag
	}
	switch {
	case t.counts(ByDigest) && len(v.Digests) > 0:
		return v.Digests[0].version()
	case isETag(tag):
		return tag
	case v.File != "":
		return statVersion(v.Size, v.LastModified) + "-" + v.File
	case t.counts(ByLastModified) && v.Size >= 0 && !v.LastModified.IsZero() && tag == "":
		return statVersion(v.Size, v.LastModified)
	case t.counts(ByLastModified) && v.Size >= 0 && !v.LastModified.IsZero():
		return statVersion(v.Size, v.LastModified) + "-w" + strings.TrimPrefix(tagKey(tag), tagHash)
	case tag != "":
		return weakKind + strings.TrimPrefix(tagKey(tag), tagHash)
	}
	return ""
}

// statVersion returns the version of an image of which only size and modification
// time are known.
func statVersion(size int64, mtime time.Time) string {
	return fmt.Sprintf("%s%d-%d", statKind, size, mtime.UnixNano())
}

// ValidatorsOf returns the validators in a version, for an image of which nothing
// else was stored. size is the size of the image; -1: unknown.
func ValidatorsOf(version string, size int64) Validators {
	v := Validators{Size: size}
	if d, ok := digestOf(version); ok {
		v.Digests = []Digest{d}
	}
	if isETag(version) {
		v.ETag = version
	}
	if hash, ok := strings.CutPrefix(version, weakKind); ok && isHash(hash) {
		v.ETag = tagHash + hash
	}
	if rest, ok := strings.CutPrefix(version, statKind); ok {
		v.stat(strings.SplitN(rest, "-", 3))
	}
	return v
}

// stat sets the validators from the parts of a version of the kind stat. A time
// before 1970 is ignored, because its minus sign is taken for a separator.
func (v *Validators) stat(parts []string) {
	if len(parts) < 2 {
		return
	}
	size, err := parseLength(parts[0])
	ns, err2 := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || err2 != nil {
		return
	}
	v.Size, v.LastModified = size, time.Unix(0, ns)
	if len(parts) < 3 || parts[2] == "" || !isHash(parts[2][1:]) {
		return
	}
	switch extra := parts[2]; extra[0] {
	case 'w':
		v.ETag = tagHash + extra[1:]
	case 'f':
		v.File = extra
	}
}

// Joins reports whether parts of an image with that version may be put together. If
// not, a transfer that breaks off has to begin from the start.
func Joins(version string) bool { return version != "" && !strings.HasPrefix(version, weakKind) }

// join says whether the bytes of an answer are of the version that a request asks
// for. If they seem to be, but that does not suffice to put parts together, it
// returns Unknown, unless whole is set: then no parts are put together.
func (r Request) join(now Validators, t Terms, whole bool) Verdict {
	known := ValidatorsOf(r.Version, -1)
	if r.Known != nil {
		known = *r.Known
	}
	t.Immutable = false // the bytes are compared even if the configuration promises that they are the same
	verdict, _ := Judge(known, now, t)
	if verdict == Same && !whole && !joins(known, now, t) {
		return Unknown
	}
	return verdict
}

// joins reports whether two answers have an equal validator that proves that every
// byte is the same.
func joins(a, b Validators, t Terms) bool {
	switch {
	case t.counts(ByDigest) && compareDigests(a.Digests, b.Digests) == Same, compareTexts(a.File, b.File) == Same:
		return true
	case t.counts(ByETag) && a.ETag == b.ETag && isETag(a.ETag):
		return true
	}
	return t.counts(ByLastModified) && compareTimes(a.LastModified, b.LastModified) == Same && a.Size >= 0 && a.Size == b.Size
}
