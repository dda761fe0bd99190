// Package guest exports a policy or a driver from a WebAssembly module that is
// written in Go. The author registers it in an init function,
//
//	func init() { guest.Export(manifest, policy) }
//
//	func main() {}
//
// because main does not run in a module, and builds with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o NAME.wasm
//
// What the plugin writes to standard error appears in the log of the host. A
// panic ends the instance, and the host goes on with a new one. On other
// platforms the package compiles, so that a plugin can be tested without
// WebAssembly. A driver keeps its records with package kv.
package guest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// exported is what the functions of the module serve.
var exported module

// Export registers the plugin of the module: an sdk.Scorer, an sdk.Stateful or
// a [Driver], as m says, with sdk.Snapshotter if m declares it, and
// sdk.Configurer if it wants its options. It is called once, from an init
// function, and panics when m and impl do not fit together.
func Export(m sdk.Manifest, impl any) {
	if exported.impl != nil {
		panic("guest.Export: called twice")
	}
	if err := m.Fits(impl); err != nil {
		panic("guest.Export: " + err.Error())
	}
	if _, ok := impl.(Driver); m.Kind == sdk.KindDriver && !ok {
		panic(fmt.Sprintf("guest.Export: %T has no ListAfter, as the driver of a module must", impl))
	}
	exported = module{manifest: m, impl: impl}
}

// module is a plugin behind the functions of the ABI. They work on slices of
// the module's memory, which makes them testable everywhere.
type module struct {
	manifest sdk.Manifest
	impl     any // nil: nothing is exported

	records  []sdk.Record // reused from call to call
	events   []sdk.Event
	page     []sdk.Entry
	snapshot []byte // that did not fit into the buffer; nil: none
}

// lacks answers the call of a form that the plugin does not have.
func (m *module) lacks() abi.Status {
	if m.impl == nil {
		return abi.StatusUnavailable
	}
	return abi.StatusUnsupported
}

// answer turns an error into a status. The text, which a status cannot carry,
// goes to standard error.
func answer(err error) abi.Status {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return abi.StatusOf(err)
}

// failed is the status of a function that answers a number.
func failed(s abi.Status) int32 { return -int32(s) }

// fill copies data to buf if it fits, and answers its length.
func fill(buf, data []byte) int32 {
	if len(data) > math.MaxInt32 {
		return failed(abi.StatusUnavailable)
	}
	if len(data) <= len(buf) {
		copy(buf, data)
	}
	return int32(len(data))
}

func (m *module) writeManifest(buf []byte) int32 {
	if m.impl == nil {
		return failed(m.lacks())
	}
	text, err := json.Marshal(m.manifest)
	if err != nil {
		return failed(answer(err))
	}
	return fill(buf, text)
}

func (m *module) configure(options []byte) abi.Status {
	if m.impl == nil {
		return m.lacks()
	}
	p, ok := m.impl.(sdk.Configurer)
	if !ok {
		return abi.StatusOK // it does not want to know
	}
	config, err := abi.ParseConfig(options)
	if err != nil {
		return answer(err)
	}
	return answer(p.Configure(context.Background(), sdk.Settings{Options: config}))
}

// score writes the scores of a frame of records.
func (m *module) score(frame []byte, scores []float64) abi.Status {
	if _, ok := m.impl.(sdk.Scorer); !ok {
		return m.lacks()
	}
	now, records, err := abi.Records(m.records[:0], frame)
	m.records = records
	if err == nil && len(scores) != len(records) {
		err = fmt.Errorf("%w: expected room for %d scores, got room for %d", sdk.ErrInvalid, len(records), len(scores))
	}
	if err != nil {
		return answer(err)
	}
	return m.scoreRecords(now, records, scores)
}

func (m *module) scoreRecords(now int64, records []sdk.Record, scores []float64) abi.Status {
	p, ok := m.impl.(sdk.Scorer)
	if !ok {
		return m.lacks()
	}
	return answer(p.Score(context.Background(), time.Unix(0, now), records, scores))
}

func (m *module) observe(frame []byte) abi.Status {
	p, ok := m.impl.(sdk.Stateful)
	if !ok {
		return m.lacks()
	}
	m.snapshot = nil
	_, events, err := abi.Events(m.events[:0], frame)
	m.events = events
	if err != nil {
		return answer(err)
	}
	return answer(p.Observe(context.Background(), events))
}

// choose writes the proposed keys to keys, 8 bytes each, and answers their
// number. A policy that proposes more than it was asked for is found out by
// the host.
func (m *module) choose(need uint64, now int64, keys []byte) int32 {
	p, ok := m.impl.(sdk.Stateful)
	if !ok {
		return failed(m.lacks())
	}
	m.snapshot = nil // the question may have moved a hand
	limit := len(keys) / 8
	proposed, err := p.Select(context.Background(), time.Unix(0, now), need, limit)
	if err != nil {
		return failed(answer(err))
	}
	for i, k := range proposed[:min(len(proposed), limit)] {
		binary.LittleEndian.PutUint64(keys[8*i:], uint64(k))
	}
	return int32(len(proposed))
}

// writeSnapshot writes the snapshot to buf if it fits, and answers its length.
// One that does not fit is kept for the next call, which comes with more room.
func (m *module) writeSnapshot(buf []byte) int32 {
	p, ok := m.impl.(sdk.Snapshotter)
	if !ok {
		return failed(m.lacks())
	}
	snapshot := m.snapshot
	if snapshot == nil {
		var err error
		if snapshot, err = p.Snapshot(context.Background()); err != nil {
			return failed(answer(err))
		}
	}
	m.snapshot = nil
	if len(snapshot) > len(buf) {
		m.snapshot = snapshot
	}
	return fill(buf, snapshot)
}

func (m *module) restore(snapshot []byte) abi.Status {
	p, ok := m.impl.(sdk.Snapshotter)
	if !ok {
		return m.lacks()
	}
	m.snapshot = nil
	return answer(p.Restore(context.Background(), snapshot))
}
