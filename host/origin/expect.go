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

// Expect says what an answer must be like to be an image. The zero value takes
// everything.
type Expect struct {
	ContentTypes []string // one of them, such as "application/octet-stream" or "application/*"; nil: any
	MinSize      int64    // bytes; what declares no length is measured by who reads it
	NotHTML      bool     // a page is no image, unless its name says that it is a page
}

// Refusal is why an answer is passed through and not stored, as one of a few
// words that may be told to anybody. "": it may be stored. An answer that is
// refused says nothing about the image: whoever has one that is stored keeps
// it.
type Refusal string

// The refusals.
const (
	RefusedNoStore Refusal = "no-store"                // the origin forbids to keep it
	RefusedHTML    Refusal = "page instead of image"   // a login page, for instance
	RefusedType    Refusal = "unexpected content type" // none of Expect.ContentTypes
	RefusedSize    Refusal = "unexpected size"         // below Expect.MinSize
	RefusedEnd     Refusal = "length unknown"          // a body that is cut would look like a whole one
	RefusedSum     Refusal = "checksum not listed"     // a list of checksums must name it, and does not
)

// NotAnImage reports whether something else came in place of the image. The
// other refusals are about the image itself.
func (r Refusal) NotAnImage() bool {
	return r == RefusedHTML || r == RefusedType || r == RefusedSize
}

// refuses says why an answer of a type and a size, or -1, is no image.
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

// typeByName is the type of names that are pages; "" for all others.
func typeByName(name string) string {
	name, _, _ = strings.Cut(name, "?")
	switch strings.ToLower(path.Ext(name)) {
	case ".html", ".htm", ".xhtml", ".xht":
		return "text/html"
	}
	return ""
}

// matchType reports whether a type is the wanted one, or one of "text/*".
func matchType(want, contentType string) bool {
	want = strings.ToLower(want)
	if class, ok := strings.CutSuffix(want, "/*"); ok {
		have, _, _ := strings.Cut(contentType, "/")
		return have == class
	}
	return want == contentType
}

// longestType bounds a content type that is kept.
const longestType = 128

// contentType returns the media type of an answer, in lower case and without
// parameters; "" when there is none.
func contentType(h http.Header) string {
	value := h.Get("Content-Type")
	t, _, err := mime.ParseMediaType(value)
	if t == "" && err != nil { // such as one with a parameter that stands twice
		t, _, _ = strings.Cut(value, ";")
		t = strings.ToLower(strings.TrimSpace(t))
	}
	if len(t) > longestType || strings.Count(t, "/") != 1 || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return t
}

// compressed says by which ends of names files are themselves in the form that
// a content coding names. Web servers label them so, whatever a client accepts.
var compressed = map[string][]string{
	"gzip":     {".gz", ".tgz", ".svgz"},
	"compress": {".z", ".taz"},
	"bzip2":    {".bz2", ".tbz", ".tbz2"},
	"xz":       {".xz", ".txz"},
	"lzma":     {".lzma", ".tlz"},
	"zstd":     {".zst", ".tzst", ".zstd"},
	"br":       {".br"},
}

// checkCoding returns an error if the bytes of an answer of the origin from are
// not those of the image. They were asked for as they are, so a label that only repeats what the
// name says is about the file, and no coding of the transfer.
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
		"%w: %s sends %s with the content coding %.100q; expected the bytes as they are, which were asked for: switch the coding off there",
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
