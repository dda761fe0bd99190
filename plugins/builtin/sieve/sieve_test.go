package sieve_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/plugins/builtin/policytest"
	"github.com/imgcache/imgcache-host/plugins/builtin/sieve"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestConformance(t *testing.T) {
	sdktest.Manifest(t, sieve.Manifest)
	sdktest.Stateful(t, func(*testing.T) sdk.Stateful { return sieve.New() })
}

func TestAgreesWithTextbook(t *testing.T) {
	policytest.Agree(t, 30_000, func(*testing.T) sdk.Stateful { return sieve.New() }, policytest.SIEVE)
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
