// Package policytest compares policies with textbook versions: the algorithm
// as its paper writes it, on plain slices that are searched from end to end,
// sharing no code with the policy.
package policytest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Request is one access of a trace.
type Request struct {
	Key  sdk.Key
	Size uint64
}

// Textbook is a policy as its paper has it, which sees the cache as it is and
// evicts in the middle of a request.
type Textbook interface {
	// Resize says what the cache may hold. It comes first of all.
	Resize(capacity uint64)
	// Access reads an image and reports whether it is there.
	Access(sdk.Key) bool
	// Admit takes an image in, which is not there.
	Admit(Request)
	// Next moves to the image that leaves next, and reports whether there is
	// one.
	Next() (Request, bool)
	// Stay says that the host does not let go what Next found.
	Stay(sdk.Key)
	// Leave takes an image out: by the policy's advice, or, when Next did not
	// find it, by the host's own.
	Leave(sdk.Key, sdk.Reason)
}

// capacity is what a cache begins with, in bytes.
const capacity = 10_000

// patience is how many refusals a request bears before it is not admitted.
const patience = 20

// Trace returns n requests: some images are in demand, with a taste that
// changes slowly, and now and then somebody reads a row of images once. Every
// image has always the same size, at most largest bytes.
func Trace(seed uint64, n int, largest uint64) []Request {
	rnd := rand.New(rand.NewPCG(seed, 0))
	zipf := rand.NewZipf(rnd, 1.1, 4, 299)
	list := make([]Request, 0, n)
	add := func(key sdk.Key) {
		size := 1 + rand.New(rand.NewPCG(seed, uint64(key))).Uint64N(largest)
		list = append(list, Request{key, size})
	}
	scan := sdk.Key(10_000)
	for len(list) < n {
		add(sdk.Key(zipf.Uint64()) + sdk.Key(len(list)/500))
		if rnd.IntN(200) == 0 {
			for range 30 {
				add(scan)
				scan++
			}
		}
	}
	return list[:n]
}

// Agree runs traces of n requests, of a tenth of that unless IMGCACHE_TEST_ALL
// is set, through the policy and through its textbook version, and fails where
// one lets another image go than the other: with large and small images,
// without refusals and with them. At random, images are deleted, replaced,
// found corrupt and evicted by the host's own choice, the capacity changes, and
// the policy is asked for proposals that come to nothing. One that is a
// snapshotter is now and then replaced by another instance, restored from its
// snapshot.
//
// open returns a policy, configured, that has seen no event. It is called at
// most twice for a trace.
func Agree(t *testing.T, n int, open func(*testing.T) sdk.Stateful, book func() Textbook) {
	t.Helper()
	if os.Getenv("IMGCACHE_TEST_ALL") == "" {
		n /= 10
	}
	for seed := range uint64(3) {
		for _, largest := range []uint64{capacity / 16, capacity / 64} {
			for name, keeps := range map[string]func(int, sdk.Key) bool{"all leave": nothing, "a quarter is refused": quarter} {
				t.Run(fmt.Sprintf("seed %d, up to %d bytes, %s", seed, largest, name), func(t *testing.T) {
					agree(t, open, book(), Trace(seed, n, largest), keeps)
				})
			}
		}
	}
}

// nothing is kept by a host that refuses nothing.
func nothing(int, sdk.Key) bool { return false }

// quarter is kept by a host that refuses a quarter of the images, others every
// hundred requests.
func quarter(request int, key sdk.Key) bool {
	return rand.New(rand.NewPCG(uint64(request/100), uint64(key))).IntN(4) == 0
}

// host is a cache that the policy under test advises, and its textbook version
// in the same place.
type host struct {
	t        *testing.T
	open     func(*testing.T) sdk.Stateful
	policy   sdk.Stateful
	spare    sdk.Stateful // the instance that was in use before; nil: none was
	book     Textbook
	keeps    func(request int, key sdk.Key) bool
	rnd      *rand.Rand
	capacity uint64
	used     uint64
	sizes    map[sdk.Key]uint64
	request  int
	clock    int64
	evicted  int
}

func agree(t *testing.T, open func(*testing.T) sdk.Stateful, book Textbook, trace []Request, keeps func(int, sdk.Key) bool) {
	h := &host{
		t: t, open: open, policy: open(t), book: book, keeps: keeps,
		rnd: rand.New(rand.NewPCG(1, 2)), sizes: map[sdk.Key]uint64{},
		clock: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC).UnixNano(),
	}
	h.resize(capacity)
	for i, r := range trace {
		h.request = i
		h.chance(trace[h.rnd.IntN(i+1)])
		h.read(r)
	}
	if h.evicted < len(trace)/20 {
		t.Fatalf("%d images were evicted in %d requests: the trace proves little", h.evicted, len(trace))
	}
}

// chance is what happens between two requests, at times to an image that was
// read before.
func (h *host) chance(r Request) {
	h.t.Helper()
	if h.rnd.IntN(4) == 0 {
		h.ask(h.rnd.Uint64N(2*capacity), 1+h.rnd.IntN(100)) // a question changes nothing
	}
	if h.rnd.IntN(100) == 0 {
		h.resize(capacity/2 + h.rnd.Uint64N(capacity))
	}
	if h.rnd.IntN(100) == 0 {
		h.restart()
	}
	if _, cached := h.sizes[r.Key]; cached && h.rnd.IntN(10) == 0 {
		reasons := []sdk.Reason{sdk.ReasonEvicted, sdk.ReasonDeleted, sdk.ReasonReplaced, sdk.ReasonCorrupt, 99}
		why := reasons[h.rnd.IntN(len(reasons))]
		h.book.Leave(r.Key, why)
		h.remove(r.Key, why)
		if why == sdk.ReasonReplaced {
			h.read(Request{r.Key, 1 + h.rnd.Uint64N(capacity/64)})
		}
	}
}

func (h *host) observe(e sdk.Event) {
	h.t.Helper()
	e.At = h.clock
	if err := h.policy.Observe(h.t.Context(), []sdk.Event{e}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) ask(need uint64, limit int) []sdk.Key {
	h.t.Helper()
	keys, err := h.policy.Select(h.t.Context(), time.Unix(0, h.clock), need, limit)
	if err != nil {
		h.t.Fatal(err)
	}
	return keys
}

// tick moves the clock on by less than a float64 can tell of today's dates.
func (h *host) tick() { h.clock += 1 + h.rnd.Int64N(100) }

func (h *host) resize(to uint64) {
	h.t.Helper()
	h.tick()
	h.capacity = to
	h.book.Resize(to)
	h.observe(sdk.Event{Kind: sdk.EventCapacity, Size: to})
	h.makeRoom(0)
}

// restart goes on with another instance: with the one before the present one,
// if there is, whose state must leave no trace.
func (h *host) restart() {
	h.t.Helper()
	from, ok := h.policy.(sdk.Snapshotter)
	if !ok {
		return
	}
	if h.spare == nil {
		h.spare = h.open(h.t)
	}
	snapshot, err := from.Snapshot(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.spare.(sdk.Snapshotter).Restore(h.t.Context(), snapshot); err != nil {
		h.t.Fatal(err)
	}
	h.policy, h.spare = h.spare, h.policy
}

func (h *host) read(r Request) {
	h.t.Helper()
	h.tick()
	_, cached := h.sizes[r.Key]
	if hit := h.book.Access(r.Key); hit != cached {
		h.t.Fatalf("request %d: image %d is cached: %v, the textbook says %v", h.request, r.Key, cached, hit)
	}
	switch {
	case cached:
		count := max(1, h.rnd.IntN(10)-6)
		for range count - 1 {
			h.book.Access(r.Key)
		}
		h.observe(sdk.Event{Kind: sdk.EventAccessed, Key: r.Key, Count: uint32(count)})
	case r.Size <= h.capacity:
		h.makeRoom(r.Size)
		if h.used+r.Size <= h.capacity {
			h.admit(r)
		}
	}
}

func (h *host) admit(r Request) {
	h.t.Helper()
	h.clock += 256 // a commit takes its time
	h.book.Admit(r)
	h.observe(sdk.Event{Kind: sdk.EventAdmitted, Key: r.Key, Size: r.Size})
	h.sizes[r.Key] = r.Size
	h.used += r.Size
}

func (h *host) remove(key sdk.Key, why sdk.Reason) {
	h.t.Helper()
	h.observe(sdk.Event{Kind: sdk.EventRemoved, Key: key, Reason: why})
	h.used -= h.sizes[key]
	delete(h.sizes, key)
}

// makeRoom evicts what the policy proposes, and fails unless that is what the
// textbook says.
func (h *host) makeRoom(size uint64) {
	h.t.Helper()
	want := h.expect(size)
	got := h.evict(size)
	if !slices.Equal(got, want) {
		h.t.Fatalf("request %d: %v leave, the textbook says %v", h.request, got, want)
	}
	h.evicted += len(got)
}

// expect makes room in the textbook version.
func (h *host) expect(size uint64) (left []sdk.Key) {
	used := h.used
	for refused := 0; used+size > h.capacity && refused < patience; {
		r, ok := h.book.Next()
		if !ok {
			break
		}
		if h.keeps(h.request, r.Key) {
			h.book.Stay(r.Key)
			refused++
			continue
		}
		h.book.Leave(r.Key, sdk.ReasonEvicted)
		used -= r.Size
		left = append(left, r.Key)
	}
	return left
}

// evict makes room by what the policy proposes: all at once while nothing is
// refused, and otherwise one at a time, because a proposal rests on the ones
// before it.
func (h *host) evict(size uint64) (left []sdk.Key) {
	h.t.Helper()
	for refused := 0; h.used+size > h.capacity && refused < patience; {
		keys := h.ask(h.used+size-h.capacity, 1+h.rnd.IntN(3))
		if len(keys) == 0 {
			return left
		}
		for _, key := range keys {
			if h.keeps(h.request, key) {
				h.observe(sdk.Event{Kind: sdk.EventRefused, Key: key})
				refused++
				break
			}
			h.remove(key, sdk.ReasonEvicted)
			left = append(left, key)
		}
	}
	return left
}
