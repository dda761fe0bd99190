// Package policytest compares stateful policies with textbook versions: the
// algorithm as its paper writes it, on plain slices, with the eviction in the
// middle of the request, and sharing no code with the policy.
package policytest

import (
	"fmt"
	"math/rand/v2"
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

// Textbook is a cache with a policy as the paper has it.
type Textbook interface {
	// Request reads an image, admitting it when it is absent, and returns who
	// left for it in their order. An image for which there is no room after
	// [Patience] refusals is not admitted.
	Request(Request) []sdk.Key
}

// Patience is how many refusals a request bears.
const Patience = 20

// Refusal says whether the host refuses to evict an image during a request,
// which is counted from 0. A textbook version asks it too.
type Refusal func(request int, key sdk.Key) bool

// Never refuses nothing.
func Never(int, sdk.Key) bool { return false }

// Quarter refuses a quarter of the images, others every hundred requests.
func Quarter(request int, key sdk.Key) bool {
	return rand.New(rand.NewPCG(uint64(request/100), uint64(key))).IntN(4) == 0
}

// host is a cache that the policy under test advises.
type host struct {
	t        *testing.T
	policy   sdk.Stateful
	refuse   Refusal
	rnd      *rand.Rand
	capacity uint64
	used     uint64
	sizes    map[sdk.Key]uint64
	request  int
}

// Agree runs a trace through the policy and through the textbook version, and
// fails where one lets another image go than the other. Between the events
// the policy is asked at random for proposals that come to nothing: a
// question must not change it.
func Agree(t *testing.T, policy sdk.Stateful, book Textbook, capacity uint64, trace []Request, refuse Refusal) {
	t.Helper()
	h := &host{
		t: t, policy: policy, refuse: refuse, capacity: capacity,
		rnd: rand.New(rand.NewPCG(1, 2)), sizes: map[sdk.Key]uint64{},
	}
	h.observe(sdk.Event{Kind: sdk.EventCapacity, Size: capacity})
	evicted := 0
	for i, r := range trace {
		h.request = i
		want := book.Request(r)
		got := h.read(r)
		if !slices.Equal(got, want) {
			t.Fatalf("request %d of image %d: %v leave, the textbook says %v", i, r.Key, got, want)
		}
		evicted += len(got)
	}
	if evicted < len(trace)/10 {
		t.Fatalf("%d images were evicted in %d requests: the trace proves little", evicted, len(trace))
	}
}

func (h *host) observe(e sdk.Event) {
	h.t.Helper()
	e.At = int64(h.request)
	if err := h.policy.Observe(h.t.Context(), []sdk.Event{e}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) ask(need uint64, limit int) []sdk.Key {
	h.t.Helper()
	keys, err := h.policy.Select(h.t.Context(), time.Unix(0, int64(h.request)), need, limit)
	if err != nil {
		h.t.Fatal(err)
	}
	return keys
}

func (h *host) read(r Request) (left []sdk.Key) {
	h.t.Helper()
	if h.rnd.IntN(4) == 0 {
		h.ask(h.rnd.Uint64N(2*h.capacity), 1+h.rnd.IntN(100)) // idle curiosity
	}
	if _, hit := h.sizes[r.Key]; hit {
		h.observe(sdk.Event{Kind: sdk.EventAccessed, Key: r.Key, Count: 1})
		return nil
	}
	left = h.makeRoom(r.Size)
	if h.used+r.Size <= h.capacity {
		h.observe(sdk.Event{Kind: sdk.EventAdmitted, Key: r.Key, Size: r.Size})
		h.sizes[r.Key] = r.Size
		h.used += r.Size
	}
	return left
}

// makeRoom evicts what the policy proposes: all at once while nothing is
// refused, and otherwise one at a time, because a proposal rests on the ones
// before it.
func (h *host) makeRoom(size uint64) (left []sdk.Key) {
	h.t.Helper()
	refused := 0
	for h.used+size > h.capacity && refused < Patience {
		keys := h.ask(h.used+size-h.capacity, 1+h.rnd.IntN(3))
		if len(keys) == 0 {
			h.t.Fatalf("request %d: nothing is proposed, %d images are cached", h.request, len(h.sizes))
		}
		for _, key := range keys {
			if h.refuse(h.request, key) {
				h.observe(sdk.Event{Kind: sdk.EventRefused, Key: key})
				refused++
				break
			}
			h.observe(sdk.Event{Kind: sdk.EventRemoved, Key: key, Reason: sdk.ReasonEvicted})
			h.used -= h.sizes[key]
			delete(h.sizes, key)
			left = append(left, key)
		}
	}
	return left
}

// Each runs f for a few seeds, without refusals and with them, as subtests.
func Each(t *testing.T, f func(t *testing.T, seed uint64, refuse Refusal)) {
	t.Helper()
	for seed := range uint64(5) {
		for name, refuse := range map[string]Refusal{"all leave": Never, "a quarter is refused": Quarter} {
			t.Run(fmt.Sprintf("%s, seed %d", name, seed), func(t *testing.T) { f(t, seed, refuse) })
		}
	}
}
