package sdktest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

var batchCases = []driverCase{
	{"operations of a batch are carried out in order", applyOrder, testOrder},
	{"an empty batch has its place in the sequence", applyOnce, testEmptyBatch},
	{"a batch of 10000 operations is carried out", applyWhole, testBigBatch},
	{"a batch of the largest texts is carried out", applyWhole, testHuge},
	{"a batch belongs to the caller again", applyWhole, testBatchReuse},
	{"a repeated batch is acknowledged without effect", applyRepeat, testRepeat},
	{"a gap is refused and changes nothing", applyGap, testGap},
	{"the first batch of an unknown source is 1", applyGap, testUnknownSource},
	{"sources are counted apart", applyOnce, testSources},
	{"an invalid batch is refused as a whole", invalid, testInvalid},
	{"apply ends with its context", deadline, testApplyEnds},
	{"a cancelled batch is carried out once or not at all", applyWhole, testCancelledApply},
}

func testOrder(s *store) {
	a := entry("a")
	a2 := a
	a2.Version = `"v2"`
	s.apply(
		sdk.Touch("a", 100, at),                                              // absent
		sdk.Put(a), sdk.Touch("a", 1, at), sdk.Put(a), sdk.Touch("a", 1, at), // 2 hits
		sdk.Put(entry("b")), sdk.Touch("b", 1, at), sdk.Delete("b"), sdk.Put(entry("b")), // 0 hits
		sdk.Put(entry("c")), sdk.Delete("c"), sdk.Touch("c", 1, at), // gone
		sdk.Put(entry("d")), sdk.Touch("d", 9, at),
	)
	d := entry("d")
	d.Hits = 9
	a.Hits = 2
	s.want(a, entry("b"), d)
	s.apply(sdk.Put(a2), sdk.Touch("a", 4, at))
	a2.Hits = 4
	s.want(a2, entry("b"), d)
}

func testEmptyBatch(s *store) {
	s.apply()
	s.apply(sdk.Put(entry("a")))
	s.mustRefuse(sdk.Batch{Source: aSource, Seq: s.seq + 2})
	s.want(entry("a"))
}

func testBigBatch(s *store) {
	all := many(10_000)
	s.apply(puts(all)...)
	s.want(all...)
	ops := make([]sdk.Op, len(all))
	for i := range all {
		all[i].Hits = 1
		ops[i] = sdk.Touch(all[i].ID, 1, at)
	}
	s.apply(ops...)
	s.want(all...)
	for i := range all {
		ops[i] = sdk.Delete(all[i].ID)
	}
	s.apply(ops...)
	s.want()
}

// testHuge sends some MiB at once.
func testHuge(s *store) {
	var want []sdk.Entry
	for i := range 1000 {
		e := entry(fmt.Sprintf("%0*d", sdk.MaxIDLen, i))
		e.Version = strings.Repeat("v", 4000) + fmt.Sprint(i)
		want = append(want, e)
	}
	s.apply(puts(want)...)
	s.want(want...)
}

func testBatchReuse(s *store) {
	ops := []sdk.Op{sdk.Put(entry("a"))}
	s.apply(ops...)
	ops[0] = sdk.Delete("a")
	s.want(entry("a"))
}

func testRepeat(s *store) {
	s.apply(sdk.Put(entry("a")))
	touch := s.next(sdk.Touch("a", 1, at))
	s.must(touch)
	s.must(touch)
	s.apply(sdk.Touch("a", 10, at))
	s.must(touch) // older than the last
	s.must(sdk.Batch{Source: aSource, Seq: 1, Ops: []sdk.Op{sdk.Delete("a")}})
	want := entry("a")
	want.Hits = 11
	s.want(want)
}

func testGap(s *store) {
	s.apply(sdk.Put(entry("a")))
	for _, seq := range []uint64{s.seq + 2, s.seq + 3, 1 << 40} {
		s.mustRefuse(sdk.Batch{Source: aSource, Seq: seq, Ops: []sdk.Op{sdk.Delete("a"), sdk.Put(entry("b"))}})
	}
	s.want(entry("a"))
	s.apply(sdk.Put(entry("c"))) // the sequence goes on where it was
	s.want(entry("a"), entry("c"))
}

func testUnknownSource(s *store) {
	ops := []sdk.Op{sdk.Put(entry("a"))}
	s.mustRefuse(sdk.Batch{Source: "b", Seq: 2, Ops: ops})
	s.want()
	s.must(sdk.Batch{Source: "b", Seq: 1, Ops: ops})
	s.mustRefuse(sdk.Batch{Source: "c", Seq: 2, Ops: ops})
	s.want(entry("a"))
}

func testSources(s *store) {
	s.must(sdk.Batch{Source: "b", Seq: 1, Ops: []sdk.Op{sdk.Put(entry("x"))}})
	s.must(sdk.Batch{Source: "c", Seq: 1, Ops: []sdk.Op{sdk.Touch("x", 1, at)}})
	s.must(sdk.Batch{Source: "b", Seq: 2, Ops: []sdk.Op{sdk.Touch("x", 10, at)}})
	s.must(sdk.Batch{Source: "c", Seq: 1, Ops: []sdk.Op{sdk.Touch("x", 1, at)}}) // repeated
	s.must(sdk.Batch{Source: "b", Seq: 1, Ops: []sdk.Op{sdk.Delete("x")}})       // repeated
	s.must(sdk.Batch{Source: "c", Seq: 2, Ops: []sdk.Op{sdk.Touch("x", 100, at)}})
	s.mustRefuse(sdk.Batch{Source: "b", Seq: 4})
	want := entry("x")
	want.Hits = 111
	s.want(want)
}

func testInvalid(s *store) {
	s.apply(sdk.Put(entry("a")))
	negative := entry("n")
	negative.Size = -1
	for _, bad := range []sdk.Op{
		{Kind: 0, Entry: entry("x")},
		{Kind: 99, Entry: entry("x")},
		sdk.Put(entry("")),
		sdk.Delete(""),
		sdk.Touch(strings.Repeat("z", sdk.MaxIDLen+1), 1, at),
		sdk.Put(negative),
		sdk.Put(entry("caf\xe9")),
		sdk.Touch("\xff", 1, at),
	} {
		s.mustRefuse(sdk.Batch{Source: aSource, Seq: s.seq + 1, Ops: []sdk.Op{sdk.Delete("a"), sdk.Put(entry("b")), bad}})
	}
	s.mustRefuse(sdk.Batch{Source: "", Seq: 1, Ops: []sdk.Op{sdk.Delete("a")}})
	s.mustRefuse(sdk.Batch{Source: "\xff", Seq: 1, Ops: []sdk.Op{sdk.Delete("a")}})
	s.mustRefuse(sdk.Batch{Source: aSource, Seq: 0, Ops: []sdk.Op{sdk.Delete("a")}})
	s.want(entry("a"))
	s.apply(sdk.Put(entry("b"))) // a refused batch has no place in the sequence
	s.want(entry("a"), entry("b"))
}

// testApplyEnds gives a batch to the driver whose time is over. It may be
// carried out or not; the driver goes on.
func testApplyEnds(s *store) {
	b := s.next(puts(many(1000))...)
	ctx, cancel := context.WithDeadline(s.Context(), time.Now())
	defer cancel()
	_ = s.Apply(ctx, b)
	s.must(b)
	s.want(many(1000)...)
}

func testCancelledApply(s *store) {
	all := many(2000)
	s.apply(puts(all)...)
	ops := make([]sdk.Op, len(all))
	for i := range all {
		ops[i] = sdk.Touch(all[i].ID, 1, at)
	}
	hits := uint64(0)
	for i := range 6 {
		b := s.next(ops...)
		ctx, cancel := context.WithCancel(s.Context())
		done := make(chan error)
		if i == 0 {
			cancel() // before the call; later ones race with it
		}
		go func() { done <- s.Apply(ctx, b) }()
		cancel()
		<-done
		got := s.list()
		if n := got[0].Hits; slices.ContainsFunc(got, func(e sdk.Entry) bool { return e.Hits != n }) {
			s.Fatalf("a batch was carried out in part")
		} else if n != hits && n != hits+1 {
			s.Fatalf("%d hits after a cancelled batch, want %d or %d", n, hits, hits+1)
		}
		s.must(b) // the host repeats it
		hits++
		if n := s.list()[0].Hits; n != hits {
			s.Fatalf("%d hits after the batch was repeated, want %d", n, hits)
		}
	}
}

type durableCase struct {
	name     string
	sentence string
	run      func(s *store, reopen func())
}

var durableCases = []durableCase{
	{"a restart keeps the records", applyWhole, testRestart},
	{"a restart keeps the place in the sequence", applyOnce, testRestartSequence},
	{"a batch is durable when it is acknowledged", applyWhole, testRestartEach},
}

func testRestart(s *store, reopen func()) {
	all := many(3000)
	s.apply(puts(all)...)
	s.apply(sdk.Touch(all[7].ID, 7, at), sdk.Delete(all[0].ID))
	all[7].Hits = 7
	reopen()
	s.want(all[1:]...)
}

func testRestartSequence(s *store, reopen func()) {
	s.apply(sdk.Put(entry("a")))
	touch := s.next(sdk.Touch("a", 1, at))
	s.must(touch)
	reopen()
	s.must(touch)
	s.mustRefuse(sdk.Batch{Source: aSource, Seq: s.seq + 2})
	s.apply(sdk.Touch("a", 10, at))
	want := entry("a")
	want.Hits = 11
	s.want(want)
}

func testRestartEach(s *store, reopen func()) {
	var want []sdk.Entry
	for i := range 10 {
		e := entry(fmt.Sprint("i", i))
		want = append(want, e)
		s.apply(sdk.Put(e))
		reopen()
		s.want(want...)
	}
}
