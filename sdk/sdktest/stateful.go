package sdktest

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/imgcache/imgcache-host/sdk"
)

// Stateful holds a policy to [sdk.Stateful], and to [sdk.Snapshotter] if it
// is one and does not answer [sdk.ErrUnsupported]. Each call of open returns
// a new policy, configured, which has seen no event; a case may call it more
// than once.
func Stateful[S Runner[S]](t S, open func(S) sdk.Stateful) {
	t.Helper()
	for _, c := range statefulCases {
		t.Run(c.name, func(t S) {
			t.Helper()
			c.run(t, func() *history { return newHistory(t, open(t)) })
		})
	}
}

// everything is more than all images together are worth.
const everything = math.MaxUint64

// noLimit is a limit that no case reaches.
const noLimit = 1 << 20

// history is a policy in a test together with the cache that it advises.
type history struct {
	T
	policy  sdk.Stateful
	present map[sdk.Key]uint64
	clock   int64
}

func newHistory(t T, p sdk.Stateful) *history {
	h := &history{T: t, policy: p, present: map[sdk.Key]uint64{}, clock: at.UnixNano()}
	h.observe(sdk.Event{Kind: sdk.EventCapacity, Size: 1 << 20})
	return h
}

// observe carries the events out on the cache and tells the policy.
func (h *history) observe(events ...sdk.Event) {
	h.Helper()
	for i := range events {
		h.clock++
		e := &events[i]
		e.At = h.clock
		switch e.Kind {
		case sdk.EventAdmitted:
			h.present[e.Key] = e.Size
		case sdk.EventRemoved:
			delete(h.present, e.Key)
		}
	}
	if err := h.policy.Observe(h.Context(), events); err != nil {
		h.Fatalf("Observe(%d events) = %v, want nil", len(events), err)
	}
}

func admitted(key sdk.Key, size uint64) sdk.Event {
	return sdk.Event{Kind: sdk.EventAdmitted, Key: key, Size: size}
}

func accessed(key sdk.Key, count uint32) sdk.Event {
	return sdk.Event{Kind: sdk.EventAccessed, Key: key, Count: count}
}

func removed(key sdk.Key, why sdk.Reason) sdk.Event {
	return sdk.Event{Kind: sdk.EventRemoved, Key: key, Reason: why}
}

func refused(key sdk.Key) sdk.Event { return sdk.Event{Kind: sdk.EventRefused, Key: key} }

// fill admits images 1 to n of 100 bytes each.
func (h *history) fill(n int) {
	h.Helper()
	for key := range n {
		h.observe(admitted(sdk.Key(key+1), 100))
	}
}

// propose returns what the policy proposes, having checked that each key is
// present and new, and that the list ends at need and limit but not before.
func (h *history) propose(need uint64, limit int) []sdk.Key {
	h.Helper()
	h.clock++
	keys, err := h.policy.Select(h.Context(), at, need, limit)
	if err != nil {
		h.Fatalf("Select(%d bytes, limit %d) = %v, want nil", need, limit, err)
	}
	if len(keys) > limit {
		h.Fatalf("Select(%d bytes, limit %d) names %d keys", need, limit, len(keys))
	}
	seen := map[sdk.Key]bool{}
	left := need
	for i, key := range keys {
		size, ok := h.present[key]
		switch {
		case !ok:
			h.Fatalf("Select names %d, which is not in the cache", key)
		case seen[key]:
			h.Fatalf("Select names %d twice", key)
		case left == 0:
			h.Fatalf("Select(%d bytes) goes on after its first %d keys, which are enough", need, i)
		}
		seen[key] = true
		left -= min(left, size)
	}
	if left > 0 && len(keys) < limit && len(keys) < len(h.present) {
		h.Fatalf("Select(%d bytes, limit %d) ends %d bytes short with %d of %d images", need, limit, left, len(keys), len(h.present))
	}
	return keys
}

// all proposes everything and fails unless that is the whole cache.
func (h *history) all() []sdk.Key {
	h.Helper()
	return h.propose(everything, noLimit)
}

// answers are what a host does with proposals.
type answer func(*history, []sdk.Key)

// evictAll lets every proposal leave.
func evictAll(h *history, keys []sdk.Key) {
	h.Helper()
	for _, key := range keys {
		h.observe(removed(key, sdk.ReasonEvicted))
	}
}

// refuseSome returns the answer of a host that refuses about one proposal in
// n and, as hosts do, says so after the removals.
func refuseSome(rnd *rand.Rand, n int) answer {
	return func(h *history, keys []sdk.Key) {
		h.Helper()
		var events []sdk.Event
		for _, key := range keys {
			if rnd.IntN(n) != 0 {
				h.observe(removed(key, sdk.ReasonEvicted))
			} else {
				events = append(events, refused(key))
			}
		}
		h.observe(events...)
	}
}

// live runs random requests through a cache of capacity bytes.
func (h *history) live(rnd *rand.Rand, steps int, capacity uint64, reply answer) {
	h.Helper()
	h.observe(sdk.Event{Kind: sdk.EventCapacity, Size: capacity})
	for range steps {
		key := sdk.Key(1 + rnd.IntN(8)*rnd.IntN(24))
		_, hit := h.present[key]
		switch {
		case rnd.IntN(40) == 0:
			h.observe(removed(key, sdk.Reason(2+rnd.IntN(3)))) // at times an absent one
		case hit:
			h.observe(accessed(key, 1+rnd.Uint32N(3)))
		default:
			size := 1 + rnd.Uint64N(capacity/8)
			for try := 0; h.used()+size > capacity && try < 3; try++ {
				reply(h, h.propose(h.used()+size-capacity, 1+rnd.IntN(50)))
			}
			if h.used()+size <= capacity {
				h.observe(admitted(key, size))
			}
		}
	}
}

func (h *history) used() (n uint64) {
	for _, size := range h.present {
		n += size
	}
	return n
}

type statefulCase struct {
	name     string
	sentence string // of the contract
	run      func(t T, open func() *history)
}

// one is a case of a single policy.
func one(f func(*history)) func(T, func() *history) {
	return func(t T, open func() *history) {
		t.Helper()
		f(open())
	}
}

func testEndless(h *history) {
	h.fill(20)
	for range 100 {
		for _, key := range h.propose(500, noLimit) {
			h.observe(refused(key))
		}
	}
	if keys := h.all(); len(keys) != 20 {
		h.Fatalf("%d of 20 images are proposed after they were refused", len(keys))
	}
}

func testRefusedMakesWay(h *history) {
	h.fill(20)
	pinned := h.propose(100, noLimit)[0]
	for range 3 { // a host asks twice before it decides by itself
		h.observe(refused(pinned))
		if keys := h.propose(100, noLimit); keys[0] != pinned {
			return
		}
	}
	h.Fatalf("image %d is the only proposal although it is refused each time", pinned)
}

func testReasons(h *history) {
	for i, why := range []sdk.Reason{sdk.ReasonEvicted, sdk.ReasonDeleted, sdk.ReasonReplaced, sdk.ReasonCorrupt, 99} {
		h.fill(5)
		h.observe(accessed(3, 2), removed(sdk.Key(i+1), why))
		if keys := h.all(); len(keys) != 4 {
			h.Fatalf("%d images are proposed, want 4", len(keys))
		}
	}
}

func testReplaced(h *history) {
	h.fill(5)
	h.observe(removed(3, sdk.ReasonReplaced), admitted(3, 5000))
	for len(h.present) > 0 {
		evictAll(h, h.propose(1, 1)) // checks sizes through need
	}
	h.observe(admitted(3, 5000))
	if keys := h.propose(5000, noLimit); len(keys) != 1 {
		h.Fatalf("%d keys for 5000 bytes, want 1", len(keys))
	}
}

func testUnknown(h *history) {
	h.fill(5)
	h.observe(
		sdk.Event{Kind: 77, Key: 3, Size: 1, Count: 1}, sdk.Event{Kind: 0, Key: 99}, sdk.Event{Kind: math.MaxUint32, Key: 2},
		accessed(99, 1), removed(98, sdk.ReasonEvicted), refused(97),
	)
	if keys := h.all(); len(keys) != 5 {
		h.Fatalf("%d images are proposed, want 5", len(keys))
	}
}

func testSizes(h *history) {
	h.observe(
		admitted(1, 0), admitted(2, math.MaxUint64), admitted(3, math.MaxUint64), admitted(4, 1<<63), admitted(5, 1),
		accessed(2, math.MaxUint32), accessed(2, math.MaxUint32), accessed(5, math.MaxUint32), accessed(1, 0),
		sdk.Event{Kind: sdk.EventCapacity, Size: 0}, sdk.Event{Kind: sdk.EventCapacity, Size: math.MaxUint64},
	)
	h.propose(everything, noLimit) // 2 or 3 alone are enough
	for len(h.present) > 0 {
		evictAll(h, h.propose(1, 2))
	}
}

func testTimes(h *history) {
	for _, now := range []int64{math.MinInt64, -1, 0, math.MaxInt64 - 10} {
		h.clock = now
		h.fill(3)
		h.observe(accessed(1, 1), accessed(2, 1))
		h.all()
	}
}

func testLargest(h *history) {
	events := make([]sdk.Event, sdk.MaxBatch)
	for i := range events {
		events[i] = admitted(sdk.Key(i), 1)
	}
	h.observe(events...)
	h.propose(everything, 100)
	if keys := h.all(); len(keys) != sdk.MaxBatch {
		h.Fatalf("%d images are proposed, want %d", len(keys), sdk.MaxBatch)
	}
}

func testDeterminism(t T, open func() *history) {
	a, b := open(), open()
	for round := range uint64(20) {
		a.live(rand.New(rand.NewPCG(round, 1)), 50, 5000, evictAll)
		b.live(rand.New(rand.NewPCG(round, 1)), 50, 5000, evictAll)
		if x, y := a.all(), b.all(); !slices.Equal(x, y) {
			t.Fatalf("the same events lead to different proposals:\n%v\n%v", x, y)
		}
	}
}

// testSplit sends the same events in one batch and one by one.
func testSplit(t T, open func() *history) {
	a, b := open(), open()
	rnd := rand.New(rand.NewPCG(2, 2))
	var events []sdk.Event
	for key := range sdk.Key(50) {
		events = append(events, admitted(key, 1+rnd.Uint64N(100)))
		for range rnd.IntN(4) {
			events = append(events, accessed(sdk.Key(rnd.IntN(int(key)+1)), 1))
		}
		if rnd.IntN(5) == 0 {
			events = append(events, removed(sdk.Key(rnd.IntN(int(key)+1)), sdk.ReasonDeleted))
		}
	}
	for _, e := range events {
		a.observe(e)
	}
	b.observe(events...)
	if x, y := a.all(), b.all(); !slices.Equal(x, y) {
		t.Fatalf("events one by one lead to\n%v\nin one batch to\n%v", x, y)
	}
}

var statefulCases = []statefulCase{
	{"an empty cache has nothing to propose", selectEnough, one(func(h *history) { h.all() })},
	{"no events are no error", observe, one(func(h *history) { h.observe(); h.observe([]sdk.Event{}...) })},
	{"nothing is proposed when nothing is needed", selectEnough, one(func(h *history) { h.fill(3); h.propose(0, noLimit) })},
	{"proposals end at need", selectEnough, one(func(h *history) { h.fill(20); h.propose(1, noLimit); h.propose(100, noLimit); h.propose(101, noLimit) })},
	{"proposals end at the limit", selectEnough, one(func(h *history) { h.fill(20); h.propose(everything, 0); h.propose(everything, 7) })},
	{"a proposal stays until it is removed", selectOnly, one(func(h *history) {
		h.fill(20)
		for range 50 {
			h.propose(300, noLimit)
		}
		h.all()
	})},
	{"a refused proposal stays", selectOnly, one(testEndless)},
	{"a refused proposal makes way for another", refuses, one(testRefusedMakesWay)},
	{"a removed image is proposed no more, whatever the reason", removes, one(testReasons)},
	{"a replaced image counts with its new size", admits, one(testReplaced)},
	{"an image admitted twice is one image", admits, one(func(h *history) { h.fill(5); h.observe(admitted(2, 7)); h.all() })},
	{"unknown kinds, keys and reasons are ignored", ignoreKinds, one(testUnknown)},
	{"sizes and counts may be extreme", anyEvent, one(testSizes)},
	{"times may be extreme", anyEvent, one(testTimes)},
	{"the largest batch is observed", maxBatch, one(testLargest)},
	{"a cache at random, every proposal accepted", selectEnough, one(func(h *history) {
		h.live(rand.New(rand.NewPCG(3, 3)), 1000, 5000, evictAll)
		h.all()
	})},
	{"a cache at random, with refusals", selectOnly, one(func(h *history) {
		rnd := rand.New(rand.NewPCG(4, 4))
		h.live(rnd, 1000, 5000, refuseSome(rnd, 3))
		h.all()
	})},
	{"a cache at random, proposals dropped", selectOnly, one(func(h *history) {
		rnd := rand.New(rand.NewPCG(5, 5))
		h.live(rnd, 1000, 5000, func(h *history, keys []sdk.Key) { evictAll(h, keys[:rnd.IntN(len(keys)+1)]) })
		h.all()
	})},
	{"the same events lead to the same proposals", eventsAlone, testDeterminism},
	{"events may come one by one or together", observe, testSplit},
	{"a restored policy proposes the same, now and later", restored, testSnapshot},
	{"an empty policy can be restored", restored, testSnapshotEmpty},
	{"broken snapshots are refused", brokenRefused, testSnapshotBroken},
}
