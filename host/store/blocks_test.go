package store

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sampleTable() *blockTable {
	return &blockTable{
		identity: identity{inode: 7, size: 2*BlockSize + 1, mtime: -5},
		meta:     Meta{Version: `"v1"`, SHA256: "00", URL: "http://o/ä", FetchMS: math.MaxUint32, OriginModTime: time.Unix(1, 2).UTC()},
		sums:     []uint32{1, math.MaxUint32, 0},
	}
}

func TestTableRoundTrip(t *testing.T) {
	for _, want := range []*blockTable{sampleTable(), {sums: []uint32{}}} {
		b, err := want.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseTable(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(blockTable{}, identity{})); diff != "" {
			t.Error(diff)
		}
	}
}

// The format is on the disks of users.
func TestTableFormat(t *testing.T) {
	b, err := (&blockTable{identity: identity{1, 2, 3}, meta: Meta{Version: "v"}, sums: []uint32{0x01020304}}).encode()
	if err != nil {
		t.Fatal(err)
	}
	want := "imgblk\x00\x01" +
		"\x01\x00\x00\x00\x00\x00\x00\x00" + "\x02\x00\x00\x00\x00\x00\x00\x00" + "\x03\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\x10\x00" + "\x0f\x00\x00\x00" + `{"version":"v"}` + "\x04\x03\x02\x01"
	if got := string(b[:len(b)-4]); got != want {
		t.Errorf("the table is\n%q, want\n%q", got, want)
	}
}

// Any damaged byte and any missing one makes a table none.
func TestDamagedTable(t *testing.T) {
	whole, err := sampleTable().encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x40
		if _, err := parseTable(damaged); !errors.Is(err, errTable) {
			t.Errorf("byte %d changed: %v, want errTable", i, err)
		}
		if _, err := parseTable(whole[:i]); !errors.Is(err, errTable) {
			t.Errorf("cut to %d bytes: %v, want errTable", i, err)
		}
	}
}

func TestTooMuchMeta(t *testing.T) {
	table := sampleTable()
	table.meta.URL = string(bytes.Repeat([]byte("u"), maxMeta))
	if _, err := table.encode(); err == nil {
		t.Error("encode succeeded")
	}
}

func TestBlockCount(t *testing.T) {
	for size, want := range map[int64]int64{
		0: 0, 1: 1, BlockSize - 1: 1, BlockSize: 1, BlockSize + 1: 2, math.MaxInt64: 1 << 43,
	} {
		if got := blockCount(size); got != want {
			t.Errorf("blockCount(%d) = %d, want %d", size, got, want)
		}
	}
}

// FuzzParseTable feeds bytes with a right checksum, so that the checks behind
// it are reached.
func FuzzParseTable(f *testing.F) {
	whole, err := sampleTable().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:len(whole)-4])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := parseTable(body); err != nil && !errors.Is(err, errTable) {
			t.Errorf("raw: %v does not wrap errTable", err)
		}
		b := appendSum(bytes.Clone(body))
		table, err := parseTable(b)
		if err != nil {
			if !errors.Is(err, errTable) {
				t.Errorf("%v does not wrap errTable", err)
			}
			return
		}
		if int64(len(table.sums)) != blockCount(table.size) {
			t.Errorf("%d sums for %d bytes", len(table.sums), table.size)
		}
		again, err := table.encode()
		if err != nil {
			return // escapes made the meta data too long
		}
		same, err := parseTable(again)
		if err != nil || same.identity != table.identity {
			t.Errorf("written again: %+v, %v", same, err)
		}
	})
}

func appendSum(b []byte) []byte {
	sum := crc32.Checksum(b, castagnoli)
	return append(b, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
}

func FuzzParseCheckpoint(f *testing.F) {
	whole := append([]byte(checkpointMagic), 0, 0, 16, 0, 2, 0, 0, 0, 'a', 'b')
	whole = append(appendSum(whole), 1, 2, 3, 4, 5)
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		label, sums, err := parseCheckpoint(b)
		if err != nil && !errors.Is(err, errCheckpoint) {
			t.Errorf("%v does not wrap errCheckpoint", err)
		}
		if n := checkpointHeader + len(label) + 4 + 4*len(sums); err == nil && (n > len(b) || len(b)-n >= 4) {
			t.Errorf("%d bytes gave a label of %d and %d checksums", len(b), len(label), len(sums))
		}
	})
}
