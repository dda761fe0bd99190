// Package guest exports a policy from a WebAssembly module. A policy is one
// file,
//
//	package main
//
//	func init() { guest.Export(manifest, sdk.ScoreFunc(score)) }
//
//	func main() {}
//
// built by
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o policy.wasm
//
// Package pluginproto/abi has the ABI. On other platforms the package
// compiles, so that a policy can be tested without WebAssembly.
package guest

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// exported is what the module holds; nil until Export is called.
var exported *module

type module struct {
	manifest sdk.Manifest
	policy   any

	records []sdk.Record // kept between calls, as is the rest
	events  []sdk.Event
	scores  []float64
}

// Export makes policy, an sdk.Scorer or sdk.Stateful, the one of this module.
// It is called from init, once: main does not run in a module.
func Export(m sdk.Manifest, policy any) { exported = &module{manifest: m, policy: policy} }

// configure gives the policy its options.
func (m *module) configure(kv []byte) abi.Status {
	options, err := abi.ParseConfig(kv)
	if err != nil {
		return abi.StatusOf(err)
	}
	c, ok := m.policy.(sdk.Configurer)
	if !ok {
		return abi.StatusOK
	}
	return abi.StatusOf(c.Configure(context.Background(), sdk.Settings{Options: options}))
}

// score scores a frame of records; the scores stay valid until the next call.
func (m *module) score(frame []byte) ([]float64, abi.Status) {
	p, ok := m.policy.(sdk.Scorer)
	if !ok {
		return nil, abi.StatusUnsupported
	}
	now, records, err := abi.Records(m.records[:0], frame)
	if err != nil {
		return nil, abi.StatusOf(err)
	}
	m.records = records
	if cap(m.scores) < len(records) {
		m.scores = make([]float64, len(records))
	}
	m.scores = m.scores[:len(records)]
	err = p.Score(context.Background(), time.Unix(0, now), records, m.scores)
	return m.scores, abi.StatusOf(err)
}

// observe takes a frame of events.
func (m *module) observe(frame []byte) abi.Status {
	p, ok := m.policy.(sdk.Stateful)
	if !ok {
		return abi.StatusUnsupported
	}
	_, events, err := abi.Events(m.events[:0], frame)
	if err != nil {
		return abi.StatusOf(err)
	}
	m.events = events
	return abi.StatusOf(p.Observe(context.Background(), events))
}

// choose proposes at most limit keys.
func (m *module) choose(need uint64, now int64, limit int) ([]sdk.Key, abi.Status) {
	p, ok := m.policy.(sdk.Stateful)
	if !ok {
		return nil, abi.StatusUnsupported
	}
	keys, err := p.Select(context.Background(), time.Unix(0, now), need, limit)
	return keys[:min(len(keys), limit)], abi.StatusOf(err)
}

// snapshot returns the state.
func (m *module) snapshot() ([]byte, abi.Status) {
	p, ok := m.policy.(sdk.Snapshotter)
	if !ok {
		return nil, abi.StatusUnsupported
	}
	b, err := p.Snapshot(context.Background())
	return b, abi.StatusOf(err)
}

// restore replaces the state.
func (m *module) restore(b []byte) abi.Status {
	p, ok := m.policy.(sdk.Snapshotter)
	if !ok {
		return abi.StatusUnsupported
	}
	return abi.StatusOf(p.Restore(context.Background(), b))
}

// frameSize is how many bytes a frame has that begins with this header.
func frameSize(header []byte) uint64 {
	le := binary.LittleEndian
	size, stride, count := le.Uint32(header[0:]), le.Uint32(header[4:]), le.Uint32(header[8:])
	return uint64(size) + uint64(stride)*uint64(count)
}
