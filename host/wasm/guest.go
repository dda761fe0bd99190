package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// guest is one instance of a module.
type guest struct {
	mod    api.Module
	output *output
	in     block // frames, options, snapshots to restore, ids
	out    block // scores, keys, snapshots, pages
}

func (g *guest) close(ctx context.Context) { _ = g.mod.Close(context.WithoutCancel(ctx)) }

// call calls an export and returns its result, 0 if it has none. An error is
// a *trap.
func (g *guest) call(ctx context.Context, name string, args ...uint64) (uint32, error) {
	g.output.begin()
	results, err := g.mod.ExportedFunction(name).Call(ctx, args...)
	if err != nil {
		return 0, g.output.trap(name, err)
	}
	if len(results) == 0 {
		return 0, nil
	}
	return uint32(results[0]), nil
}

// status calls an export that returns a status.
func (g *guest) status(ctx context.Context, name string, args ...uint64) error {
	result, err := g.call(ctx, name, args...)
	if err != nil {
		return err
	}
	return g.failure(name, abi.Status(result))
}

// number calls an export that returns a number, or a status with its sign
// changed.
func (g *guest) number(ctx context.Context, name string, args ...uint64) (int, error) {
	result, err := g.call(ctx, name, args...)
	if err != nil {
		return 0, err
	}
	if n := int32(result); n >= 0 {
		return int(n), nil
	}
	return 0, g.failure(name, abi.Status(-result))
}

// failure is the error that a status stands for, with what the module printed
// about it.
func (g *guest) failure(name string, s abi.Status) error {
	err := s.Err()
	if err == nil {
		return nil
	}
	if said := strings.TrimPrefix(g.output.lastWords(), err.Error()+": "); said != "" {
		return fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (g *guest) configure(ctx context.Context, options sdk.Config) error {
	if g.mod.ExportedFunction(abi.FuncConfigure) == nil {
		return nil
	}
	text := abi.AppendConfig(nil, options)
	p, err := g.give(ctx, text)
	if err != nil {
		return err
	}
	return g.status(ctx, abi.FuncConfigure, p, uint64(len(text)))
}

// score scores a frame of as many records as there is room for scores.
func (g *guest) score(ctx context.Context, frame []byte, scores []float64) error {
	out, err := g.room(ctx, 8*len(scores))
	if err != nil {
		return err
	}
	in, err := g.give(ctx, frame)
	if err != nil {
		return err
	}
	if err := g.status(ctx, abi.FuncScore, in, out); err != nil {
		return err
	}
	b := g.taken(8 * len(scores))
	for i := range scores {
		scores[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return nil
}

// observe passes on a frame of events.
func (g *guest) observe(ctx context.Context, frame []byte) error {
	in, err := g.give(ctx, frame)
	if err != nil {
		return err
	}
	return g.status(ctx, abi.FuncObserve, in)
}

// choose asks for at most limit keys.
func (g *guest) choose(ctx context.Context, now time.Time, need uint64, limit int) ([]sdk.Key, error) {
	out, err := g.room(ctx, 8*limit)
	if err != nil {
		return nil, err
	}
	n, err := g.number(ctx, abi.FuncSelect, need, uint64(now.UnixNano()), out, uint64(limit))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%w: %s returned %d keys; expected at most %d", sdk.ErrUnavailable, abi.FuncSelect, n, limit)
	}
	b := g.taken(8 * n)
	keys := make([]sdk.Key, n)
	for i := range keys {
		keys[i] = sdk.Key(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return keys, nil
}

func (g *guest) manifest(ctx context.Context) ([]byte, error) {
	if g.mod.ExportedFunction(abi.FuncManifest) == nil {
		return nil, fmt.Errorf("%w: the module has neither the custom section %s nor the export %s",
			sdk.ErrInvalid, abi.ManifestSection, abi.FuncManifest)
	}
	return g.text(ctx, abi.FuncManifest)
}

// text calls an export that fills a buffer.
func (g *guest) text(ctx context.Context, name string) ([]byte, error) {
	const usual = 4 << 10 // enough for most manifests
	return g.fill(ctx, usual, name)
}

// fill calls an export whose last arguments are a buffer and its size. If the
// buffer is too small, it calls the export again with a larger one.
func (g *guest) fill(ctx context.Context, usual int, name string, args ...uint64) ([]byte, error) {
	size := max(usual, int(g.out.size))
	for range 2 {
		out, err := g.room(ctx, size)
		if err != nil {
			return nil, err
		}
		n, err := g.number(ctx, name, append(args[:len(args):len(args)], out, uint64(size))...)
		switch {
		case err != nil:
			return nil, err
		case n <= size:
			return bytes.Clone(g.taken(n)), nil
		}
		size = n
	}
	return nil, fmt.Errorf("%w: %s asks for a larger buffer each time", sdk.ErrUnavailable, name)
}

func (g *guest) restore(ctx context.Context, snapshot []byte) error {
	in, err := g.give(ctx, snapshot)
	if err != nil {
		return err
	}
	return g.status(ctx, abi.FuncRestore, in, uint64(len(snapshot)))
}
