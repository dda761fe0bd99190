// Package abi is the WebAssembly ABI of plugins, version 1: the names of
// imports and exports, and the fixed little-endian layout of the frames that
// carry records and events of policies, batches and lists of drivers, and keys
// and values. ABI.md says the same for authors in other languages,
// imgcache_policy.h for those of policies in C. The gRPC contract carries the
// same frames of records and events.
//
// A frame is a header followed by count elements. The header names its own
// size and the stride between elements, so that later versions append fields
// to either and a guest built today steps over them.
package abi

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/imgcache/imgcache-host/sdk"
)

// Version is what the export imgcache_abi_version answers.
const Version = 1

// ManifestSection is the name of the custom section that holds the manifest
// as JSON. A module without it exports [FuncManifest].
const ManifestSection = "imgcache.manifest"

// Module is the name under which the host offers its functions.
const Module = "imgcache"

// The exports of a module.
const (
	FuncVersion   = "imgcache_abi_version" // () -> u32
	FuncAlloc     = "imgcache_alloc"       // (size u32) -> ptr u32
	FuncFree      = "imgcache_free"        // (ptr, size u32)
	FuncConfigure = "imgcache_configure"   // optional: (ptr, len u32) -> status u32
	FuncManifest  = "imgcache_manifest"    // optional: (ptr, cap u32) -> i32 size needed, or -status
	FuncScore     = "imgcache_score"       // scoring: (frame, scores u32) -> status u32
	FuncObserve   = "imgcache_observe"     // stateful: (frame u32) -> status u32
	FuncSelect    = "imgcache_select"      // stateful: (need u64, now i64, keys, cap u32) -> i32 number, or -status
	FuncSnapshot  = "imgcache_snapshot"    // optional: (ptr, cap u32) -> i32 size needed, or -status
	FuncRestore   = "imgcache_restore"     // optional: (ptr, len u32) -> status u32
	FuncApply     = "imgcache_apply"       // driver: (batch, len u32) -> status u32
	FuncList      = "imgcache_list"        // driver: (after, len, ptr, cap u32) -> i32 size needed, or -status
)

// The functions that the host offers in [Module].
const (
	ImportLog     = "log"      // (level, ptr, len u32)
	ImportKVGet   = "kv_get"   // (key, len, ptr, cap u32) -> i32 size of the value, or -status
	ImportKVScan  = "kv_scan"  // (prefix, len, after, len, ptr, cap u32) -> i32 size needed, or -status
	ImportKVWrite = "kv_write" // (pairs, len u32) -> status u32
)

// Status is the result of an export, and with its sign turned, the failure of
// one that returns a number.
type Status uint32

// The statuses; they stand for the errors of package sdk.
const (
	StatusOK          Status = 0
	StatusNotFound    Status = 1
	StatusInvalid     Status = 2
	StatusUnsupported Status = 3
	StatusUnavailable Status = 4
)

// Sizes of this version's layouts in bytes.
const (
	HeaderSize = 32
	RecordSize = 48
	EventSize  = 32
)

// Header stands in front of the elements of a frame.
type Header struct {
	Size   uint32 // offset of element 0
	Stride uint32 // bytes from one element to the next, a multiple of 8
	Count  uint32 // number of elements, at most sdk.MaxBatch
	Flags  uint32 // zero
	Now    int64  // Unix nanoseconds
	Need   uint64 // reserved for the bytes wanted; 0 in version 1
}

// appendHeader appends a header, and leaves room for the elements.
func appendHeader(b []byte, stride, count int, now int64) []byte {
	le := binary.LittleEndian
	b = slices.Grow(b, HeaderSize+count*stride)
	b = le.AppendUint32(b, HeaderSize)
	b = le.AppendUint32(b, uint32(stride))
	b = le.AppendUint32(b, uint32(count))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, uint64(now))
	return le.AppendUint64(b, 0)
}

// AppendRecords appends the frame of records to b.
func AppendRecords(b []byte, now int64, records []sdk.Record) []byte {
	b = appendHeader(b, RecordSize, len(records), now)
	le := binary.LittleEndian
	for i := range records {
		r := &records[i]
		b = b[:len(b)+RecordSize]
		p := b[len(b)-RecordSize:]
		le.PutUint64(p[0:], uint64(r.Key))
		le.PutUint64(p[8:], r.Size)
		le.PutUint64(p[16:], r.Hits)
		le.PutUint64(p[24:], uint64(r.Admitted))
		le.PutUint64(p[32:], uint64(r.Accessed))
		le.PutUint32(p[40:], r.FetchMS)
		le.PutUint32(p[44:], uint32(r.Flags))
	}
	return b
}

// AppendEvents appends the frame of events to b.
func AppendEvents(b []byte, now int64, events []sdk.Event) []byte {
	b = appendHeader(b, EventSize, len(events), now)
	le := binary.LittleEndian
	for i := range events {
		e := &events[i]
		arg := e.Count
		if e.Kind == sdk.EventRemoved {
			arg = uint32(e.Reason)
		}
		b = le.AppendUint64(b, uint64(e.Key))
		b = le.AppendUint64(b, e.Size)
		b = le.AppendUint64(b, uint64(e.At))
		b = le.AppendUint32(b, uint32(e.Kind))
		b = le.AppendUint32(b, arg)
	}
	return b
}

// ParseHeader reads the header of a frame whose elements have at least
// minStride bytes and checks that the frame holds them all. Errors wrap
// sdk.ErrInvalid.
func ParseHeader(frame []byte, minStride int) (Header, error) {
	if len(frame) < HeaderSize {
		return Header{}, fmt.Errorf("%w: a frame of %d bytes is shorter than its header", sdk.ErrInvalid, len(frame))
	}
	le := binary.LittleEndian
	h := Header{
		Size:   le.Uint32(frame[0:]),
		Stride: le.Uint32(frame[4:]),
		Count:  le.Uint32(frame[8:]),
		Flags:  le.Uint32(frame[12:]),
		Now:    int64(le.Uint64(frame[16:])),
		Need:   le.Uint64(frame[24:]),
	}
	switch {
	case h.Size < HeaderSize || h.Size%8 != 0:
		return h, fmt.Errorf("%w: the header of a frame has %d bytes; expected at least %d and a multiple of 8", sdk.ErrInvalid, h.Size, HeaderSize)
	case h.Stride < uint32(minStride) || h.Stride%8 != 0:
		return h, fmt.Errorf("%w: the stride of a frame is %d bytes; expected at least %d and a multiple of 8", sdk.ErrInvalid, h.Stride, minStride)
	case h.Count > sdk.MaxBatch:
		return h, fmt.Errorf("%w: a frame has %d elements; expected at most %d", sdk.ErrInvalid, h.Count, sdk.MaxBatch)
	case uint64(h.Size)+uint64(h.Count)*uint64(h.Stride) > uint64(len(frame)):
		return h, fmt.Errorf("%w: a frame of %d bytes is too short for its %d elements", sdk.ErrInvalid, len(frame), h.Count)
	}
	return h, nil
}

// FrameSize returns the length of the frame that begins with the given bytes,
// for readers that know only where it begins; HeaderSize bytes are enough. It
// is HeaderSize when they are fewer, or no header, which ParseHeader refuses.
func FrameSize(b []byte) uint64 {
	if len(b) < HeaderSize {
		return HeaderSize
	}
	le := binary.LittleEndian
	size, stride, count := le.Uint32(b[0:]), le.Uint32(b[4:]), le.Uint32(b[8:])
	if size < HeaderSize || count > sdk.MaxBatch {
		return HeaderSize
	}
	return uint64(size) + uint64(count)*uint64(stride)
}

// Records appends the records of a frame to dst and returns its time. Errors
// wrap sdk.ErrInvalid; dst is then returned as it was.
func Records(dst []sdk.Record, frame []byte) (int64, []sdk.Record, error) {
	h, err := ParseHeader(frame, RecordSize)
	if err != nil {
		return 0, dst, err
	}
	le := binary.LittleEndian
	dst = slices.Grow(dst, int(h.Count))
	for i := range h.Count {
		p := (*[RecordSize]byte)(frame[h.Size+i*h.Stride:])
		dst = dst[:len(dst)+1]
		r := &dst[len(dst)-1]
		r.Key = sdk.Key(le.Uint64(p[0:]))
		r.Size = le.Uint64(p[8:])
		r.Hits = le.Uint64(p[16:])
		r.Admitted = int64(le.Uint64(p[24:]))
		r.Accessed = int64(le.Uint64(p[32:]))
		r.FetchMS = le.Uint32(p[40:])
		r.Flags = sdk.Flags(le.Uint32(p[44:]))
	}
	return h.Now, dst, nil
}

// Events appends the events of a frame to dst and returns its time. Errors
// wrap sdk.ErrInvalid; dst is then returned as it was.
func Events(dst []sdk.Event, frame []byte) (int64, []sdk.Event, error) {
	h, err := ParseHeader(frame, EventSize)
	if err != nil {
		return 0, dst, err
	}
	le := binary.LittleEndian
	dst = slices.Grow(dst, int(h.Count))
	for i := range h.Count {
		p := frame[h.Size+i*h.Stride:]
		e := sdk.Event{
			Key:  sdk.Key(le.Uint64(p[0:])),
			Size: le.Uint64(p[8:]),
			At:   int64(le.Uint64(p[16:])),
			Kind: sdk.EventKind(le.Uint32(p[24:])),
		}
		if arg := le.Uint32(p[28:]); e.Kind == sdk.EventRemoved {
			e.Reason = sdk.Reason(arg)
		} else {
			e.Count = arg
		}
		dst = append(dst, e)
	}
	return h.Now, dst, nil
}

// AppendConfig appends the text that imgcache_configure takes: name NUL value
// NUL, in any order.
func AppendConfig(b []byte, c sdk.Config) []byte {
	for k, v := range c {
		b = append(append(b, k...), 0)
		b = append(append(b, v...), 0)
	}
	return b
}

// ParseConfig reads what [AppendConfig] wrote. Errors wrap sdk.ErrInvalid.
func ParseConfig(b []byte) (sdk.Config, error) {
	c := sdk.Config{}
	for len(b) > 0 {
		name, rest, ok := cut(b)
		value, rest, ok2 := cut(rest)
		if !ok || !ok2 {
			return nil, fmt.Errorf("%w: the configuration does not end with a NUL byte", sdk.ErrInvalid)
		}
		c[name], b = value, rest
	}
	return c, nil
}

func cut(b []byte) (string, []byte, bool) {
	for i, ch := range b {
		if ch == 0 {
			return string(b[:i]), b[i+1:], true
		}
	}
	return "", nil, false
}
