package config

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0B": 0, "1B": 1, "10GiB": 10 << 30, "10 GiB": 10 << 30, "1.5KiB": 1536, "0.5MB": 500_000,
		"2kb": 2000, "3TiB": 3 << 40, "1PiB": 1 << 50, "9223372036854775807B": math.MaxInt64,
	} {
		if got, err := ParseSize(text); got != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                     "is not a size",
		"GiB":                  "is not a size",
		"ten GiB":              "is not a size",
		"1e3GiB":               "is not a size",
		"10":                   "has no unit",
		"10G":                  "GiB counts by 1024, GB by 1000",
		"10GBi":                "unknown unit",
		"-1GiB":                "negative",
		"9223372036854775808B": "2^63-1 bytes",
		"8192PiB":              "2^63-1 bytes",
	} {
		if got, err := ParseSize(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %d, %v, want an error with %q", text, got, err, want)
		}
	}
	for n, ok := range map[float64]bool{0: true, 4096: true, 1 << 62: true, -1: false, 0.5: false, 1e19: false} {
		if _, err := sizeOf(cty.NumberFloatVal(n)); (err == nil) != ok {
			t.Errorf("%v bytes: %v", n, err)
		}
	}
}

// TestUnitsRoundTrip checks that what is shown as a default can be written
// into a configuration.
func TestUnitsRoundTrip(t *testing.T) {
	for _, n := range []int64{0, 1, 1000, 1024, 1536, 10 << 30, 5_000_000_000, math.MaxInt64} {
		if got, err := ParseSize(FormatSize(n)); got != n || err != nil {
			t.Errorf("%d is written %q and read %d, %v", n, FormatSize(n), got, err)
		}
	}
	for _, d := range []time.Duration{0, time.Millisecond, time.Second, time.Minute, 90 * time.Minute, 24 * time.Hour, time.Hour + time.Second} {
		got, err := durationOf(cty.StringVal(FormatDuration(d)))
		if got != d || err != nil {
			t.Errorf("%v is written %q and read %v, %v", d, FormatDuration(d), got, err)
		}
	}
}

func TestSuggestions(t *testing.T) {
	known := []string{"max_size", "min_age", "high_watermark", "verify_reads", "dir"}
	for given, want := range map[string]string{
		"maxsize":   "max_size",
		"Max-Size":  "max_size",
		"max_sise":  "max_size",
		"verify":    "verify_reads",
		"watermark": "high_watermark",
		"dri":       "dir",
		"path":      "",
		"xy":        "",
	} {
		if got := nearest(given, known); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}
