package sieve_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/plugins/builtin/internal/policytest"
	"github.com/imgcache/imgcache-host/plugins/builtin/sieve"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestConformance(t *testing.T) {
	sdktest.Manifest(t, sieve.Manifest)
	sdktest.Stateful(t, func(*testing.T) sdk.Stateful { return sieve.New() })
}

// textbook is SIEVE on a slice, the newest first, as figure 1 of the paper
// draws it.
type textbook struct {
	capacity, used uint64
	refuse         policytest.Refusal
	requests       int
	queue          []object
	hand           int // index into queue; -1: at the tail
}

type object struct {
	policytest.Request
	visited bool
}

func (b *textbook) Request(r policytest.Request) (left []sdk.Key) {
	defer func() { b.requests++ }()
	for i := range b.queue {
		if b.queue[i].Key == r.Key {
			b.queue[i].visited = true
			return nil
		}
	}
	refused := 0
	for b.used+r.Size > b.capacity && refused < policytest.Patience {
		if b.hand < 0 {
			b.hand = len(b.queue) - 1
		}
		o := &b.queue[b.hand]
		switch {
		case o.visited:
			o.visited = false
		case b.refuse(b.requests, o.Key):
			refused++
		default:
			left = append(left, o.Key)
			b.used -= o.Size
			b.queue = slices.Delete(b.queue, b.hand, b.hand+1)
		}
		b.hand-- // to the next newer one
	}
	if b.used+r.Size <= b.capacity {
		b.queue = slices.Insert(b.queue, 0, object{Request: r})
		b.used += r.Size
		if b.hand >= 0 {
			b.hand++
		}
	}
	return left
}

func TestAgreesWithTextbook(t *testing.T) {
	const capacity = 10_000
	policytest.Each(t, func(t *testing.T, seed uint64, refuse policytest.Refusal) {
		book := &textbook{capacity: capacity, refuse: refuse, hand: -1}
		policytest.Agree(t, sieve.New(), book, capacity, policytest.Trace(seed, 5000, capacity/16), refuse)
	})
}

// TestExample is the walk of the hand on seven images.
func TestExample(t *testing.T) {
	p := sieve.New()
	var events []sdk.Event
	for key := range sdk.Key(7) {
		events = append(events, sdk.Event{Kind: sdk.EventAdmitted, Key: key, Size: 1})
	}
	for _, key := range []sdk.Key{0, 1, 6} {
		events = append(events, sdk.Event{Kind: sdk.EventAccessed, Key: key, Count: 1})
	}
	if err := p.Observe(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a question changes nothing
		got, err := p.Select(t.Context(), time.Time{}, 7, 7)
		if want := []sdk.Key{2, 3, 4, 5, 0, 1, 6}; err != nil || !slices.Equal(got, want) {
			t.Fatalf("Select() = %v, %v, want %v", got, err, want)
		}
	}
}

func FuzzRestore(f *testing.F) {
	p := sieve.New()
	for i := range 20 {
		_ = p.Observe(f.Context(), []sdk.Event{{Kind: sdk.EventKind(1 + rand.IntN(3)), Key: sdk.Key(i % 7), Size: 5, Reason: 1}})
	}
	seed, _ := p.Snapshot(f.Context())
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		p := sieve.New()
		if p.Restore(t.Context(), b) != nil {
			return
		}
		if again, err := p.Snapshot(t.Context()); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("Snapshot() = %x, %v, restored from %x", again, err, b)
		}
	})
}
