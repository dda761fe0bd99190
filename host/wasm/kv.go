package wasm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/tetratelabs/wazero/api"

	"github.com/imgcache/imgcache-host/host/kv"
	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// storeName is the file of a plugin's keys and values in its directory.
const storeName = "kv"

// openStore opens the store of a driver that asks for one.
func (m *Module) openStore(ctx context.Context, dir string) error {
	if m.store != nil || m.manifest.Kind != sdk.KindDriver || !m.manifest.Asks(sdk.GrantKV) {
		return nil
	}
	if dir == "" {
		return fmt.Errorf("%w: the module requests %q, but has no directory of its own", sdk.ErrUnavailable, sdk.GrantKV)
	}
	store, aside, err := kv.Open(ctx, filepath.Join(dir, storeName), m.opts.State)
	if err != nil {
		return err
	}
	if aside != "" {
		m.opts.Log.Error("the store of keys and values was damaged: the plugin begins with an empty one", "damaged", aside)
	}
	m.store = store
	return nil
}

func (m *Module) kvGet(_ context.Context, mod api.Module, key, keyLen, buf, room uint32) int32 {
	name, out := view(mod, abi.ImportKVGet, key, keyLen), view(mod, abi.ImportKVGet, buf, room)
	size := 0
	err := m.withStore(func(s *kv.Store) error {
		return s.Get(name, func(value []byte) {
			if size = len(value); size <= len(out) {
				copy(out, value)
			}
		})
	})
	return m.kvAnswer(abi.ImportKVGet, size, err)
}

// kvScan writes as many pairs as there is room for. If even the first does not
// fit, it returns the size of that pair.
func (m *Module) kvScan(_ context.Context, mod api.Module, prefix, prefixLen, after, afterLen, buf, room uint32) int32 {
	out := view(mod, abi.ImportKVScan, buf, room)[:0:room]
	from, start := view(mod, abi.ImportKVScan, prefix, prefixLen), view(mod, abi.ImportKVScan, after, afterLen)
	size := 0
	err := m.withStore(func(s *kv.Store) error {
		return s.Scan(from, start, func(p abi.Pair) bool {
			need := size + abi.PairLen(p)
			fits := need <= cap(out)
			if fits {
				out = abi.AppendPair(out, p)
			}
			if fits || size == 0 {
				size = need
			}
			return fits
		})
	})
	return m.kvAnswer(abi.ImportKVScan, size, err)
}

func (m *Module) kvWrite(_ context.Context, mod api.Module, pairs, size uint32) uint32 {
	changes := view(mod, abi.ImportKVWrite, pairs, size)
	err := m.withStore(func(s *kv.Store) error { return s.Write(changes) })
	return uint32(-m.kvAnswer(abi.ImportKVWrite, 0, err))
}

func (m *Module) withStore(f func(*kv.Store) error) error {
	if m.store == nil {
		return fmt.Errorf("%w: keys and values can be used from imgcache_configure on, by drivers whose manifest requests %q", sdk.ErrUnsupported, sdk.GrantKV)
	}
	return f(m.store)
}

// kvAnswer is the result of a function: a size, or a status with its sign
// changed. It logs the reason of a failure, which a status cannot express.
func (m *Module) kvAnswer(name string, size int, err error) int32 {
	if err == nil {
		return int32(size)
	}
	if !errors.Is(err, sdk.ErrNotFound) {
		m.output.line(slogLevel(2), []byte(name+": "+err.Error()))
	}
	return -int32(abi.StatusOf(err))
}
