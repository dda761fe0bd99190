package sdktest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Subject is a driver under test, with what its records need.
type Subject struct {
	Driver sdk.Driver

	// Create makes the file of an image, Remove removes it; neither minds when
	// that is so already. They are nil for a driver that looks at no files.
	Create, Remove func(id string)

	// Entries is how many the largest case has; 0: 10000, or 100000 when
	// IMGCACHE_TEST_ALL is set.
	Entries int
}

// Driver holds a driver to every sentence of [sdk.Driver]. open returns one
// over a new, empty store; what it takes to close it open leaves to the
// Cleanup of its test.
func Driver[S Runner[S]](t S, open func(S) Subject) {
	t.Helper()
	for _, c := range driverCases {
		t.Run(c.name, func(t S) {
			t.Helper()
			c.run(newStore(t, open(t)))
		})
	}
}

// Durable holds a driver to what it promises of a restart. For each case open
// returns a function that opens one and the same store: an empty one at
// first, later as it was left. The driver opened before is abandoned, not
// closed: a process may be killed by that function, but is never asked to end.
func Durable[S Runner[S]](t S, open func(S) func() Subject) {
	t.Helper()
	for _, c := range durableCases {
		t.Run(c.name, func(t S) {
			t.Helper()
			reopen := open(t)
			s := newStore(t, reopen())
			c.run(s, func() { s.Subject = reopen() })
		})
	}
}

// at is a time with microseconds, which every driver keeps.
var at = time.Date(2026, 11, 23, 1, 2, 3, 456789000, time.UTC)

// aSource is the source that cases write with unless they need two.
const aSource = "00000000000000000000000000000001"

// store is a driver in a test, with the number of its last batch.
type store struct {
	T
	Subject
	seq  uint64
	last map[string]uint64 // of each source, that was acknowledged
}

func (s Subject) entries() int {
	switch {
	case s.Entries > 0:
		return s.Entries
	case os.Getenv("IMGCACHE_TEST_ALL") != "":
		return 100_000
	}
	return 10_000
}

func newStore(t T, d Subject) *store { return &store{T: t, Subject: d, last: map[string]uint64{}} }

// Apply brings the files to where they are when the host sends b, and calls
// the driver.
func (s *store) Apply(ctx context.Context, b sdk.Batch) error {
	next := b.Seq == s.last[b.Source]+1
	if s.Create != nil && next && b.Validate() == nil {
		s.files(b)
	}
	err := s.Driver.Apply(ctx, b)
	if next && err == nil {
		s.last[b.Source] = b.Seq
	}
	return err
}

// files makes the files that images have after a batch, and removes the
// others of it.
func (s *store) files(b sdk.Batch) {
	there := map[string]bool{}
	for _, op := range b.Ops {
		if op.Kind != sdk.OpTouch {
			there[op.Entry.ID] = op.Kind == sdk.OpPut
		}
	}
	for id, exists := range there {
		if exists {
			s.Create(id)
		} else {
			s.Remove(id)
		}
	}
}

// List lists what the driver has.
func (s *store) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	return s.Driver.List(ctx, yield)
}

func (s *store) next(ops ...sdk.Op) sdk.Batch {
	s.seq++
	return sdk.Batch{Source: aSource, Seq: s.seq, Ops: ops}
}

// apply applies operations as the next batch.
func (s *store) apply(ops ...sdk.Op) {
	s.Helper()
	s.must(s.next(ops...))
}

func (s *store) must(b sdk.Batch) {
	s.Helper()
	if err := s.Apply(s.Context(), b); err != nil {
		s.Fatalf("Apply(batch %d of %d operations) = %v, want nil", b.Seq, len(b.Ops), err)
	}
}

func (s *store) mustRefuse(b sdk.Batch) {
	s.Helper()
	if err := s.Apply(s.Context(), b); !errors.Is(err, sdk.ErrInvalid) {
		s.Fatalf("Apply(batch %d of %d operations) = %v, want %v", b.Seq, len(b.Ops), err, sdk.ErrInvalid)
	}
}

// list returns all entries in the order of their ids, times in whole
// microseconds, and fails if an id comes twice.
func (s *store) list() []sdk.Entry {
	s.Helper()
	var all []sdk.Entry
	err := s.List(s.Context(), func(entries []sdk.Entry) error {
		all = append(all, entries...)
		return nil
	})
	if err != nil {
		s.Fatalf("List() = %v, want nil", err)
	}
	return s.normal(all)
}

func (s *store) normal(list []sdk.Entry) []sdk.Entry {
	s.Helper()
	list = slices.Clone(list)
	for i := range list {
		e := &list[i]
		e.LastAccessed = e.LastAccessed.Truncate(time.Microsecond).UTC()
		e.LastModified = e.LastModified.Truncate(time.Microsecond).UTC()
	}
	slices.SortFunc(list, func(a, b sdk.Entry) int { return cmp.Compare(a.ID, b.ID) })
	for i := 1; i < len(list); i++ {
		if list[i].ID == list[i-1].ID {
			s.Fatalf("List yields %q twice", list[i].ID)
		}
	}
	return list
}

// want fails unless the store holds just these entries.
func (s *store) want(want ...sdk.Entry) {
	s.Helper()
	if diff := differ(s.list(), s.normal(want)); diff != "" {
		s.Fatalf("%s", diff)
	}
}

// differ describes the first difference of two sorted lists, "" for none.
func differ(got, want []sdk.Entry) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got) || i < len(want) && got[i].ID > want[i].ID:
			return fmt.Sprintf("no entry %q, want %v", want[i].ID, want[i])
		case i >= len(want) || got[i].ID < want[i].ID:
			return fmt.Sprintf("entry %v, want none of that id", got[i])
		case !same(got[i], want[i]):
			return fmt.Sprintf("entry\n\t%v, want\n\t%v", got[i], want[i])
		}
	}
	return ""
}

func same(a, b sdk.Entry) bool {
	return a.ID == b.ID && a.Version == b.Version && a.Size == b.Size && a.Hits == b.Hits &&
		a.LastAccessed.Equal(b.LastAccessed) && a.LastModified.Equal(b.LastModified)
}

// entry returns an entry like those that the host puts.
func entry(id string) sdk.Entry {
	return sdk.Entry{ID: id, Version: `"v1"`, Size: 1 << 20, LastAccessed: at, LastModified: at}
}

// many returns n entries.
func many(n int) []sdk.Entry {
	list := make([]sdk.Entry, n)
	for i := range list {
		list[i] = entry(fmt.Sprintf("image-%07d", i))
		list[i].Size = int64(i)
	}
	return list
}

func puts(entries []sdk.Entry) []sdk.Op {
	ops := make([]sdk.Op, len(entries))
	for i, e := range entries {
		ops[i] = sdk.Put(e)
	}
	return ops
}

// cancelled returns a context that has ended.
func cancelled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}
