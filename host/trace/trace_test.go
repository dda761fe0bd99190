package trace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imgcache/imgcache-host/sdk"
)

// TestTraceBombs reads files that are small and hold much.
func TestTraceBombs(t *testing.T) {
	zeros := func(n int) []byte { return make([]byte, n) }
	for _, test := range []struct {
		name   string
		data   []byte
		format Format
		want   string
	}{
		{"records", append(AppendHeader(nil), zeros(1<<24)...), Own, "more than 1000 requests"},
		{"compressed records", compress(t, append(AppendHeader(nil), zeros(1<<24)...)), Own, "more than 1000 requests"},
		{"compressed records of others", compress(t, zeros(1<<24)), OracleGeneral, "more than 1000 requests"},
		{"lines", bytes.Repeat([]byte("1,2,3\n"), 1<<20), CSV, "more than 1000 requests"},
		{"a line", zeros(maxLine + 1<<16), CSV, "a line has more than"},
		{"a compressed line", compress(t, zeros(1<<26)), CSV, "a line has more than"},
		{"an open quote", append([]byte("1,2,3\n1,2,\""), bytes.Repeat([]byte("x\n"), 1<<24)...), CSV, "a line has more than"},
	} {
		if list, err := readAll(bytes.NewReader(test.data), "x", test.format, Columns{1, 2, 3}, 1000); !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %d requests, %v", test.name, len(list), err)
		}
	}
	if list, err := readAll(bytes.NewReader(append(AppendHeader(nil), zeros(1000*recordSize)...)), "x", Own, Columns{}, 1000); err != nil || len(list) != 1000 {
		t.Errorf("as many as may be: %d, %v", len(list), err)
	}
}

var some = []Access{{At: 1e18, Key: 1, Size: 1 << 40, Outcome: Hit}, {At: 1e18 + 5, Key: 1<<64 - 1, Size: 0, Outcome: Passed}}

func own(list ...Access) []byte {
	b := AppendHeader(nil)
	for _, a := range list {
		b = Append(b, a)
	}
	return b
}

func compress(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(b, nil)
}

func oracle(list ...Access) (b []byte) {
	for _, a := range list {
		b = binary.LittleEndian.AppendUint32(b, uint32(a.At/1e9))
		b = binary.LittleEndian.AppendUint64(b, uint64(a.Key))
		b = binary.LittleEndian.AppendUint32(b, uint32(a.Size))
		b = binary.LittleEndian.AppendUint64(b, 1<<64-1)
	}
	return b
}

// TestFormats reads each form, compressed or not, whole or torn.
func TestFormats(t *testing.T) {
	longer := binary.LittleEndian.AppendUint32([]byte(magic), recordSize+8) // of a later version
	longer = append(longer, 0, 0, 0, 0)
	for _, a := range some {
		longer = append(Append(longer, a), 1, 2, 3, 4, 5, 6, 7, 8)
	}
	plain := []Access{{At: 2e9, Key: 7, Size: 9}, {At: 3e9, Key: 8, Size: 10}}
	columns := Columns{Time: 2, ID: 3, Size: 1}
	named := []Access{{At: 2.5e9, Key: sdk.KeyOf("debian"), Size: 9}, {At: 3e9, Key: sdk.KeyOf("a,b"), Size: 1 << 40}}
	for _, test := range []struct {
		name string
		data []byte
		want []Access
	}{
		{"any", own(some...), some},
		{"torn", own(some...)[:headerSize+recordSize+7], some[:1]},
		{"later", longer, some},
		{"any.zst", compress(t, own(some...)), some},
		{"x.oracleGeneral.bin", oracle(plain...), plain},
		{"x.oracleGeneral.zst", compress(t, oracle(plain...)), plain},
		{"x.csv", []byte("size, when, id\n9,2.5,debian\n1099511627776,3,\"a,b\",more\n"), named},
		{"x.csv.zst", compress(t, []byte("9,2.5,debian\n1099511627776,3,\"a,b\"")), named},
	} {
		path := filepath.Join(t.TempDir(), test.name)
		if err := os.WriteFile(path, test.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadFile(path, "", columns); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, %v, want %v", test.name, got, err, test.want)
		}
	}
}

// TestWhatIsWrong: an error says what is wrong and where.
func TestWhatIsWrong(t *testing.T) {
	columns := Columns{Time: 1, ID: 2, Size: 3}
	for _, test := range []struct {
		name, data string
		format     Format
		want       string
	}{
		{"unknown", "what is this", "", "name one of [own csv oraclegeneral]"},
		{"x.csv", "1,a,5\n2,b,many\n", "", `line 2: expected the size as a number of bytes, got "many"`},
		{"x.csv", "1,a,5\nsoon,b,5\n", "", `line 2: expected the time as a number of seconds, got "soon"`},
		{"x.csv", "1,a,5\n2,b\n", "", "line 2: expected the columns time=1,id=2,size=3, got 2 columns"},
		{"x.csv", "time,id,size\n", "", "it contains no request"},
		{"x.csv", "", "", "it contains no request"},
		{"x", "IMG", Own, "does not begin with the header of a trace"},
		{"x", magic + "\x01\x00\x00\x00\x00\x00\x00\x00", "", "its records have 1 bytes"},
	} {
		if _, err := readAll(strings.NewReader(test.data), test.name, test.format, columns, 10); !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %q: %v, want %q", test.name, test.data, err, test.want)
		}
	}
	if _, err := ReadFile(filepath.Join(t.TempDir(), "none"), "", columns); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestColumns(t *testing.T) {
	for text, want := range map[string]bool{
		"time=2,id=5,size=4": true, "size=1,id=1,time=1": true, "time=1,id=2": false, "time=0,id=1,size=2": false, "time": false, "when=1,id=2,size=3": false, "": false,
	} {
		var c Columns
		if err := c.Set(text); (err == nil) != want || want && c.Time*c.ID*c.Size == 0 {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

// FuzzRead: no bytes make a reader panic or hang, in any format.
func FuzzRead(f *testing.F) {
	f.Add(own(some...))
	f.Add([]byte("1,2,3\n"))
	f.Add(oracle(some...))
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, format := range append(Formats, "") {
			_, _ = readAll(bytes.NewReader(b), "x", format, Columns{1, 2, 3}, 1<<20)
		}
	})
}
