package wasm

import (
	"context"
	"fmt"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
)

// block is a part of the module's memory that the host asked for. Later calls
// use it again.
type block struct{ ptr, size uint32 }

// reserve gives b at least n bytes. When it grows, its content is lost.
func (g *guest) reserve(ctx context.Context, b *block, n int) error {
	if n <= int(b.size) {
		return nil
	}
	if b.size > 0 {
		old := *b
		*b = block{}
		if _, err := g.call(ctx, abi.FuncFree, uint64(old.ptr), uint64(old.size)); err != nil {
			return err
		}
	}
	const unit = 4 << 10 // so that a slightly larger batch still fits
	size := (uint32(n) + unit - 1) / unit * unit
	result, err := g.call(ctx, abi.FuncAlloc, uint64(size))
	if err != nil {
		return err
	}
	ptr := uint32(result)
	switch {
	case ptr == 0:
		return g.output.trap(abi.FuncAlloc, fmt.Errorf("the module has no memory for %d bytes", size))
	case ptr%8 != 0:
		return g.output.trap(abi.FuncAlloc, fmt.Errorf("returned the address %d, which is not aligned to 8", ptr))
	case uint64(ptr)+uint64(size) > uint64(g.mod.Memory().Size()):
		return g.output.trap(abi.FuncAlloc, fmt.Errorf("returned the address %d, which is outside of the module's memory", ptr))
	}
	*b = block{ptr, size}
	return nil
}

// give copies p into the block of input and returns its address.
func (g *guest) give(ctx context.Context, p []byte) (uint64, error) {
	if err := g.reserve(ctx, &g.in, max(1, len(p))); err != nil {
		return 0, err
	}
	g.mod.Memory().Write(g.in.ptr, p) // cannot fail: a memory never shrinks
	return uint64(g.in.ptr), nil
}

// room makes the block of output large enough and returns its address.
func (g *guest) room(ctx context.Context, n int) (uint64, error) {
	err := g.reserve(ctx, &g.out, max(1, n))
	return uint64(g.out.ptr), err
}

// taken returns the first n bytes of the block of output. They are the
// module's memory, valid until the next call.
func (g *guest) taken(n int) []byte {
	p, _ := g.mod.Memory().Read(g.out.ptr, uint32(n))
	return p
}
