package wasm

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/sdk"
)

// TestBoundTables: each table gets a maximum, and keeps one that is smaller.
func TestBoundTables(t *testing.T) {
	const million = "\x80\x80\x40"
	half, more := "\x80\x80\x20", "\x81\x80\x40"
	section := func(tables string) []byte {
		return []byte(preamble + "\x00\x02\x01x" + "\x04" + string(rune(len(tables))) + tables + "\x0b\x01\x00")
	}
	for name, c := range map[string]struct{ tables, want, err string }{
		"none":             {"\x00", "\x00", ""},
		"no maximum":       {"\x01\x70\x00\x05", "\x01\x70\x01\x05" + million, ""},
		"a smaller one":    {"\x01\x70\x01\x05\x06", "\x01\x70\x01\x05\x06", ""},
		"a larger one":     {"\x01\x6f\x01\x05\xff\xff\xff\xff\x0f", "\x01\x6f\x01\x05" + million, ""},
		"two":              {"\x02\x70\x00\x05\x6f\x00\x00", "\x02\x70\x01\x05" + half + "\x6f\x01\x00" + half, ""},
		"full":             {"\x01\x70\x00" + million, "\x01\x70\x01" + million + million, ""},
		"too full":         {"\x01\x70\x00" + more, "", "elements"},
		"too full as two":  {"\x02\x70\x00" + million + "\x70\x00\x01", "", "elements"},
		"too many":         {"\xff\xff\xff\xff\x0f", "", "elements"},
		"another type":     {"\x01\x7f\x00\x05", "", "do not follow WebAssembly 2.0"},
		"shared":           {"\x01\x70\x02\x05", "", "do not follow WebAssembly 2.0"},
		"with an initial":  {"\x01\x40\x00\x70\x00\x05\xd0\x70\x0b", "", "do not follow WebAssembly 2.0"},
		"cut":              {"\x02\x70\x00\x05", "", "do not follow WebAssembly 2.0"},
		"with a remainder": {"\x01\x70\x00\x05\x00", "", "do not follow WebAssembly 2.0"},
	} {
		got, err := boundTables(section(c.tables))
		if c.err == "" && (err != nil || !bytes.Equal(got, section(c.want))) {
			t.Errorf("%s: boundTables() = %q, %v, want %q", name, got, err, section(c.want))
		}
		if c.err != "" && (!errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: boundTables() = %q, %v, want %q", name, got, err, c.err)
		}
	}
}
