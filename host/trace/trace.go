// Package trace reads and writes traces of requests: the service's own form,
// CSV, and the binary form oracleGeneral of libCacheSim. Each may be compressed
// with zstd.
//
// The service's own form is little-endian throughout. A file begins with a
// header of 16 bytes:
//
//	0  8  "IMGTRAC1": the last digit is the version
//	8  4  size of a record: 32, or more where a later program appended fields
//	12 4  0
//
// Records follow, in the order of their times:
//
//	0  8  time of the request in Unix nanoseconds, signed
//	8  8  key of the image: see sdk.KeyOf
//	16 8  size of the image in bytes
//	24 4  the outcome: see [Outcome]
//	28 4  0
//
// The last record may be torn when the machine or the disk failed. Reading ends
// before it without an error, and a [Recorder] that continues the file
// overwrites it.
package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/imgcache/imgcache-host/sdk"
)

// Access is one request.
type Access struct {
	At      int64 // Unix nanoseconds
	Key     sdk.Key
	Size    uint64  // bytes
	Outcome Outcome // in the cache that recorded it; 0: not known
}

// Outcome is how a request was answered.
type Outcome uint32

// The outcomes of requests.
const (
	Hit    Outcome = 1 // answered from the cache
	Stored Outcome = 2 // a miss, whose image was stored
	Passed Outcome = 3 // a miss, whose image was not stored
)

// Format is a form of traces.
type Format string

// The formats.
const (
	Own           Format = "own"
	CSV           Format = "csv"
	OracleGeneral Format = "oraclegeneral"
)

// Formats are all of them.
var Formats = []Format{Own, CSV, OracleGeneral}

// zstdMagic begins every frame of zstd (RFC 8878, section 3.1.1).
var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// ReadFile reads a whole trace. An empty format is found out from the first
// bytes, or else from the name: *.csv, *.oracleGeneral*, with or without .zst.
// Columns matter for a CSV file only.
func ReadFile(name string, format Format, columns Columns) ([]Access, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open trace: %w", err)
	}
	defer f.Close()
	list, err := readAll(f, name, format, columns, maxAccesses)
	if err != nil {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	return list, nil
}

// maxAccesses bounds a trace: its requests take 4 GiB of memory. A compressed file
// of a few MiB may hold far more.
const maxAccesses = 1 << 27

// stoppable is a reader that somebody else may stop.
type stoppable struct {
	r   io.Reader
	why error // nil: it goes on
}

// Read implements io.Reader.
func (s *stoppable) Read(p []byte) (int, error) {
	if s.why != nil {
		return 0, s.why
	}
	return s.r.Read(p)
}

func readAll(r io.Reader, name string, format Format, columns Columns, most int) ([]Access, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	if start, _ := b.Peek(len(zstdMagic)); bytes.Equal(start, zstdMagic) {
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		b = bufio.NewReaderSize(z, 1<<16)
	}
	if format == "" {
		format = guess(b, name)
	}
	var list []Access
	in := &stoppable{r: b}
	take := func(a Access) {
		if len(list) == most {
			in.why = fmt.Errorf("%w: it has more than %d requests", sdk.ErrInvalid, most)
			return
		}
		list = append(list, a)
	}
	var err error
	switch format {
	case Own:
		err = readOwn(in, take)
	case CSV:
		err = readCSV(in, columns, take)
	case OracleGeneral:
		err = readOracle(in, take)
	default:
		return nil, fmt.Errorf("%w: cannot tell the format by its name or first bytes; name one of %v", sdk.ErrInvalid, Formats)
	}
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: it contains no request", sdk.ErrInvalid)
	}
	return list, nil
}

// guess returns the format that a file seems to have, or "".
func guess(b *bufio.Reader, name string) Format {
	if start, _ := b.Peek(len(magic)); string(start) == magic {
		return Own
	}
	name = strings.ToLower(name)
	switch parts := strings.Split(name, "."); {
	case slices.Contains(parts, "csv"):
		return CSV
	case strings.Contains(name, "oraclegeneral"):
		return OracleGeneral
	}
	return ""
}

// readRecords calls take with each record of size bytes. A torn record at the
// end was being written, and is not an error.
func readRecords(r io.Reader, size int, take func([]byte) error) error {
	record := make([]byte, size)
	for {
		_, err := io.ReadFull(r, record)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
		if err := take(record); err != nil {
			return err
		}
	}
}
