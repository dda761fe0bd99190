package wasm

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// guest is one instance of a module.
type guest struct {
	mod    api.Module
	output *output
	in     block // frames and other input
	out    block // scores, keys, snapshots
}

// block is a piece of the guest's memory that the host owns and uses again.
type block struct{ ptr, size uint32 }

// trapError says that the instance cannot be used any more.
type trapError struct{ err error }

func (e *trapError) Error() string { return e.err.Error() }
func (e *trapError) Unwrap() error { return e.err }

// call calls an export, and returns its result if it has one.
func (g *guest) call(ctx context.Context, name string, args ...uint64) (uint32, error) {
	g.output.reset()
	results, err := g.mod.ExportedFunction(name).Call(ctx, args...)
	if err != nil {
		return 0, &trapError{fmt.Errorf("%w: %s: %w", sdk.ErrUnavailable, name, g.output.explain(err))}
	}
	if len(results) == 0 {
		return 0, nil
	}
	return uint32(results[0]), nil
}

// status calls an export that answers a status.
func (g *guest) status(ctx context.Context, name string, args ...uint64) error {
	status, err := g.call(ctx, name, args...)
	if err != nil {
		return err
	}
	if err := abi.Status(status).Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// number calls an export that answers a number, or a status with its sign
// turned.
func (g *guest) number(ctx context.Context, name string, args ...uint64) (int, error) {
	result, err := g.call(ctx, name, args...)
	if err != nil {
		return 0, err
	}
	if n := int32(result); n >= 0 {
		return int(n), nil
	}
	return 0, fmt.Errorf("%s: %w", name, abi.Status(-int64(int32(result))).Err())
}

// reserve makes sure that b has n bytes.
func (g *guest) reserve(ctx context.Context, b *block, n int) error {
	if uint64(n) <= uint64(b.size) {
		return nil
	}
	if b.size > 0 {
		if _, err := g.call(ctx, abi.FuncFree, uint64(b.ptr), uint64(b.size)); err != nil {
			return err
		}
		*b = block{}
	}
	size := uint32(n)
	ptr, err := g.call(ctx, abi.FuncAlloc, uint64(size))
	if err != nil {
		return err
	}
	if ptr == 0 || ptr%8 != 0 || uint64(ptr)+uint64(size) > uint64(g.mod.Memory().Size()) {
		return fmt.Errorf("%w: %s(%d) answered %#x: no memory, or none of the module's", sdk.ErrUnavailable, abi.FuncAlloc, size, ptr)
	}
	*b = block{ptr, size}
	return nil
}

// give copies p into the guest's memory.
func (g *guest) give(ctx context.Context, p []byte) error {
	if err := g.reserve(ctx, &g.in, max(len(p), 1)); err != nil {
		return err
	}
	if !g.mod.Memory().Write(g.in.ptr, p) {
		return fmt.Errorf("%w: the module's memory has shrunk", sdk.ErrUnavailable)
	}
	return nil
}

// take returns n bytes of the output block. They are valid until the next
// call.
func (g *guest) take(n int) ([]byte, error) {
	p, ok := g.mod.Memory().Read(g.out.ptr, uint32(n))
	if !ok {
		return nil, fmt.Errorf("%w: the module's memory has shrunk", sdk.ErrUnavailable)
	}
	return p, nil
}

func (g *guest) configure(ctx context.Context, options sdk.Config) error {
	if g.mod.ExportedFunction(abi.FuncConfigure) == nil {
		return nil
	}
	kv := abi.AppendConfig(nil, options)
	if err := g.give(ctx, kv); err != nil {
		return err
	}
	return g.status(ctx, abi.FuncConfigure, uint64(g.in.ptr), uint64(len(kv)))
}

func (g *guest) score(ctx context.Context, now time.Time, records []sdk.Record, scores []float64) error {
	if err := g.give(ctx, abi.AppendRecords(nil, now.UnixNano(), records)); err != nil {
		return err
	}
	if err := g.reserve(ctx, &g.out, 8*max(len(records), 1)); err != nil {
		return err
	}
	if err := g.status(ctx, abi.FuncScore, uint64(g.in.ptr), uint64(g.out.ptr)); err != nil {
		return err
	}
	b, err := g.take(8 * len(records))
	if err != nil {
		return err
	}
	for i := range scores {
		scores[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return nil
}

func (g *guest) observe(ctx context.Context, events []sdk.Event) error {
	if err := g.give(ctx, abi.AppendEvents(nil, 0, events)); err != nil {
		return err
	}
	return g.status(ctx, abi.FuncObserve, uint64(g.in.ptr))
}

func (g *guest) choose(ctx context.Context, now time.Time, need uint64, limit int) ([]sdk.Key, error) {
	if err := g.reserve(ctx, &g.out, 8*max(limit, 1)); err != nil {
		return nil, err
	}
	n, err := g.number(ctx, abi.FuncSelect, need, uint64(now.UnixNano()), uint64(g.out.ptr), uint64(limit))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%w: %s answered %d keys, at most %d were wanted", sdk.ErrUnavailable, abi.FuncSelect, n, limit)
	}
	b, err := g.take(8 * n)
	keys := make([]sdk.Key, len(b)/8)
	for i := range keys {
		keys[i] = sdk.Key(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return keys, err
}

// bytes calls an export that fills a buffer of any size: it is called again
// when the first buffer was too small.
func (g *guest) bytes(ctx context.Context, name string, first int) ([]byte, error) {
	size := first
	for range 2 {
		if err := g.reserve(ctx, &g.out, size); err != nil {
			return nil, err
		}
		n, err := g.number(ctx, name, uint64(g.out.ptr), uint64(size))
		if err != nil {
			return nil, err
		}
		if n <= size {
			b, err := g.take(n)
			return append([]byte(nil), b...), err
		}
		size = n
	}
	return nil, fmt.Errorf("%w: %s keeps asking for more memory", sdk.ErrUnavailable, name)
}

func (g *guest) restore(ctx context.Context, snapshot []byte) error {
	if err := g.give(ctx, snapshot); err != nil {
		return err
	}
	return g.status(ctx, abi.FuncRestore, uint64(g.in.ptr), uint64(len(snapshot)))
}
