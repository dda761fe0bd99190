package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"time"
)

// BlockSize is the unit in which images are verified, in bytes. At 1 MiB the
// checksum takes a twentieth of the time of a read from page cache, and a table
// takes 4 bytes per million.
const BlockSize = 1 << 20

// castagnoli is CRC32C, which processors compute at memory speed.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A block table is a file of little-endian numbers:
//
//	offset  bytes  what
//	0       8      "imgblk" 0x00 0x01; the last byte is the version
//	8       8      inode of the image
//	16      8      size of the image in bytes
//	24      8      modification time of the image, nanoseconds since 1970
//	32      4      bytes in a block; the last block of the image may be shorter
//	36      4      m, the length of the meta data
//	40      m      [Meta] as JSON; readers ignore members that they do not know
//	40+m    4n     CRC32C of each of the n blocks
//	...     4      CRC32C of everything before
const (
	tableMagic  = "imgblk\x00\x01"
	tableHeader = 40
	maxMeta     = 64 << 10 // bytes; a URL is the longest thing in it
)

// errTable says that the bytes are not a valid block table.
var errTable = errors.New("not a block table")

// identity identifies the file that a table was written for.
type identity struct {
	inode uint64
	size  int64
	mtime int64 // nanoseconds since 1970
}

func identify(fi fs.FileInfo) identity {
	return identity{inode: inode(fi), size: fi.Size(), mtime: fi.ModTime().UnixNano()}
}

// fits reports whether a table can belong to a file. The size must be the same,
// and either the inode (somebody may have touched the file since) or the
// modification time (a copy may have kept it). Whether the bytes are right is
// for the checksums to say.
func (t identity) fits(file identity) bool {
	return t.size == file.size && (t.inode == file.inode || t.mtime == file.mtime)
}

// blockTable holds the checksums of the blocks of one file.
type blockTable struct {
	identity
	meta Meta
	sums []uint32 // CRC32C by block
}

// tableName is the name of the table of an image. Each inode has a table of its
// own, so the table of a new file can be complete and durable before the rename
// that replaces the image, and when that fails the old file still has its own.
func tableName(id string, inode uint64) string {
	return join(blocksDir, fmt.Sprintf("%s~%x", id, inode))
}

func blockCount(size int64) int64 {
	n := size / BlockSize
	if size%BlockSize != 0 {
		n++
	}
	return n
}

func (t *blockTable) encode() ([]byte, error) {
	meta, err := json.Marshal(t.meta)
	if err != nil {
		return nil, err
	}
	if len(meta) > maxMeta {
		return nil, fmt.Errorf("the meta data has %d bytes; expected at most %d", len(meta), maxMeta)
	}
	le := binary.LittleEndian
	b := make([]byte, 0, tableHeader+len(meta)+4*len(t.sums)+4)
	b = append(b, tableMagic...)
	b = le.AppendUint64(b, t.inode)
	b = le.AppendUint64(b, uint64(t.size))
	b = le.AppendUint64(b, uint64(t.mtime))
	b = le.AppendUint32(b, BlockSize)
	b = le.AppendUint32(b, uint32(len(meta)))
	b = append(b, meta...)
	for _, sum := range t.sums {
		b = le.AppendUint32(b, sum)
	}
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// parseTable is the inverse of encode. Every error wraps errTable.
func parseTable(b []byte) (*blockTable, error) {
	le := binary.LittleEndian
	if len(b) < tableHeader+4 || string(b[:len(tableMagic)]) != tableMagic {
		return nil, fmt.Errorf("%w: no header", errTable)
	}
	body, sum := b[:len(b)-4], le.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, fmt.Errorf("%w: wrong checksum", errTable)
	}
	size, metaLen := le.Uint64(b[16:]), uint64(le.Uint32(b[36:]))
	if size > math.MaxInt64 || le.Uint32(b[32:]) != BlockSize || metaLen > maxMeta {
		return nil, fmt.Errorf("%w: size %d, block size %d, %d bytes of meta data", errTable, size, le.Uint32(b[32:]), metaLen)
	}
	blocks := blockCount(int64(size))
	if int64(len(body)) != tableHeader+int64(metaLen)+4*blocks {
		return nil, fmt.Errorf("%w: %d bytes for %d blocks", errTable, len(b), blocks)
	}
	t := &blockTable{
		identity: identity{inode: le.Uint64(b[8:]), size: int64(size), mtime: int64(le.Uint64(b[24:]))},
		sums:     make([]uint32, blocks),
	}
	if err := json.Unmarshal(body[tableHeader:tableHeader+metaLen], &t.meta); err != nil {
		return nil, fmt.Errorf("%w: meta data: %w", errTable, err)
	}
	for i := range t.sums {
		t.sums[i] = le.Uint32(body[tableHeader+int(metaLen)+4*i:])
	}
	return t, nil
}

// loadTable returns the table of a file, or nil when it has none. The error
// wraps [ErrCorrupt] when the table cannot be read or does not fit: then the
// table or the file is damaged, and the bytes cannot be trusted.
func (s *Store) loadTable(id string, fi fs.FileInfo) (*blockTable, error) {
	file := identify(fi)
	t, err := s.readTableFile(tableName(id, file.inode), file.size)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("block table of %s: %w", id, err)
	case !t.fits(file):
		return nil, fmt.Errorf("%w: %s has %d bytes, but its block table is for a file of %d", ErrCorrupt, id, file.size, t.size)
	}
	return t, nil
}

// peekTable is loadTable for callers that only want information about the
// image. It returns nil for a table that cannot be read or does not fit.
func (s *Store) peekTable(id string, fi fs.FileInfo) *blockTable {
	t, err := s.loadTable(id, fi)
	if err != nil {
		s.log.Warn("the block table cannot be used", "image", id, "error", err)
		return nil
	}
	return t
}

// readTableFile reads the table of an image of at most size bytes. Errors of
// its content wrap [ErrCorrupt].
func (s *Store) readTableFile(name string, imageSize int64) (*blockTable, error) {
	f, err := s.fs.OpenFile("blocks.open", name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if most := tableHeader + maxMeta + 4*blockCount(imageSize) + 4; fi.Size() > most {
		return nil, fmt.Errorf("%w: %w: %d bytes; expected at most %d", ErrCorrupt, errTable, fi.Size(), most)
	}
	b := make([]byte, fi.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%w: read: %w", ErrCorrupt, err)
	}
	t, err := parseTable(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return t, nil
}

// writeTable writes a table durably. It needs no rename: an incomplete table
// fails its checksum.
func (s *Store) writeTable(id string, t *blockTable) error {
	b, err := t.encode()
	if err != nil {
		return fmt.Errorf("encode block table: %w", err)
	}
	if err := writeFile(s.fs, "commit.table", tableName(id, t.inode), b); err != nil {
		return fmt.Errorf("write block table: %w", err)
	}
	if err := s.fs.SyncDir("commit.table.syncdir", blocksDir); err != nil {
		return fmt.Errorf("sync block table: %w", err)
	}
	return nil
}

// dropTable removes the table of a file that is no longer an image. If that
// fails, [Store.Scan] removes the table later.
func (s *Store) dropTable(op, id string, inode uint64) {
	if err := s.remove(op, tableName(id, inode)); err != nil {
		s.log.Warn("could not remove the block table", "image", id, "error", err)
	}
}

// summer computes the checksums of blocks while bytes are appended.
type summer struct {
	sums []uint32 // of whole blocks
	part uint32   // of the bytes in the unfinished block
	fill int      // number of bytes in the unfinished block
}

func (s *summer) write(p []byte) {
	for len(p) > 0 {
		n := min(len(p), BlockSize-s.fill)
		s.part = crc32.Update(s.part, castagnoli, p[:n])
		if s.fill += n; s.fill == BlockSize {
			s.sums = append(s.sums, s.part)
			s.part, s.fill = 0, 0
		}
		p = p[n:]
	}
}

// all returns the checksum of every block, the last one perhaps short.
func (s *summer) all() []uint32 {
	sums := append([]uint32(nil), s.sums...)
	if s.fill > 0 {
		sums = append(sums, s.part)
	}
	return sums
}

// Meta is what is stored with an image besides its bytes.
type Meta struct {
	Version       string    `json:"version,omitempty"`  // as the origin declared it
	SHA256        string    `json:"sha256,omitempty"`   // lower-case hex, of the stored bytes
	URL           string    `json:"url,omitempty"`      // for people: where the image came from
	Name          string    `json:"name,omitempty"`     // the origin's, if it does not follow from the id
	FetchMS       uint32    `json:"fetch_ms,omitempty"` // how long the transfer took
	OriginModTime time.Time `json:"origin_mtime,omitzero"`
	Label         string    `json:"label,omitempty"` // what the caller keeps with the image
}
