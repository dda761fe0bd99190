package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"syscall"
	"time"
)

// BlockSize is the unit in which images are verified: small enough that a
// range costs little more than its bytes, large enough that a table is a
// quarter of a millionth of its image.
const BlockSize = 1 << 20

// ErrCorrupt says that the bytes of an image are not those that were
// committed.
var ErrCorrupt = errors.New("image is corrupt")

// Meta is what is stored with an image besides its bytes.
type Meta struct {
	Version       string    // of the content, as the origin tells versions apart
	SHA256        string    // hex; empty: not computed
	URL           string    // where it came from, for people
	OriginModTime time.Time // zero: unknown
	FetchMS       uint32    // what the fill took
}

// table is the block table of an image: what its file must look like, and the
// CRC32C of each block. Its file is
//
//	"ICBT0001"             8 bytes
//	length of the head     u32, little-endian
//	head                   JSON
//	CRC32C of each block   u32 each
//	CRC32C of all before   u32
type table struct {
	head tableHead
	sums []uint32
}

type tableHead struct {
	Inode         uint64 `json:"inode"`
	Size          int64  `json:"size"`
	ModTime       int64  `json:"mtime"` // Unix nanoseconds
	Version       string `json:"version,omitempty"`
	SHA256        string `json:"sha256,omitempty"`
	URL           string `json:"url,omitempty"`
	OriginModTime int64  `json:"origin_mtime,omitempty"`
	FetchMS       uint32 `json:"fetch_ms,omitempty"`
}

const (
	tableMagic = "ICBT0001"
	maxHead    = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// blockCount returns the number of blocks of size bytes.
func blockCount(size int64) int64 { return (size + BlockSize - 1) / BlockSize }

func (t *table) encode() []byte {
	head, err := json.Marshal(t.head)
	if err != nil {
		panic(err) // the head has no value that JSON lacks
	}
	b := make([]byte, 0, len(tableMagic)+4+len(head)+4*len(t.sums)+4)
	b = append(b, tableMagic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(head)))
	b = append(b, head...)
	for _, sum := range t.sums {
		b = binary.LittleEndian.AppendUint32(b, sum)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// errTable says that a block table cannot be used.
var errTable = errors.New("unusable block table")

// parseTable reads what encode wrote. Errors wrap errTable.
func parseTable(b []byte) (*table, error) {
	le := binary.LittleEndian
	if len(b) < len(tableMagic)+8 || string(b[:len(tableMagic)]) != tableMagic {
		return nil, fmt.Errorf("%w: it does not begin with %s", errTable, tableMagic)
	}
	body, sum := b[:len(b)-4], le.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, fmt.Errorf("%w: its checksum is wrong", errTable)
	}
	body = body[len(tableMagic):]
	n := le.Uint32(body)
	body = body[4:]
	if n > maxHead || int(n) > len(body) {
		return nil, fmt.Errorf("%w: its head has %d bytes", errTable, n)
	}
	t := &table{}
	if err := json.Unmarshal(body[:n], &t.head); err != nil {
		return nil, fmt.Errorf("%w: head: %w", errTable, err)
	}
	body = body[n:]
	if t.head.Size < 0 || int64(len(body)) != 4*blockCount(t.head.Size) {
		return nil, fmt.Errorf("%w: %d bytes of sums for an image of %d bytes", errTable, len(body), t.head.Size)
	}
	t.sums = make([]uint32, len(body)/4)
	for i := range t.sums {
		t.sums[i] = le.Uint32(body[4*i:])
	}
	return t, nil
}

// describes reports whether the table is that of the file.
func (t *table) describes(info fs.FileInfo) bool {
	return t.head.Size == info.Size() && t.head.ModTime == info.ModTime().UnixNano() && t.head.Inode == inode(info)
}

func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

func (t *table) meta() Meta {
	m := Meta{Version: t.head.Version, SHA256: t.head.SHA256, URL: t.head.URL, FetchMS: t.head.FetchMS}
	if t.head.OriginModTime != 0 {
		m.OriginModTime = time.Unix(0, t.head.OriginModTime)
	}
	return m
}

func newTable(info fs.FileInfo, m Meta, sums []uint32) *table {
	t := &table{sums: sums, head: tableHead{
		Inode: inode(info), Size: info.Size(), ModTime: info.ModTime().UnixNano(),
		Version: m.Version, SHA256: m.SHA256, URL: m.URL, FetchMS: m.FetchMS,
	}}
	if !m.OriginModTime.IsZero() {
		t.head.OriginModTime = m.OriginModTime.UnixNano()
	}
	return t
}
