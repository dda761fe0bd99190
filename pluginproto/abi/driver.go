package abi

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// EntrySize is the size of the fixed part of an entry of this version in bytes.
// The id and the version follow it, and zeros up to a multiple of 8.
const EntrySize = 48

// A batch, and a page of a list, are frames of entries: a header, the source of
// the batch, and elements of different length. Offsets in the header that
// differ from those of [Header]:
const (
	seqAt    = 16 // u64: number of the batch; 0 in a page
	sourceAt = 24 // u32: offset of the source, u32: its length; 0 in a page
)

// AppendBatch appends the frame of a batch to b.
func AppendBatch(b []byte, batch sdk.Batch) []byte {
	begin := len(b)
	b = appendHeader(b, EntrySize, len(batch.Ops), 0)
	le := binary.LittleEndian
	le.PutUint64(b[begin+seqAt:], batch.Seq)
	le.PutUint32(b[begin+sourceAt:], HeaderSize)
	le.PutUint32(b[begin+sourceAt+4:], uint32(len(batch.Source)))
	b = pad(append(b, batch.Source...), begin)
	le.PutUint32(b[begin:], uint32(len(b)-begin))
	for _, op := range batch.Ops {
		b = pad(appendEntry(b, op.Kind, op.Entry), begin)
	}
	return b
}

// AppendPage appends the frame of a page of a list to b.
func AppendPage(b []byte, entries []sdk.Entry) []byte {
	begin := len(b)
	b = appendHeader(b, EntrySize, len(entries), 0)
	for _, e := range entries {
		b = pad(appendEntry(b, 0, e), begin)
	}
	return b
}

// EntryLen is how many bytes an entry takes in a frame.
func EntryLen(e sdk.Entry) int { return (EntrySize + len(e.ID) + len(e.Version) + 7) / 8 * 8 }

func appendEntry(b []byte, kind sdk.OpKind, e sdk.Entry) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(e.Size))
	b = le.AppendUint64(b, e.Hits)
	b = le.AppendUint64(b, uint64(FromTime(e.LastAccessed)))
	b = le.AppendUint64(b, uint64(FromTime(e.LastModified)))
	b = le.AppendUint32(b, uint32(kind))
	b = le.AppendUint32(b, uint32(len(e.ID)))
	b = le.AppendUint32(b, uint32(len(e.Version)))
	b = le.AppendUint32(b, 0)
	return append(append(b, e.ID...), e.Version...)
}

// pad appends zeros until what follows begin is a multiple of 8.
func pad(b []byte, begin int) []byte {
	for (len(b)-begin)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// ParseBatch reads what [AppendBatch] wrote. Errors wrap sdk.ErrInvalid; the
// batch is not validated.
func ParseBatch(frame []byte) (sdk.Batch, error) {
	ops, h, err := parseEntries(frame)
	if err != nil {
		return sdk.Batch{}, err
	}
	le := binary.LittleEndian
	at, size := uint64(le.Uint32(frame[sourceAt:])), uint64(le.Uint32(frame[sourceAt+4:]))
	if at+size > uint64(h.Size) {
		return sdk.Batch{}, fmt.Errorf("%w: the source of the batch is outside of its header", sdk.ErrInvalid)
	}
	return sdk.Batch{Source: string(frame[at : at+size]), Seq: le.Uint64(frame[seqAt:]), Ops: ops}, nil
}

// ParsePage reads what [AppendPage] wrote. Errors wrap sdk.ErrInvalid.
func ParsePage(frame []byte) ([]sdk.Entry, error) {
	ops, _, err := parseEntries(frame)
	if err != nil {
		return nil, err
	}
	entries := make([]sdk.Entry, len(ops))
	for i, op := range ops {
		entries[i] = op.Entry
	}
	return entries, nil
}

// parseEntries reads the elements of a frame. The strings are copies.
func parseEntries(frame []byte) ([]sdk.Op, Header, error) {
	h, err := ParseHeader(frame, EntrySize) // which checks the length without ids and versions
	if err != nil {
		return nil, h, err
	}
	le := binary.LittleEndian
	ops := make([]sdk.Op, h.Count)
	rest := frame[h.Size:]
	for i := range ops {
		if uint64(len(rest)) < uint64(h.Stride) {
			return nil, h, cutShort(len(frame), i)
		}
		id, version := uint64(le.Uint32(rest[36:])), uint64(le.Uint32(rest[40:]))
		size := (uint64(h.Stride) + id + version + 7) / 8 * 8
		if size > uint64(len(rest)) {
			return nil, h, cutShort(len(frame), i)
		}
		text := string(rest[h.Stride:][:id+version])
		ops[i] = sdk.Op{Kind: opKind(le.Uint32(rest[32:])), Entry: sdk.Entry{
			ID: text[:id], Version: text[id:], Size: int64(le.Uint64(rest[0:])), Hits: le.Uint64(rest[8:]),
			LastAccessed: ToTime(int64(le.Uint64(rest[16:]))), LastModified: ToTime(int64(le.Uint64(rest[24:]))),
		}}
		rest = rest[size:]
	}
	return ops, h, nil
}

func cutShort(size, element int) error {
	return fmt.Errorf("%w: a frame of %d bytes ends inside element %d", sdk.ErrInvalid, size, element)
}

// opKind turns a kind that does not fit into 0, which no operation may have.
func opKind(k uint32) sdk.OpKind {
	if k > 255 {
		return 0
	}
	return sdk.OpKind(k)
}

// FromTime returns Unix nanoseconds; the zero time is 0.
func FromTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// ToTime returns the time that [FromTime] turned into ns, in UTC.
func ToTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
