package xattr

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgcache/imgcache-host/sdk"
)

var moment = time.Date(2026, 11, 23, 1, 2, 3, 456789012, time.UTC)

const (
	logA = "0123456789abcdef0123456789abcdef"
	logB = "fedcba9876543210fedcba9876543210"
)

var allowUnexported = cmp.AllowUnexported(record{}, batch{}, source{})

// TestRecordText shows what an operator reads, and that it is read again.
func TestRecordText(t *testing.T) {
	for text, r := range map[string]record{
		`v1 size=5000 hits=3 accessed=2026-11-23T01:02:03.456789012Z modified=- version="\"v1\"" batch=` + logA + `/17 crc32c=`: {
			entry:   sdk.Entry{Version: `"v1"`, Size: 5000, Hits: 3, LastAccessed: moment},
			batches: []batch{{logA, 17}},
		},
		`v1 size=0 hits=18446744073709551615 accessed=- modified=2026-11-23T01:02:03Z version="" crc32c=`: {
			entry: sdk.Entry{Hits: 1<<64 - 1, LastModified: moment.Truncate(time.Second)},
		},
		`v1 size=1 hits=0 accessed=- modified=- version="a b=c crc32c=0\n\xff\u00e9" batch=` + logA + `/1 batch=` + logB + `/2 crc32c=`: {
			entry:   sdk.Entry{Version: "a b=c crc32c=0\n\xffé", Size: 1},
			batches: []batch{{logA, 1}, {logB, 2}},
		},
		`v1 size=1 hits=0 accessed=- modified=- version-sha256=` + strings.Repeat("0f", 32) + ` crc32c=`: {
			entry: sdk.Entry{Size: 1}, long: strings.Repeat("0f", 32),
		},
	} {
		got := r.encode()
		if rest, ok := strings.CutPrefix(got, text); !ok || len(rest) != 8 {
			t.Errorf("the text is\n%s, want\n%s and eight digits", got, text)
		}
		read, err := parseRecord(got)
		if diff := cmp.Diff(r, read, allowUnexported); err != nil || diff != "" {
			t.Errorf("%s is read as (-want +got) %v\n%s", got, err, diff)
		}
	}
}

// TestTimesWithoutText: what no text says is not known.
func TestTimesWithoutText(t *testing.T) {
	for _, at := range []time.Time{{}, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)} {
		r, err := parseRecord(record{entry: sdk.Entry{LastAccessed: at, LastModified: moment.In(time.FixedZone("x", 3600))}}.encode())
		if err != nil || !r.entry.LastAccessed.IsZero() || !r.entry.LastModified.Equal(moment) {
			t.Errorf("%v is read as %v, %v", at, r.entry, err)
		}
	}
}

// TestDamagedRecords changes, cuts and lengthens a record in every place.
func TestDamagedRecords(t *testing.T) {
	whole := record{entry: sdk.Entry{Version: `"v1"`, Size: 5000, Hits: 3, LastAccessed: moment}, batches: []batch{{logA, 17}}}.encode()
	var damaged []string
	for i := range whole {
		damaged = append(damaged, whole[:i], whole[i+1:], whole[:i]+"0"+whole[i:])
		for bit := range 8 {
			damaged = append(damaged, whole[:i]+string([]byte{whole[i] ^ 1<<bit})+whole[i+1:])
		}
	}
	damaged = append(damaged, "", "v1", "7", whole+" ", whole+"\n", whole+whole, strings.Replace(whole, "v1", "v2", 1),
		seal(`size=-1 hits=0 accessed=- modified=- version=""`),
		seal(`size=9223372036854775808 hits=0 accessed=- modified=- version=""`),
		seal(`size=1 hits=18446744073709551616 accessed=- modified=- version=""`),
		seal(`size=1 hits=0 accessed=2026-11-23T01:02:03+01:00 modified=- version=""`),
		seal(`size=1 hits=0 accessed=- modified=- version=""  batch=`+logA+`/1`),
		seal(`size=1 hits=0 accessed=- modified=- version="" more=0`),
		seal(`hits=0 size=1 accessed=- modified=- version=""`),
	)
	for _, text := range damaged {
		if r, err := parseRecord(text); err == nil && text != whole {
			t.Errorf("%q is read as %v", text, r)
		}
	}
}

// TestSources keeps the last number of each source, for a month and for as
// many as fit.
func TestSources(t *testing.T) {
	var s sources
	for i := range uint64(maxSources + 5) {
		s = s.with(batch{sourceKey(fmt.Sprint(i)), i + 1}, moment.Add(time.Duration(i)*time.Hour))
	}
	if len(s) != maxSources || s.last(sourceKey("4")) != 0 || s.last(sourceKey("5")) != 6 {
		t.Errorf("%d sources, the fifth at %d, the sixth at %d", len(s), s.last(sourceKey("4")), s.last(sourceKey("5")))
	}
	text := s.encode()
	if read, err := parseSources(text); err != nil || !slices.Equal(read, s) {
		t.Errorf("%s is read as %v, %v", text, read, err)
	}
	if len(text) > 3500 {
		t.Errorf("the sources take %d bytes, too much beside other attributes in 4 KiB", len(text))
	}
	for i := range text {
		if _, err := parseSources(text[:i] + text[i+1:]); err == nil {
			t.Errorf("without byte %d the sources can be read", i)
		}
	}
	if s = s.with(batch{logA, 1}, moment.Add(sourceLife+time.Hour*(maxSources+4)-time.Second)); len(s) != 2 {
		t.Errorf("%d sources after a month, want the last two", len(s))
	}
	if none, err := parseSources(sources{}.encode()); err != nil || len(none) != 0 {
		t.Errorf("no sources are read as %v, %v", none, err)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(record{entry: sdk.Entry{Version: `"v1"`, Hits: 3, LastAccessed: moment}, batches: []batch{{logA, 17}}}.encode())
	f.Add(seal(""))
	f.Add(`v1 size=1 hits=1 accessed=- modified=- version="`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, text := range []string{text, seal(text)} {
			r, err := parseRecord(text)
			if err == nil && r.encode() != text {
				t.Errorf("%q is read as %v", text, r)
			}
		}
	})
}

func FuzzSources(f *testing.F) {
	f.Add(sources{}.with(batch{logA, 17}, moment).with(batch{logB, 1}, moment).encode())
	f.Add(seal("batch=/ used="))
	f.Fuzz(func(t *testing.T, text string) {
		for _, text := range []string{text, seal(text)} {
			s, err := parseSources(text)
			if err == nil && s.encode() != text {
				t.Errorf("%q is read as %v", text, s)
			}
		}
	})
}
