package trace

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/imgcache/imgcache-host/sdk"
)

// The service's own form; the package comment has its layout.
const (
	magic      = "IMGTRAC1"
	headerSize = 16
	recordSize = 32
	maxRecord  = 4096 // no version will have longer records
)

// AppendHeader appends the header of a file.
func AppendHeader(b []byte) []byte {
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, recordSize)
	return binary.LittleEndian.AppendUint32(b, 0)
}

// Append appends the record of a request.
func Append(b []byte, a Access) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(a.At))
	b = binary.LittleEndian.AppendUint64(b, uint64(a.Key))
	b = binary.LittleEndian.AppendUint64(b, a.Size)
	b = binary.LittleEndian.AppendUint32(b, uint32(a.Outcome))
	return binary.LittleEndian.AppendUint32(b, 0)
}

func readOwn(r io.Reader, take func(Access)) error {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(r, header); err != nil || string(header[:len(magic)]) != magic {
		return fmt.Errorf("%w: it does not begin with the header of a trace of the service", sdk.ErrInvalid)
	}
	size := binary.LittleEndian.Uint32(header[len(magic):])
	if size < recordSize || size > maxRecord {
		return fmt.Errorf("%w: its records have %d bytes", sdk.ErrInvalid, size)
	}
	return readRecords(r, int(size), func(b []byte) error {
		take(Access{
			At: int64(binary.LittleEndian.Uint64(b)), Key: sdk.Key(binary.LittleEndian.Uint64(b[8:])),
			Size: binary.LittleEndian.Uint64(b[16:]), Outcome: Outcome(binary.LittleEndian.Uint32(b[24:])),
		})
		return nil
	})
}
