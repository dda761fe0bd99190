package sdktest

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/imgcache/imgcache-host/sdk"
)

// listBatch is how many entries [Memory] lists at once: enough for two
// batches in a small test.
const listBatch = 100

// Memory is the reference driver: it keeps everything in memory and does what
// the contract says in the plainest way. Its zero value is empty and ready.
type Memory struct {
	mu      sync.Mutex
	entries map[string]sdk.Entry
	last    map[string]uint64 // by source
}

var _ sdk.Driver = (*Memory)(nil)

// List implements [sdk.Driver].
func (m *Memory) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	for batch := range slices.Chunk(m.Entries(), listBatch) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := yield(batch); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Apply implements [sdk.Driver].
func (m *Memory) Apply(ctx context.Context, b sdk.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if fresh, err := b.Admit(m.last[b.Source]); !fresh {
		return err
	}
	if m.last == nil {
		m.entries, m.last = map[string]sdk.Entry{}, map[string]uint64{}
	}
	for _, op := range b.Ops {
		old, exists := m.entries[op.Entry.ID]
		if e, keep := op.Apply(old, exists); keep {
			m.entries[e.ID] = e
		} else {
			delete(m.entries, op.Entry.ID)
		}
	}
	m.last[b.Source] = b.Seq
	return nil
}

// Entries returns all entries in the order of their ids.
func (m *Memory) Entries() []sdk.Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]sdk.Entry, 0, len(m.entries))
	for _, e := range m.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b sdk.Entry) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Last returns the number of the last batch of a source, 0 when it is unknown.
func (m *Memory) Last(source string) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last[source]
}
