package httpd

import (
	"math"
	"math/big"
	"regexp"
	"testing"
)

func TestParseRange(t *testing.T) {
	const size = 1000
	for header, want := range map[string]struct {
		span
		rangeVerdict
	}{
		"bytes=0-0":                          {span{0, 1}, rangeGood},
		"bytes=0-":                           {span{0, 1000}, rangeGood},
		"bytes=999-":                         {span{999, 1}, rangeGood},
		"bytes=10-19":                        {span{10, 10}, rangeGood},
		"bytes=10-5000":                      {span{10, 990}, rangeGood},
		"bytes=-1":                           {span{999, 1}, rangeGood},
		"bytes=-5000":                        {span{0, 1000}, rangeGood},
		"BYTES= 1-2 ":                        {span{1, 2}, rangeGood},
		"bytes=0-9223372036854775807":        {span{0, 1000}, rangeGood},
		"bytes=0-99999999999999999999999999": {span{0, 1000}, rangeGood},
		"bytes=-18446744073709551615":        {span{0, 1000}, rangeGood},
		"bytes=1000-":                        {span{}, rangeUnsatisfiable},
		"bytes=18446744073709551616-":        {span{}, rangeUnsatisfiable},
		"bytes=18446744073709551616-18446744073709551617": {span{}, rangeUnsatisfiable},
		"bytes=-0":                    {span{}, rangeUnsatisfiable},
		"bytes=5-4":                   {},
		"bytes=-":                     {},
		"bytes=--1":                   {},
		"bytes=-1-2":                  {},
		"bytes=+1-2":                  {},
		"bytes=0x1-2":                 {},
		"bytes=1 -2":                  {},
		"bytes=0-1,5-6":               {},
		"bytes=":                      {},
		"bytes":                       {},
		"":                            {},
		"items=0-1":                   {},
		"bytes =0-1":                  {},
		"bytes=١-٢":                   {},
		"bytes=0-1;bytes=5-6":         {},
		"bytes=0-1\x00":               {},
		"bytes=9223372036854775807-0": {},
	} {
		got, verdict := parseRange(header, size)
		if got != want.span || verdict != want.rangeVerdict {
			t.Errorf("parseRange(%q, %d) = %v, %v; want %v, %v", header, size, got, verdict, want.span, want.rangeVerdict)
		}
	}
}

var oneRange = regexp.MustCompile(`^(?i:bytes)=[ \t]*([0-9]*)-([0-9]*)[ \t]*$`)

// naiveRange is parseRange with numbers of any length, straight from the words
// of RFC 9110 section 14.1.2, except that positions beyond every int64 are one.
func naiveRange(header string, size int64) (span, rangeVerdict) {
	m := oneRange.FindStringSubmatch(header)
	if m == nil || m[1]+m[2] == "" || size <= 0 {
		return span{}, rangeIgnored
	}
	first, hasFirst := position(m[1])
	last, hasLast := position(m[2])
	whole := big.NewInt(size)
	end := big.NewInt(size - 1)
	switch {
	case !hasFirst && last.Sign() == 0:
		return span{}, rangeUnsatisfiable
	case !hasFirst && last.Cmp(whole) >= 0:
		return span{0, size}, rangeGood
	case !hasFirst:
		return span{size - last.Int64(), last.Int64()}, rangeGood
	case hasLast && last.Cmp(first) < 0:
		return span{}, rangeIgnored
	case first.Cmp(whole) >= 0:
		return span{}, rangeUnsatisfiable
	}
	if hasLast && last.Cmp(end) < 0 {
		end = last
	}
	n := new(big.Int).Sub(end, first)
	return span{first.Int64(), n.Int64() + 1}, rangeGood
}

func position(digits string) (*big.Int, bool) {
	n, ok := new(big.Int).SetString(digits, 10)
	if ok && !n.IsInt64() {
		n.SetInt64(math.MaxInt64)
	}
	return n, ok
}

func FuzzParseRange(f *testing.F) {
	for _, header := range []string{
		"bytes=0-0", "bytes=-1", "bytes=5-", "bytes=1-0", "bytes=0-1,2-3", "Bytes= 7-9\t",
		"bytes=9223372036854775807-9223372036854775808", "bytes=-9223372036854775809", "bytes=00000000000000000000000000-1",
	} {
		f.Add(header, int64(8))
		f.Add(header, int64(math.MaxInt64))
	}
	f.Add("bytes=0-", int64(0))
	f.Add("bytes=0-", int64(-1))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		got, verdict := parseRange(header, size)
		want, wantVerdict := naiveRange(header, size)
		if verdict != wantVerdict {
			t.Fatalf("parseRange(%q, %d) says %v, want %v", header, size, verdict, wantVerdict)
		}
		if got != want {
			t.Fatalf("parseRange(%q, %d) = %v, want %v", header, size, got, want)
		}
		if verdict == rangeGood && (got.off < 0 || got.n < 1 || got.off > size-got.n) {
			t.Fatalf("parseRange(%q, %d) = %v leaves the image", header, size, got)
		}
	})
}
