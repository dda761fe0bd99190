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

// digestBytes has the length of a sum of each algorithm.
var digestBytes = map[string]int{algSHA512: 64, algSHA256: 32, algMD5: 16}

func (d Digest) version() string { return d.Algorithm + ":" + hex.EncodeToString(d.Sum) }

// digestOf returns the digest in a version, if the version is one.
func digestOf(version string) (d Digest, ok bool) {
	algorithm, digits, _ := strings.Cut(version, ":")
	sum, err := hex.DecodeString(digits)
	return Digest{Algorithm: algorithm, Sum: sum}, err == nil && len(sum) > 0 && len(sum) == digestBytes[algorithm]
}

// declared returns the digests of the whole image that a response declares, the
// strongest first. Repr-Digest and x-goog-hash are of the whole image in every
// response. Content-MD5 in a 206 may be that of the part, so it counts only in a
// 200.
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
// malformed field counts as none.
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

// googMD5 reads the MD5 in x-goog-hash, which Google Cloud Storage sends. It is the
// MD5 of the stored bytes. If an object is stored compressed and decompressed when
// it is sent, the sent bytes have another one.
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

func lastModified(h http.Header) time.Time {
	t, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		return time.Time{}
	}
	return t
}
