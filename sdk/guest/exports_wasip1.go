package guest

import (
	"runtime"
	"unsafe"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// rooms holds what the host has allocated, by address: it keeps the garbage
// collector from what only the host knows of.
var rooms = map[uintptr][]uint64{}

//go:wasmexport imgcache_abi_version
func abiVersion() uint32 { return abi.Version }

//go:wasmexport imgcache_alloc
func alloc(size uint32) unsafe.Pointer {
	room := make([]uint64, max(1, (uint64(size)+7)/8)) // aligned to 8
	p := unsafe.Pointer(unsafe.SliceData(room))
	rooms[uintptr(p)] = room
	return p
}

//go:wasmexport imgcache_free
func free(p unsafe.Pointer, _ uint32) { delete(rooms, uintptr(p)) }

//go:wasmexport imgcache_manifest
func writeManifest(buf unsafe.Pointer, size uint32) int32 {
	return exported.writeManifest(view(buf, uint64(size)))
}

// heapSlack is how many bytes of garbage do not matter.
const heapSlack = 4 << 20

// live is how many bytes of the heap were in use after the last collection.
var live uint64

// collect removes garbage when there is as much as there is of use. The
// collector of the runtime works beside the program, in shares of a time that
// does not pass in a module: a collection that one call has begun may not end in
// the next ones either, while they take memory until there is none.
func collect() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc <= 2*live+heapSlack {
		return
	}
	runtime.GC()
	runtime.ReadMemStats(&m)
	live = m.HeapAlloc
}

//go:wasmexport imgcache_configure
func configure(options unsafe.Pointer, size uint32) uint32 {
	defer collect()
	return uint32(exported.configure(view(options, uint64(size))))
}

//go:wasmexport imgcache_score
func score(records, scores unsafe.Pointer) uint32 {
	defer collect()
	frame := frameAt(records)
	h, err := abi.ParseHeader(frame, abi.RecordSize)
	if err != nil {
		return uint32(answer(err))
	}
	out := unsafe.Slice((*float64)(scores), h.Count)
	if h.Stride != abi.RecordSize {
		return uint32(exported.score(frame, out))
	}
	first := (*sdk.Record)(unsafe.Add(records, h.Size))
	return uint32(exported.scoreRecords(h.Now, unsafe.Slice(first, h.Count), out))
}

// An sdk.Record lies in memory as in a frame whose elements have just these
// fields, so that most frames need no copy.
const (
	_ = -(unsafe.Sizeof(sdk.Record{}) ^ abi.RecordSize)
	_ = -(unsafe.Offsetof(sdk.Record{}.Size) ^ 8)
	_ = -(unsafe.Offsetof(sdk.Record{}.Hits) ^ 16)
	_ = -(unsafe.Offsetof(sdk.Record{}.Admitted) ^ 24)
	_ = -(unsafe.Offsetof(sdk.Record{}.Accessed) ^ 32)
	_ = -(unsafe.Offsetof(sdk.Record{}.FetchMS) ^ 40)
	_ = -(unsafe.Offsetof(sdk.Record{}.Flags) ^ 44)
)

//go:wasmexport imgcache_observe
func observe(events unsafe.Pointer) uint32 {
	defer collect()
	return uint32(exported.observe(frameAt(events)))
}

//go:wasmexport imgcache_select
func choose(need uint64, now int64, keys unsafe.Pointer, limit uint32) int32 {
	defer collect()
	return exported.choose(need, now, view(keys, 8*uint64(limit)))
}

//go:wasmexport imgcache_snapshot
func snapshot(buf unsafe.Pointer, size uint32) int32 {
	defer collect()
	return exported.writeSnapshot(view(buf, uint64(size)))
}

//go:wasmexport imgcache_restore
func restore(buf unsafe.Pointer, size uint32) uint32 {
	defer collect()
	return uint32(exported.restore(view(buf, uint64(size))))
}

//go:wasmexport imgcache_apply
func apply(batch unsafe.Pointer, size uint32) uint32 {
	defer collect()
	return uint32(exported.apply(view(batch, uint64(size))))
}

//go:wasmexport imgcache_list
func list(after unsafe.Pointer, size uint32, page unsafe.Pointer, room uint32) int32 {
	defer collect()
	return exported.list(string(view(after, uint64(size))), view(page, uint64(room)))
}

// view is the memory of size bytes at p, which the host allocated.
func view(p unsafe.Pointer, size uint64) []byte {
	if size == 0 {
		return nil // p has no meaning
	}
	return unsafe.Slice((*byte)(p), size)
}

// frameAt is the frame at p, whose length only its header knows.
func frameAt(p unsafe.Pointer) []byte {
	return view(p, abi.FrameSize(view(p, abi.HeaderSize)))
}
