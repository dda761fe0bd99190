// Package drivertest has drivers that misbehave, for the tests of the engine and
// its parts.
package drivertest

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// applyLate is when a slow driver applies a batch: after the host has given up,
// which it does after half a minute.
const applyLate = time.Minute

// Faulty is an in-memory driver that keeps the contract and fails in
// every way that the contract allows.
type Faulty struct {
	mu      sync.Mutex
	rng     *rand.Rand
	faults  bool
	entries map[string]sdk.Entry
	last    map[string]uint64
}

// NewFaulty returns a driver whose faults follow from the seed.
func NewFaulty(seed uint64) *Faulty {
	return &Faulty{
		rng: rand.New(rand.NewPCG(seed, 3)), faults: true,
		entries: map[string]sdk.Entry{}, last: map[string]uint64{},
	}
}

func (d *Faulty) fault() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.faults {
		return 100
	}
	return d.rng.IntN(10)
}

// Apply implements [sdk.Driver].
func (d *Faulty) Apply(ctx context.Context, b sdk.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	switch d.fault() {
	case 0: // it died before
		return sdk.ErrUnavailable
	case 1: // it applied the batch, and died before it could say so
		if err := d.apply(b); err != nil {
			return err
		}
		return sdk.ErrUnavailable
	case 2: // it is slow, and applies after the caller has given up
		go func() {
			time.Sleep(applyLate)
			_ = d.apply(b)
		}()
		<-ctx.Done()
		return ctx.Err()
	}
	return d.apply(b)
}

// Settle ends the faults.
func (d *Faulty) Settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = false
}

// Records returns a copy of what is stored.
func (d *Faulty) Records() map[string]sdk.Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Clone(d.entries)
}

// Change calls f with the stored records and the number of the last batch of
// each source.
func (d *Faulty) Change(f func(entries map[string]sdk.Entry, last map[string]uint64)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.entries, d.last)
}

// Wipe loses everything, as if the driver's store were replaced by an empty one.
func (d *Faulty) Wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries, d.last = map[string]sdk.Entry{}, map[string]uint64{}
}

func (d *Faulty) apply(b sdk.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ok, err := b.Admit(d.last[b.Source])
	if !ok {
		return err
	}
	for _, op := range b.Ops {
		Apply(d.entries, op)
	}
	d.last[b.Source] = b.Seq
	return nil
}

// List implements [sdk.Driver].
func (d *Faulty) List(_ context.Context, yield func([]sdk.Entry) error) error {
	if d.fault() == 0 {
		return sdk.ErrUnavailable
	}
	d.mu.Lock()
	var list []sdk.Entry
	for _, e := range d.entries {
		list = append(list, e)
	}
	d.mu.Unlock()
	return yield(list)
}

// Severable is a driver that can be cut off.
type Severable struct {
	sdk.Driver
	Severed atomic.Bool
}

// Apply implements [sdk.Driver].
func (s *Severable) Apply(ctx context.Context, b sdk.Batch) error {
	if s.Severed.Load() {
		return sdk.ErrUnavailable
	}
	return s.Driver.Apply(ctx, b)
}

// Clone returns a copy of records.
func Clone(m map[string]sdk.Entry) map[string]sdk.Entry {
	c := map[string]sdk.Entry{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

// Apply applies an operation to records.
func Apply(m map[string]sdk.Entry, op sdk.Op) {
	old, exists := m[op.Entry.ID]
	e, exists := op.Apply(old, exists)
	if exists {
		m[op.Entry.ID] = e
	} else {
		delete(m, op.Entry.ID)
	}
}

// WantHits checks that a driver has records with these hits, and no others.
func WantHits(t *testing.T, name string, d *sdktest.Memory, want map[string]uint64) {
	t.Helper()
	got := map[string]uint64{}
	for _, e := range d.Entries() {
		got[e.ID] = e.Hits
	}
	for id, hits := range want {
		if n, ok := got[id]; !ok || n != hits {
			t.Errorf("%s has %d hits of %s (a record: %v), want %d", name, n, id, ok, hits)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s has the records %v, want %v", name, got, want)
	}
}
