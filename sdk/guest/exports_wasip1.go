//go:build wasip1

package guest

import (
	"unsafe"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// blocks keeps what the host allocated reachable until the host frees it. The
// elements are words, because the ABI wants an alignment of 8.
var blocks = map[uint32][]uint64{}

//go:wasmexport imgcache_abi_version
func abiVersion() uint32 { return abi.Version }

//go:wasmexport imgcache_alloc
func alloc(size uint32) uint32 {
	b := make([]uint64, size/8+1)
	p := uint32(uintptr(unsafe.Pointer(&b[0])))
	blocks[p] = b
	return p
}

//go:wasmexport imgcache_free
func free(p, _ uint32) { delete(blocks, p) }

// memory returns the n bytes at p.
func memory(p, n uint32) []byte {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(uintptr(p))), n)
}

// frame returns the frame at p, whose header says how long it is.
func frame(p uint32) []byte {
	h := memory(p, abi.HeaderSize)
	size := func(at int) uint32 { return *(*uint32)(unsafe.Pointer(&h[at])) }
	return memory(p, size(0)+size(4)*size(8))
}

// give copies b to the n bytes at p if it fits, and returns its length.
func give(b []byte, p, n uint32) int32 {
	if len(b) <= int(n) {
		copy(memory(p, n), b)
	}
	return int32(len(b))
}

//go:wasmexport imgcache_manifest
func manifest(p, n uint32) int32 {
	if exported == nil {
		return -int32(abi.StatusUnavailable)
	}
	return give(manifestJSON(exported.manifest), p, n)
}

//go:wasmexport imgcache_configure
func configure(p, n uint32) uint32 {
	if exported == nil {
		return uint32(abi.StatusUnavailable)
	}
	return uint32(exported.configure(memory(p, n)))
}

//go:wasmexport imgcache_score
func score(f, out uint32) uint32 {
	if exported == nil {
		return uint32(abi.StatusUnavailable)
	}
	scores, status := exported.score(frame(f))
	if status == abi.StatusOK && len(scores) > 0 {
		copy(unsafe.Slice((*float64)(unsafe.Pointer(uintptr(out))), len(scores)), scores)
	}
	return uint32(status)
}

//go:wasmexport imgcache_observe
func observe(f uint32) uint32 {
	if exported == nil {
		return uint32(abi.StatusUnavailable)
	}
	return uint32(exported.observe(frame(f)))
}

//go:wasmexport imgcache_select
func choose(need uint64, now int64, keys, n uint32) int32 {
	if exported == nil {
		return -int32(abi.StatusUnavailable)
	}
	chosen, status := exported.choose(need, now, int(n))
	if status != abi.StatusOK {
		return -int32(status)
	}
	if len(chosen) > 0 {
		copy(unsafe.Slice((*sdk.Key)(unsafe.Pointer(uintptr(keys))), len(chosen)), chosen)
	}
	return int32(len(chosen))
}

//go:wasmexport imgcache_snapshot
func snapshot(p, n uint32) int32 {
	if exported == nil {
		return -int32(abi.StatusUnavailable)
	}
	b, status := exported.snapshot()
	if status != abi.StatusOK {
		return -int32(status)
	}
	return give(b, p, n)
}

//go:wasmexport imgcache_restore
func restore(p, n uint32) uint32 {
	if exported == nil {
		return uint32(abi.StatusUnavailable)
	}
	return uint32(exported.restore(memory(p, n)))
}
