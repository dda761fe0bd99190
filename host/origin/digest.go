package origin

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// The algorithms of a [Digest], strongest first.
const (
	algSHA512 = "sha512"
	algSHA256 = "sha256"
	algMD5    = "md5"
)

// digestBytes is the length of a sum by algorithm.
var digestBytes = map[string]int{algSHA512: 64, algSHA256: 32, algMD5: 16}

func (d Digest) version() string { return d.Algorithm + ":" + hex.EncodeToString(d.Sum) }

// digestOf returns the digest that a version is, if it is one.
func digestOf(version string) (d Digest, ok bool) {
	algorithm, digits, _ := strings.Cut(version, ":")
	sum, err := hex.DecodeString(digits)
	return Digest{Algorithm: algorithm, Sum: sum}, err == nil && len(sum) > 0 && len(sum) == digestBytes[algorithm]
}

// declared returns the digests of the whole image that a response declares,
// strongest first. Repr-Digest and x-goog-hash speak of the whole image in
// every response. Content-MD5 may be that of the part in a 206, so it counts
// in a 200 alone.
func declared(resp *http.Response) []Digest {
	found := reprDigests(resp.Header)
	if resp.StatusCode == http.StatusOK {
		found = append(found, contentMD5(resp.Header))
	}
	found = append(found, googMD5(resp.Header))
	var list []Digest
	for _, algorithm := range []string{algSHA512, algSHA256, algMD5} {
		i := slices.IndexFunc(found, func(d Digest) bool {
			return d.Algorithm == algorithm && len(d.Sum) == digestBytes[algorithm]
		})
		if i >= 0 {
			list = append(list, found[i])
		}
	}
	return list
}

// reprDigests reads Repr-Digest (RFC 9530), a dictionary of byte sequences. A
// malformed field declares nothing.
func reprDigests(h http.Header) []Digest {
	dict, err := httpsfv.UnmarshalDictionary(h.Values("Repr-Digest"))
	if err != nil {
		return nil
	}
	var list []Digest
	for field, algorithm := range map[string]string{"sha-512": algSHA512, "sha-256": algSHA256} {
		member, _ := dict.Get(field)
		item, _ := member.(httpsfv.Item)
		if sum, ok := item.Value.([]byte); ok {
			list = append(list, Digest{Algorithm: algorithm, Sum: sum})
		}
	}
	return list
}

// contentMD5 reads Content-MD5 in base64 (RFC 1864), or in the hexadecimal
// form that Glance sends. The two differ in length.
func contentMD5(h http.Header) Digest {
	v := h.Get("Content-MD5")
	sum, err := base64.StdEncoding.DecodeString(v)
	if len(v) == 2*digestBytes[algMD5] {
		sum, err = hex.DecodeString(v)
	}
	if err != nil {
		return Digest{}
	}
	return Digest{Algorithm: algMD5, Sum: sum}
}

// googMD5 reads the MD5 in x-goog-hash, which Google Cloud Storage sends. It
// is that of the stored bytes: those of an object that was stored compressed
// and is decompressed on the way have another one.
func googMD5(h http.Header) Digest {
	if enc := h.Get("X-Goog-Stored-Content-Encoding"); enc != "" && enc != "identity" {
		return Digest{}
	}
	for _, line := range h.Values("X-Goog-Hash") {
		for field := range strings.SplitSeq(line, ",") {
			v, ok := strings.CutPrefix(strings.TrimSpace(field), "md5=")
			if !ok {
				continue
			}
			if sum, err := base64.StdEncoding.DecodeString(v); err == nil {
				return Digest{Algorithm: algMD5, Sum: sum}
			}
		}
	}
	return Digest{}
}

// strongETag returns the entity tag with its quotes, or "" when there is
// none or a weak one, which does not promise equal bytes.
func strongETag(h http.Header) string {
	if tag := h.Get("ETag"); isETag(tag) {
		return tag
	}
	return ""
}

func isETag(tag string) bool {
	n := len(tag)
	return n > 2 && tag[0] == '"' && tag[n-1] == '"' && !strings.ContainsFunc(tag[1:n-1], func(r rune) bool {
		return r <= ' ' || r == '"' || r == 0x7f
	})
}

// versions returns every version by which a response identifies the image of
// size bytes, the one to use first.
func versions(resp *http.Response, size int64) []string {
	var list []string
	for _, d := range declared(resp) {
		list = append(list, d.version())
	}
	if tag := strongETag(resp.Header); tag != "" {
		list = append(list, tag)
	}
	if t := lastModified(resp.Header); size >= 0 && !t.IsZero() {
		list = append(list, statVersion(size, t))
	}
	return list
}

func lastModified(h http.Header) time.Time {
	t, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		return time.Time{}
	}
	return t
}

// verdict is what a response says of a version.
type verdict int

const (
	same verdict = iota
	other
	unknown // it does not identify itself in this way
)

// compare says whether the image of a response is the wanted version. A
// Content-MD5 that equals a wanted MD5 speaks of the whole image, in a 206
// too; one that differs there says nothing.
func compare(want string, resp *http.Response, size int64) verdict {
	list := versions(resp, size)
	if slices.Contains(list, want) || contentMD5(resp.Header).version() == want {
		return same
	}
	for _, v := range list {
		if versionKind(v) == versionKind(want) {
			return other
		}
	}
	return unknown
}

// versionKind is what a version is made of: the algorithm of a digest,
// "stat", or a quote, with which entity tags begin.
func versionKind(v string) string {
	if strings.HasPrefix(v, `"`) {
		return `"`
	}
	kind, _, _ := strings.Cut(v, ":")
	return kind
}
