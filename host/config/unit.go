package config

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
)

// sizeUnits are the units of sizes, the binary ones first and from large to
// small, as FormatSize tries them.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"PiB", 1 << 50},
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"B", 1},
	{"PB", 1e15},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"KB", 1e3},
}

// sizePattern bounds the digits, so that no text makes the arithmetic long.
var sizePattern = regexp.MustCompile(`^(-?)([0-9]{1,20}(?:\.[0-9]{1,20})?) ?([A-Za-z]*)$`)

// sizeOf reads a number of bytes, or a text with a unit.
func sizeOf(v cty.Value) (int64, error) {
	switch v.Type() {
	case cty.Number:
		n, accuracy := v.AsBigFloat().Int64()
		if accuracy != big.Exact || n < 0 {
			return 0, fmt.Errorf("expected a whole number of bytes from 0 to 2^63-1, got %s", describe(v))
		}
		return n, nil
	case cty.String:
		return ParseSize(v.AsString())
	default:
		return 0, fmt.Errorf(`expected a size such as "10GiB", or a number of bytes, got %s`, describe(v))
	}
}

// ParseSize reads a size with its unit, such as "10GiB" or "500MB", as the
// configuration does.
func ParseSize(s string) (int64, error) {
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf(`%q is not a size; write a number and a unit, such as "10GiB" or "500MB"`, s)
	}
	sign, digits, unit := m[1], m[2], m[3]
	switch {
	case sign != "":
		return 0, fmt.Errorf("%q is negative", s)
	case unit == "":
		return 0, fmt.Errorf(`%q has no unit; write "%sB" for bytes, or a unit such as "%sGiB"`, s, s, s)
	}
	for _, u := range sizeUnits {
		if !strings.EqualFold(u.name, unit) {
			continue
		}
		n, ok := new(big.Rat).SetString(digits)
		if !ok {
			return 0, fmt.Errorf("%q is not a size", s)
		}
		n.Mul(n, new(big.Rat).SetInt64(u.bytes))
		whole := new(big.Int).Quo(n.Num(), n.Denom())
		if !whole.IsInt64() {
			return 0, fmt.Errorf("%q is too large; the largest size is 2^63-1 bytes", s)
		}
		return whole.Int64(), nil
	}
	return 0, unknownUnit(s, unit)
}

func unknownUnit(s, unit string) error {
	known := make([]string, len(sizeUnits))
	for i, u := range sizeUnits {
		known[i] = u.name
		if strings.EqualFold(u.name[:1], unit) && unit != "B" {
			return fmt.Errorf("%q does not say which unit is meant: %s counts by 1024, %sB by 1000", s, u.name, u.name[:1])
		}
	}
	return fmt.Errorf("%q has the unknown unit %q; the known units are %s.%s", s, unit, strings.Join(known, ", "), didYouMean(unit, known))
}

// FormatSize writes n with the largest unit that leaves a whole number.
func FormatSize(n int64) string {
	for _, u := range sizeUnits {
		if n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

func durationOf(v cty.Value) (time.Duration, error) {
	if v.Type() != cty.String {
		return 0, fmt.Errorf(`expected a duration with a unit, such as "30s", "5m" or "24h", got %s`, describe(v))
	}
	s := v.AsString()
	if _, err := strconv.ParseFloat(s, 64); err == nil && s != "0" {
		return 0, fmt.Errorf(`%q has no unit; write "%ss" for seconds, or use m or h`, s, s)
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil && strings.HasSuffix(s, "d"):
		return 0, fmt.Errorf("%q is not a duration; the largest unit is h: a day is \"24h\"", s)
	case err != nil:
		return 0, fmt.Errorf(`%q is not a duration; write numbers with the units ms, s, m or h, such as "1m30s"`, s)
	case d < 0:
		return 0, errors.New("a duration cannot be negative")
	}
	return d, nil
}

// FormatDuration writes d without the zero parts that Duration.String keeps.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
