package sdktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

var listCases = []driverCase{
	{"an empty store lists nothing", listEmpty, func(s *store) { s.want() }},
	{"list yields each id once", listAll, testListOnce},
	{"an error of yield ends the listing", listStops, testListStop},
	{"the slice belongs to yield until it returns", listSlice, testListSlice},
	{"list ends with its context", deadline, testListCancelled},
	{"listings run beside each other and beside batches", concurrency, testConcurrent},
	{"list sees every batch applied before it", listSees, testListDuringApply},
	{"optional methods work or are unsupported", optional, testOptional},
}

func testListOnce(s *store) {
	all := many(s.entries())
	for batch := range slices.Chunk(all, 10_000) {
		s.apply(puts(batch)...)
	}
	s.want(all...)
	s.want(all...) // a listing changes nothing
}

func testListStop(s *store) {
	s.apply(puts(many(5000))...)
	enough := errors.New("enough")
	calls := 0
	err := s.List(s.Context(), func([]sdk.Entry) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 {
		s.Errorf("List() = %v after %d calls of yield, want the error of the first", err, calls)
	}
	s.apply(sdk.Put(entry("x"))) // a broken listing holds no lock
}

func testListSlice(s *store) {
	all := many(300)
	s.apply(puts(all)...)
	err := s.List(s.Context(), func(entries []sdk.Entry) error {
		for i := range entries {
			entries[i] = entry("scribble")
		}
		return nil
	})
	if err != nil {
		s.Fatalf("List() = %v, want nil", err)
	}
	s.want(all...)
}

func testListCancelled(s *store) {
	s.apply(puts(many(5000))...)
	if err := s.List(cancelled(s.Context()), func([]sdk.Entry) error { return nil }); err == nil {
		s.Errorf("List() with a cancelled context = nil, want an error")
	}
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	n := 0
	err := s.List(ctx, func(entries []sdk.Entry) error { cancel(); n += len(entries); return nil })
	if err == nil && n != 5000 {
		s.Errorf("List() = nil after %d entries of 5000", n)
	}
	s.apply(sdk.Put(entry("x")))
}

// testListDuringApply lists while batches are applied: a listing sees at
// least what was acknowledged before it, and each id once.
func testListDuringApply(s *store) {
	const images, rounds = 300, 15
	all := many(images)
	s.apply(puts(all)...)
	ops := make([]sdk.Op, images)
	for i := range all {
		ops[i] = sdk.Touch(all[i].ID, 1, at)
	}
	var acknowledged atomic.Uint64
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	for range 2 {
		wg.Go(func() {
			for acknowledged.Load() < rounds && ctx.Err() == nil {
				if err := listAtLeast(ctx, s, images, acknowledged.Load()); err != nil && ctx.Err() == nil {
					s.Errorf("%v", err)
					return
				}
			}
		})
	}
	for range rounds {
		s.apply(ops...)
		acknowledged.Add(1)
	}
}

// testConcurrent lists in several goroutines while batches of two sources are
// applied in turn.
func testConcurrent(s *store) {
	const images, rounds = 500, 20
	s.apply(puts(many(images))...)
	errs := make(chan error, 3)
	for range cap(errs) {
		go func() {
			errs <- func() error {
				for range rounds {
					if err := listAtLeast(s.Context(), s, images, 0); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for seq := range uint64(rounds) {
		for _, source := range []string{"b", "c"} {
			s.must(sdk.Batch{Source: source, Seq: seq + 1, Ops: []sdk.Op{sdk.Touch(many(1)[0].ID, 1, at)}})
		}
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			s.Errorf("%v", err)
		}
	}
	if hits := s.list()[0].Hits; hits != 2*rounds {
		s.Errorf("%d hits, want %d", hits, 2*rounds)
	}
}

func listAtLeast(ctx context.Context, d sdk.Driver, images int, hits uint64) error {
	seen := map[string]bool{}
	err := d.List(ctx, func(entries []sdk.Entry) error {
		for _, e := range entries {
			if seen[e.ID] {
				return fmt.Errorf("%q comes twice", e.ID)
			}
			seen[e.ID] = true
			if e.Hits < hits {
				return fmt.Errorf("%q has %d hits, %d were acknowledged", e.ID, e.Hits, hits)
			}
		}
		return nil
	})
	if err == nil && len(seen) != images {
		err = fmt.Errorf("%d entries, want %d", len(seen), images)
	}
	if err != nil {
		return fmt.Errorf("List() while batches are applied: %w", err)
	}
	return nil
}

func testOptional(s *store) {
	if h, ok := s.Driver.(sdk.Heartbeater); ok {
		if err := h.Heartbeat(s.Context()); err != nil && !errors.Is(err, sdk.ErrUnsupported) {
			s.Errorf("Heartbeat() = %v, want nil or %v", err, sdk.ErrUnsupported)
		}
	}
	if l, ok := s.Driver.(sdk.NodeLister); ok {
		nodes, err := l.Nodes(s.Context(), "nowhere")
		if err != nil && !errors.Is(err, sdk.ErrUnsupported) {
			s.Errorf("Nodes(absent id) = %v, want nil or %v", err, sdk.ErrUnsupported)
		}
		if len(nodes) != 0 {
			s.Errorf("Nodes(absent id) = %v, want none", nodes)
		}
	}
}

// modelCases apply random batches and compare with [Memory].
var modelCases = func() (cases []driverCase) {
	for seed := range uint64(4) {
		cases = append(cases, driverCase{
			name:     fmt.Sprintf("random batches have the effect of the reference, seed %d", seed),
			sentence: applyWhole,
			run:      func(s *store) { testModel(s, seed) },
		})
	}
	return cases
}()

func testModel(s *store, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	model := &Memory{}
	for step := range 200 {
		b := randomBatch(rnd, model)
		want := model.Apply(s.Context(), b)
		got := s.Apply(s.Context(), b)
		if errors.Is(got, sdk.ErrInvalid) != (want != nil) || (got == nil) != (want == nil) {
			s.Fatalf("step %d: Apply(%v) = %v, the reference says %v", step, b, got, want)
		}
		if step%20 != 19 {
			continue
		}
		if diff := differ(s.list(), s.normal(model.Entries())); diff != "" {
			s.Fatalf("step %d: %s", step, diff)
		}
	}
}

// randomBatch returns the next batch of one of two sources, now and then one
// that was applied before or leaves a gap.
func randomBatch(rnd *rand.Rand, model *Memory) sdk.Batch {
	b := sdk.Batch{Source: fmt.Sprint("source", rnd.IntN(2))}
	b.Seq = model.Last(b.Source) + 1
	switch rnd.IntN(8) {
	case 0:
		b.Seq = max(1, b.Seq-uint64(rnd.IntN(3)))
	case 1:
		b.Seq += 1 + uint64(rnd.IntN(3))
	}
	for range rnd.IntN(12) {
		e := sdk.Entry{
			ID:           fmt.Sprint("image", rnd.IntN(9)),
			Version:      fmt.Sprint("v", rnd.IntN(3)),
			Size:         rnd.Int64N(1 << 40),
			Hits:         uint64(rnd.IntN(5)),
			LastAccessed: at.Add(time.Duration(rnd.IntN(1000)) * time.Microsecond),
			LastModified: at.Add(time.Duration(rnd.IntN(1000)) * time.Microsecond),
		}
		switch rnd.IntN(5) {
		case 0:
			b.Ops = append(b.Ops, sdk.Delete(e.ID))
		case 1, 2:
			b.Ops = append(b.Ops, sdk.Put(e))
		default:
			b.Ops = append(b.Ops, sdk.Touch(e.ID, e.Hits, e.LastAccessed))
		}
	}
	return b
}
