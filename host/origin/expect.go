package origin

import (
	"cmp"
	"fmt"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
)

// Expect says which answers are images. The zero value accepts all answers.
type Expect struct {
	ContentTypes []string // the accepted types, such as "application/octet-stream" or "application/*"; nil: any
	MinSize      int64    // least number of bytes; if an answer declares no length, the reader must check it
	NotHTML      bool     // an HTML page is not an image, unless its name says that it is a page
}

// Refusal is one of a few words that say why an answer is passed through and not
// stored. Every client may see them. "": it may be stored. A refused answer says
// nothing about the image: a cached image stays.
type Refusal string

// The refusals.
const (
	RefusedNoStore Refusal = "no-store"                // the origin forbids storing it
	RefusedHTML    Refusal = "page instead of image"   // a login page, for instance
	RefusedType    Refusal = "unexpected content type" // none of Expect.ContentTypes
	RefusedSize    Refusal = "unexpected size"         // below Expect.MinSize
	RefusedEnd     Refusal = "length unknown"          // a body that breaks off would look like a complete one
	RefusedSum     Refusal = "checksum not listed"     // a list of checksums must name it, but does not
)

// NotAnImage reports whether the answer was something else than the image. The
// other refusals are about the image itself.
func (r Refusal) NotAnImage() bool {
	return r == RefusedHTML || r == RefusedType || r == RefusedSize
}

// refuses says why an answer with this type and size is not an image, or "". Size
// -1: unknown.
func (e Expect) refuses(name, contentType string, size int64) Refusal {
	switch {
	case e.NotHTML && isHTML(contentType) && !isHTML(typeByName(name)):
		return RefusedHTML
	case len(e.ContentTypes) > 0 && !slices.ContainsFunc(e.ContentTypes, func(want string) bool { return matchType(want, contentType) }):
		return RefusedType
	case size >= 0 && size < e.MinSize:
		return RefusedSize
	}
	return ""
}

func isHTML(contentType string) bool {
	return contentType == "text/html" || contentType == "application/xhtml+xml"
}

// typeByName returns "text/html" if a name says that it is a page, or else "".
func typeByName(name string) string {
	name, _, _ = strings.Cut(name, "?")
	switch strings.ToLower(path.Ext(name)) {
	case ".html", ".htm", ".xhtml", ".xht":
		return "text/html"
	}
	return ""
}

// matchType reports whether a type is the wanted one, or matches one such as
// "text/*".
func matchType(want, contentType string) bool {
	want = strings.ToLower(want)
	if class, ok := strings.CutSuffix(want, "/*"); ok {
		have, _, _ := strings.Cut(contentType, "/")
		return have == class
	}
	return want == contentType
}

// longestType bounds the length of a content type that is stored.
const longestType = 128

// contentType returns the media type of an answer, in lower case and without
// parameters, or "".
func contentType(h http.Header) string {
	value := h.Get("Content-Type")
	t, _, err := mime.ParseMediaType(value)
	if t == "" && err != nil { // for example because a parameter occurs twice
		t, _, _ = strings.Cut(value, ";")
		t = strings.ToLower(strings.TrimSpace(t))
	}
	if len(t) > longestType || strings.Count(t, "/") != 1 || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return t
}

// compressed has, for each content coding, the name endings of files that are
// compressed that way themselves. Web servers label such files with the coding,
// even if a client does not accept it.
var compressed = map[string][]string{
	"gzip":     {".gz", ".tgz", ".svgz"},
	"compress": {".z", ".taz"},
	"bzip2":    {".bz2", ".tbz", ".tbz2"},
	"xz":       {".xz", ".txz"},
	"lzma":     {".lzma", ".tlz"},
	"zstd":     {".zst", ".tzst", ".zstd"},
	"br":       {".br"},
}

// checkCoding returns an error if the bytes of an answer of the origin from were
// encoded for the transfer. The request asked for them unencoded, so a coding that
// only repeats what the name says describes the file itself.
func checkCoding(from, name string, h http.Header) error {
	var codings []string
	for _, c := range strings.Split(strings.Join(h.Values("Content-Encoding"), ","), ",") {
		if c = strings.ToLower(strings.TrimSpace(c)); c != "" && c != "identity" {
			codings = append(codings, c)
		}
	}
	if len(codings) == 0 {
		return nil
	}
	if len(codings) == 1 {
		lower := strings.ToLower(name)
		ends := compressed[strings.TrimPrefix(codings[0], "x-")]
		if slices.ContainsFunc(ends, func(end string) bool { return strings.HasSuffix(lower, end) }) {
			return nil
		}
	}
	return &Failure{Status: http.StatusOK, err: fmt.Errorf(
		"%w: %s sends %s with the content coding %.100q; expected the bytes without a coding, as requested: switch the coding off at the origin",
		ErrUnavailable, from, name, strings.Join(codings, ", "))}
}

// refusal says why an answer must not be stored.
func (t Terms) refusal(name string, obj Object) Refusal {
	why := t.Expect.refuses(name, obj.ContentType, obj.Size)
	if obj.Caching.NoStore && !t.IgnoreCacheControl {
		why = cmp.Or(why, RefusedNoStore)
	}
	if obj.OpenEnded && obj.Size < 0 && len(obj.Digests) == 0 {
		why = cmp.Or(why, RefusedEnd)
	}
	return why
}
