package gdsf

import (
	"bytes"
	"errors"
	"testing"

	"github.com/imgcache/imgcache-host/plugins/builtin/internal/policytest"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// costs are the two policies under test.
var costs = []struct {
	name string
	cost func(policytest.Request) float64
}{
	{"hit", func(policytest.Request) float64 { return 1 }},
	{"byte", func(r policytest.Request) float64 { return float64(r.Size) }},
}

func open(t *testing.T, cost string) *Policy {
	t.Helper()
	p := New()
	if err := p.Configure(t.Context(), sdk.Settings{Options: sdk.Config{"cost": cost}}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestConformance(t *testing.T) {
	sdktest.Manifest(t, Manifest)
	for _, c := range costs {
		t.Run(c.name, func(t *testing.T) {
			sdktest.Stateful(t, func(t *testing.T) sdk.Stateful { return open(t, c.name) })
		})
	}
}

// textbook is GDSF with a search through all images for the lowest priority.
type textbook struct {
	capacity, used uint64
	cost           func(policytest.Request) float64
	refuse         policytest.Refusal
	requests       int
	age            float64
	cache          map[sdk.Key]*object
}

type object struct {
	policytest.Request
	freq     float64
	priority float64
}

func (b *textbook) prioritize(o *object) {
	o.priority = b.age + o.freq*b.cost(o.Request)/float64(o.Size)
}

func (b *textbook) lowest() (low *object) {
	for _, o := range b.cache {
		if low == nil || o.priority < low.priority || o.priority == low.priority && o.Key < low.Key {
			low = o
		}
	}
	return low
}

func (b *textbook) Request(r policytest.Request) (left []sdk.Key) {
	defer func() { b.requests++ }()
	if o := b.cache[r.Key]; o != nil {
		o.freq++
		b.prioritize(o)
		return nil
	}
	refused := 0
	for b.used+r.Size > b.capacity && refused < policytest.Patience {
		o := b.lowest()
		b.age = o.priority
		if b.refuse(b.requests, o.Key) {
			b.prioritize(o)
			refused++
			continue
		}
		left = append(left, o.Key)
		b.used -= o.Size
		delete(b.cache, o.Key)
	}
	if b.used+r.Size <= b.capacity {
		o := &object{Request: r, freq: 1}
		b.prioritize(o)
		b.cache[r.Key] = o
		b.used += r.Size
	}
	return left
}

func TestAgreesWithTextbook(t *testing.T) {
	const capacity = 10_000
	for _, c := range costs {
		t.Run(c.name, func(t *testing.T) {
			policytest.Each(t, func(t *testing.T, seed uint64, refuse policytest.Refusal) {
				book := &textbook{capacity: capacity, cost: c.cost, refuse: refuse, cache: map[sdk.Key]*object{}}
				policytest.Agree(t, open(t, c.name), book, capacity, policytest.Trace(seed, 5000, capacity/16), refuse)
			})
		})
	}
}

// TestEvictionOutOfTurn: when the host lets an image go that the policy would
// have kept, the others do not grow old by its priority.
func TestEvictionOutOfTurn(t *testing.T) {
	p := New()
	err := p.Observe(t.Context(), []sdk.Event{
		{Kind: sdk.EventAdmitted, Key: 1, Size: 100},
		{Kind: sdk.EventAdmitted, Key: 2, Size: 1},
		{Kind: sdk.EventAccessed, Key: 2, Count: 1000},
		{Kind: sdk.EventRemoved, Key: 2, Reason: sdk.ReasonEvicted},
	})
	if err != nil || p.age != 0 {
		t.Errorf("L is %v, %v, want 0", p.age, err)
	}
}

func TestConfigure(t *testing.T) {
	for cost, bad := range map[string]bool{"": false, "hit": false, "byte": false, "latency": true, "HIT": true} {
		err := New().Configure(t.Context(), sdk.Settings{Options: sdk.Config{"cost": cost}})
		if errors.Is(err, sdk.ErrInvalid) != bad || (err == nil) == bad {
			t.Errorf("Configure(cost %q) = %v", cost, err)
		}
	}
}

func FuzzRestore(f *testing.F) {
	p := New()
	for i := range sdk.Key(20) {
		_ = p.Observe(f.Context(), []sdk.Event{
			{Kind: sdk.EventAdmitted, Key: i, Size: uint64(5 * i)},
			{Kind: sdk.EventRemoved, Key: i / 2, Reason: sdk.ReasonEvicted},
		})
	}
	seed, _ := p.Snapshot(f.Context())
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		p := New()
		if p.Restore(t.Context(), b) != nil {
			return
		}
		once, _ := p.Snapshot(t.Context())
		if err := p.Restore(t.Context(), once); err != nil {
			t.Fatalf("Restore(Snapshot()) = %v", err)
		}
		if twice, _ := p.Snapshot(t.Context()); !bytes.Equal(once, twice) {
			t.Fatalf("Snapshot() = %x, restored from %x", twice, once)
		}
	})
}
