package abi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

var update = flag.Bool("update", false, "write the golden frames anew")

const now = 1795392000_123456789

// records and events are what the golden frames hold: every field different,
// with its extremes.
var (
	records = []sdk.Record{
		{Key: 0x0102030405060708, Size: 0x1112131415161718, Hits: 0x2122232425262728, Admitted: 0x3132333435363738, Accessed: 0x4142434445464748, FetchMS: 0x51525354, Flags: 0x61626364},
		{},
		{Key: math.MaxUint64, Size: math.MaxUint64, Hits: math.MaxUint64, Admitted: math.MinInt64, Accessed: -1, FetchMS: math.MaxUint32, Flags: math.MaxUint32},
	}
	events = []sdk.Event{
		{Kind: sdk.EventCapacity, Size: 1 << 40, At: 1},
		{Kind: sdk.EventAdmitted, Key: 0x0102030405060708, Size: 0x1112131415161718, At: 0x2122232425262728},
		{Kind: sdk.EventAccessed, Key: 2, At: -3, Count: 0x41424344},
		{Kind: sdk.EventRefused, Key: 4, Size: 5, At: 6},
		{Kind: sdk.EventRemoved, Key: 7, Size: 8, At: 9, Reason: sdk.ReasonCorrupt},
		{Kind: 77, Key: 10, Size: 11, At: 12, Count: 13},
	}
)

// later returns the frame as a later host would send it, with fields appended
// to the header and to each element.
func later(frame []byte) []byte {
	le := binary.LittleEndian
	stride, count := int(le.Uint32(frame[4:])), int(le.Uint32(frame[8:]))
	out := append(slices.Clone(frame[:abi.HeaderSize]), "a later field..."...)
	le.PutUint32(out[0:], uint32(len(out)))
	le.PutUint32(out[4:], uint32(stride+24))
	for i := range count {
		out = append(out, frame[abi.HeaderSize+i*stride:][:stride]...)
		out = append(out, "and later ones in here.."...)
	}
	return out
}

var golden = map[string][]byte{
	"records.bin":       abi.AppendRecords(nil, now, records),
	"records-later.bin": later(abi.AppendRecords(nil, now, records)),
	"records-none.bin":  abi.AppendRecords(nil, now, nil),
	"events.bin":        abi.AppendEvents(nil, now, events),
	"events-later.bin":  later(abi.AppendEvents(nil, now, events)),
	"config.bin":        []byte("half_life\x0024h0m0s\x00note\x00\x00"),
}

func goldenPath(name string) string { return filepath.Join("..", "..", "testdata", "frames", name) }

// TestGoldenFrames keeps the bytes of version 1: the files never change.
func TestGoldenFrames(t *testing.T) {
	for name, frame := range golden {
		if *update {
			if err := os.WriteFile(goldenPath(name), frame, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(goldenPath(name))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(frame, want) {
			t.Errorf("%s: the frame is\n%x, the file has\n%x", name, frame, want)
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(goldenPath(name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseGoldenFrames(t *testing.T) {
	for name, want := range map[string][]sdk.Record{"records.bin": records, "records-later.bin": records, "records-none.bin": nil} {
		at, got, err := abi.Records(nil, read(t, name))
		if err != nil || at != now || !slices.Equal(got, want) {
			t.Errorf("Records(%s) = %d, %+v, %v\nwant %d, %+v", name, at, got, err, int64(now), want)
		}
	}
	for _, name := range []string{"events.bin", "events-later.bin"} {
		at, got, err := abi.Events(nil, read(t, name))
		if err != nil || at != now || !slices.Equal(got, events) {
			t.Errorf("Events(%s) = %d, %+v, %v\nwant %d, %+v", name, at, got, err, int64(now), events)
		}
	}
	got, err := abi.ParseConfig(read(t, "config.bin"))
	if want := (sdk.Config{"half_life": "24h0m0s", "note": ""}); err != nil || !maps.Equal(got, want) {
		t.Errorf("ParseConfig() = %v, %v, want %v", got, err, want)
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	b := abi.AppendRecords([]byte("prefix.."), now, records)
	if string(b[:8]) != "prefix.." || !slices.Equal(b[8:], golden["records.bin"]) {
		t.Errorf("AppendRecords does not append: %x", b)
	}
	_, list, err := abi.Records(records[:1:1], golden["records.bin"])
	if err != nil || len(list) != 1+len(records) {
		t.Errorf("Records appends to %d records, %v, want %d", len(list), err, 1+len(records))
	}
}

func TestBrokenFrames(t *testing.T) {
	le := binary.LittleEndian
	set := func(offset int, v uint32) []byte {
		b := slices.Clone(golden["records.bin"])
		le.PutUint32(b[offset:], v)
		return b
	}
	for name, frame := range map[string][]byte{
		"empty":                 nil,
		"half a header":         golden["records.bin"][:16],
		"small header":          set(0, 24),
		"odd header":            set(0, 33),
		"header beyond the end": set(0, math.MaxUint32-7),
		"small stride":          set(4, 40),
		"odd stride":            set(4, 49),
		"no stride":             set(4, 0),
		"stride beyond the end": set(4, math.MaxUint32-7),
		"one element too many":  set(8, uint32(len(records)+1)),
		"far too many elements": set(8, sdk.MaxBatch+1),
		"overflow":              set(8, math.MaxUint32),
		"last element cut":      golden["records.bin"][:len(golden["records.bin"])-1],
	} {
		_, list, err := abi.Records(records[:1], frame)
		if !errors.Is(err, sdk.ErrInvalid) || len(list) != 1 {
			t.Errorf("%s: Records() = %d records, %v, want the one given and %v", name, len(list), err, sdk.ErrInvalid)
		}
	}
}

func TestFrameSize(t *testing.T) {
	for name, frame := range golden {
		if !strings.HasPrefix(name, "records") && !strings.HasPrefix(name, "events") {
			continue
		}
		if got := abi.FrameSize(frame[:abi.HeaderSize]); got != uint64(len(frame)) {
			t.Errorf("FrameSize(%s) = %d, want %d", name, got, len(frame))
		}
	}
	for _, broken := range [][]byte{nil, make([]byte, abi.HeaderSize), bytes.Repeat([]byte{0xff}, 40)} {
		if got := abi.FrameSize(broken); got != abi.HeaderSize {
			t.Errorf("FrameSize(%x) = %d, want %d", broken, got, abi.HeaderSize)
		}
	}
}

func TestConfigRoundTrip(t *testing.T) {
	want := sdk.Config{"a": "", "b": "text with = and \n", "c": "ü"}
	got, err := abi.ParseConfig(abi.AppendConfig(nil, want))
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("ParseConfig(AppendConfig(%v)) = %v, %v", want, got, err)
	}
	for _, broken := range []string{"a", "a\x00", "a\x00b", "a\x00b\x00c"} {
		if _, err := abi.ParseConfig([]byte(broken)); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("ParseConfig(%q) = %v, want %v", broken, err, sdk.ErrInvalid)
		}
	}
}

// TestStatus carries every error over and back.
func TestStatus(t *testing.T) {
	for _, want := range []error{nil, sdk.ErrNotFound, sdk.ErrInvalid, sdk.ErrUnsupported, sdk.ErrUnavailable} {
		in := want
		if want != nil {
			in = fmt.Errorf("step: %w", want)
		}
		if got := abi.StatusOf(in).Err(); !errors.Is(got, want) {
			t.Errorf("StatusOf(%v).Err() = %v", in, got)
		}
	}
	if got := abi.StatusOf(errors.New("other")); got != abi.StatusUnavailable {
		t.Errorf("StatusOf(another error) = %d, want %d", got, abi.StatusUnavailable)
	}
	if err := abi.Status(99).Err(); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("Status(99).Err() = %v, want %v", err, sdk.ErrUnavailable)
	}
}

func addGolden(f *testing.F) {
	for _, frame := range golden {
		f.Add(frame)
	}
}

func FuzzParseHeader(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, err := abi.ParseHeader(frame, abi.RecordSize)
		switch {
		case err != nil && !errors.Is(err, sdk.ErrInvalid):
			t.Fatalf("ParseHeader() = %v, which is not %v", err, sdk.ErrInvalid)
		case err == nil && (h.Count > sdk.MaxBatch || h.Stride < abi.RecordSize ||
			uint64(h.Size)+uint64(h.Count)*uint64(h.Stride) > uint64(len(frame))):
			t.Fatalf("ParseHeader() accepts %+v of %d bytes", h, len(frame))
		}
	})
}

func FuzzRecords(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		at, list, err := abi.Records(nil, frame)
		if err != nil {
			return
		}
		at2, again, err := abi.Records(nil, abi.AppendRecords(nil, at, list))
		if err != nil || at2 != at || !slices.Equal(again, list) {
			t.Fatalf("Records(AppendRecords(%v)) = %v, %v", list, again, err)
		}
	})
}

func FuzzEvents(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		at, list, err := abi.Events(nil, frame)
		if err != nil {
			return
		}
		at2, again, err := abi.Events(nil, abi.AppendEvents(nil, at, list))
		if err != nil || at2 != at || !slices.Equal(again, list) {
			t.Fatalf("Events(AppendEvents(%v)) = %v, %v", list, again, err)
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := abi.ParseConfig(b)
		if err != nil {
			return
		}
		again, err := abi.ParseConfig(abi.AppendConfig(nil, c))
		if err != nil || !maps.Equal(again, c) {
			t.Fatalf("ParseConfig(AppendConfig(%v)) = %v, %v", c, again, err)
		}
	})
}
