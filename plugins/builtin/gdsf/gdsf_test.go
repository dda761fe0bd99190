package gdsf

import (
	"bytes"
	"errors"
	"testing"

	"github.com/imgcache/imgcache-host/plugins/builtin/policytest"
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

func TestAgreesWithTextbook(t *testing.T) {
	for _, c := range costs {
		t.Run(c.name, func(t *testing.T) {
			policytest.Agree(t, 30_000, func(t *testing.T) sdk.Stateful { return open(t, c.name) },
				func() policytest.Textbook { return policytest.GDSF(c.cost) })
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
