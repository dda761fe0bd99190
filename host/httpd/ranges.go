package httpd

import (
	"fmt"
	"math"
	"strings"
)

// span is a range of bytes of an image.
type span struct {
	off, n int64
}

// contentRange is the value of Content-Range for a span of size bytes.
func (s span) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", s.off, s.off+s.n-1, size)
}

// rangeVerdict says what to do with a Range header.
type rangeVerdict int

const (
	rangeIgnored       rangeVerdict = iota // answer with the whole image
	rangeGood                              // answer with the span
	rangeUnsatisfiable                     // answer 416
)

// parseRange reads the value of a Range header for an image of size bytes.
// Only a single range of bytes is obeyed; several ranges, other units and
// nonsense are ignored, as RFC 9110 allows or demands. So is a range of an
// empty image, which no Content-Range could describe.
func parseRange(header string, size int64) (span, rangeVerdict) {
	unit, set, ok := strings.Cut(header, "=")
	if !ok || !strings.EqualFold(unit, "bytes") || size <= 0 {
		return span{}, rangeIgnored
	}
	first, last, ok := strings.Cut(strings.Trim(set, " \t"), "-")
	if !ok {
		return span{}, rangeIgnored
	}
	if first == "" {
		return suffix(last, size)
	}
	from, ok := parsePosition(first)
	if !ok {
		return span{}, rangeIgnored
	}
	to := int64(math.MaxInt64)
	if last != "" {
		if to, ok = parsePosition(last); !ok || to < from {
			return span{}, rangeIgnored
		}
	}
	if from >= size {
		return span{}, rangeUnsatisfiable
	}
	return span{off: from, n: min(to, size-1) - from + 1}, rangeGood
}

// suffix is the range of the last bytes.
func suffix(length string, size int64) (span, rangeVerdict) {
	n, ok := parsePosition(length)
	if !ok {
		return span{}, rangeIgnored
	}
	if n == 0 {
		return span{}, rangeUnsatisfiable
	}
	n = min(n, size)
	return span{off: size - n, n: n}, rangeGood
}

// parsePosition reads decimal digits. A number that no int64 holds lies beyond
// every image, as the largest int64 does.
func parsePosition(digits string) (int64, bool) {
	if digits == "" {
		return 0, false
	}
	var n int64
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := int64(c - '0')
		if n > (math.MaxInt64-d)/10 {
			n = math.MaxInt64
			continue
		}
		n = n*10 + d
	}
	return n, true
}
