package abi_test

import (
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// batch and pairs are what the golden frames hold.
var (
	batch = sdk.Batch{Source: "0123456789abcdef0123456789abcdef", Seq: 0x0102030405060708, Ops: []sdk.Op{
		sdk.Put(sdk.Entry{
			ID: "debian-12", Version: `"é"`, Size: 0x1112131415161718, Hits: 0x2122232425262728,
			LastAccessed: time.Unix(0, 0x3132333435363738).UTC(), LastModified: time.Unix(0, -1).UTC(),
		}),
		sdk.Delete("a"),
		sdk.Touch("seven77", math.MaxUint64, time.Unix(0, math.MaxInt64).UTC()),
	}}
	pairs = []abi.Pair{
		{Key: []byte("key"), Value: []byte("value")},
		{Key: []byte("empty"), Value: []byte{}},
		{Key: []byte("gone"), Value: []byte{}, Delete: true},
	}
)

func appendPairs(b []byte, list []abi.Pair) []byte {
	for _, p := range list {
		b = abi.AppendPair(b, p)
	}
	return b
}

func entries(b sdk.Batch) (list []sdk.Entry) {
	for _, op := range b.Ops {
		list = append(list, op.Entry)
	}
	return list
}

// laterEntries is later for the frames of drivers, whose elements have
// different lengths.
func laterEntries(frame []byte) []byte {
	le := binary.LittleEndian
	header, stride := int(le.Uint32(frame[0:])), int(le.Uint32(frame[4:]))
	out := append(slices.Clone(frame[:header]), "a later field..."...)
	le.PutUint32(out[0:], uint32(len(out)))
	le.PutUint32(out[4:], uint32(stride+24))
	for rest := frame[header:]; len(rest) > 0; {
		size := (stride + int(le.Uint32(rest[36:])) + int(le.Uint32(rest[40:])) + 7) / 8 * 8
		out = append(append(out, rest[:stride]...), "and later ones in here.."...)
		out = append(out, rest[stride:size]...)
		rest = rest[size:]
	}
	return out
}

func init() {
	golden["batch.bin"] = abi.AppendBatch(nil, batch)
	golden["batch-later.bin"] = laterEntries(abi.AppendBatch(nil, batch))
	golden["page.bin"] = abi.AppendPage(nil, entries(batch))
	golden["pairs.bin"] = appendPairs(nil, pairs)
}

func TestParseGoldenBatches(t *testing.T) {
	for _, name := range []string{"batch.bin", "batch-later.bin"} {
		if got, err := abi.ParseBatch(read(t, name)); err != nil || !reflect.DeepEqual(got, batch) {
			t.Errorf("ParseBatch(%s) = %+v, %v, want %+v", name, got, err, batch)
		}
	}
	for _, frame := range [][]byte{read(t, "page.bin"), laterEntries(read(t, "page.bin"))} {
		if got, err := abi.ParsePage(frame); err != nil || !reflect.DeepEqual(got, entries(batch)) {
			t.Errorf("ParsePage() = %+v, %v, want %+v", got, err, entries(batch))
		}
	}
	var got []abi.Pair
	for p, err := range abi.Pairs(read(t, "pairs.bin")) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p)
	}
	if !reflect.DeepEqual(got, pairs) {
		t.Errorf("Pairs() yields %+v, want %+v", got, pairs)
	}
}

func TestEntryLen(t *testing.T) {
	size := abi.HeaderSize
	for _, e := range entries(batch) {
		size += abi.EntryLen(e)
	}
	if got := len(golden["page.bin"]); got != size {
		t.Errorf("the page has %d bytes, EntryLen says %d", got, size)
	}
	b := abi.AppendBatch([]byte("prefix"), batch)
	if !slices.Equal(b[6:], golden["batch.bin"]) {
		t.Errorf("AppendBatch does not append: %x", b)
	}
}

func TestBrokenBatches(t *testing.T) {
	le := binary.LittleEndian
	first := int(le.Uint32(golden["batch.bin"]))
	set := func(offset int, v uint32) []byte {
		b := slices.Clone(golden["batch.bin"])
		le.PutUint32(b[offset:], v)
		return b
	}
	for name, frame := range map[string][]byte{
		"empty":                  nil,
		"small stride":           set(4, 40),
		"one operation too many": set(8, uint32(len(batch.Ops)+1)),
		"too many operations":    set(8, math.MaxUint32),
		"source beyond the head": set(24, 64),
		"source too long":        set(28, math.MaxUint32),
		"id beyond the end":      set(first+36, 1<<20),
		"id of 4 GiB":            set(first+36, math.MaxUint32),
		"version beyond the end": set(first+40, math.MaxUint32),
		"last operation cut":     golden["batch.bin"][:len(golden["batch.bin"])-1],
	} {
		if b, err := abi.ParseBatch(frame); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("%s: ParseBatch() = %+v, %v, want %v", name, b, err, sdk.ErrInvalid)
		}
	}
	b, err := abi.ParseBatch(set(first+32, 256+uint32(sdk.OpPut)))
	if err != nil || b.Ops[0].Kind != 0 || !errors.Is(b.Validate(), sdk.ErrInvalid) {
		t.Errorf("a kind that does not fit is taken for %v, %v", b.Ops[0].Kind, err)
	}
}

func FuzzParseBatch(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		b, err := abi.ParseBatch(frame)
		if err != nil {
			return
		}
		again, err := abi.ParseBatch(abi.AppendBatch(nil, b))
		if err != nil || !reflect.DeepEqual(again, b) {
			t.Fatalf("ParseBatch(AppendBatch(%+v)) = %+v, %v", b, again, err)
		}
	})
}

func FuzzPairs(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var list []abi.Pair
		for p, err := range abi.Pairs(b) {
			if err != nil {
				return
			}
			list = append(list, p)
		}
		if again := appendPairs(nil, list); !slices.Equal(again, b) {
			t.Fatalf("the pairs %+v are %x, and were read from %x", list, again, b)
		}
	})
}
