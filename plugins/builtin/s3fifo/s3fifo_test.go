package s3fifo

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/plugins/builtin/policytest"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestConformance(t *testing.T) {
	sdktest.Manifest(t, Manifest)
	sdktest.Stateful(t, func(*testing.T) sdk.Stateful { return New() })
}

// TestAgreesWithTextbook has the parameters of the paper, and others.
func TestAgreesWithTextbook(t *testing.T) {
	for _, c := range []struct {
		options sdk.Config
		book    policytest.S3FIFO
	}{
		{nil, policytest.S3FIFO{Small: 0.1, Ghost: 0.9, Threshold: 2}},
		{sdk.Config{"small": "0.4", "ghost": "0.3", "promote": "1"}, policytest.S3FIFO{Small: 0.4, Ghost: 0.3, Threshold: 1}},
		{sdk.Config{"small": "0.05", "ghost": "3", "promote": "3"}, policytest.S3FIFO{Small: 0.05, Ghost: 3, Threshold: 3}},
	} {
		t.Run(fmt.Sprint(c.options), func(t *testing.T) {
			open := func(t *testing.T) sdk.Stateful {
				p := New()
				if err := p.Configure(t.Context(), sdk.Settings{Options: c.options}); err != nil {
					t.Fatal(err)
				}
				return p
			}
			var books []*policytest.S3FIFO
			policytest.Agree(t, 30_000, open, func() policytest.Textbook {
				book := c.book
				books = append(books, &book)
				return &book
			})
			promoted, returned := 0, 0
			for _, book := range books {
				promoted, returned = promoted+book.Promoted, returned+book.Returned
			}
			if promoted < 100 || returned < 100 {
				t.Errorf("%d images were promoted and %d came back: the traces prove little", promoted, returned)
			}
		})
	}
}

func observe(t *testing.T, p *Policy, events ...sdk.Event) {
	t.Helper()
	if err := p.Observe(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

// TestGhostsAreBounded sends a million tiny images through a huge cache.
func TestGhostsAreBounded(t *testing.T) {
	p := New()
	observe(t, p, sdk.Event{Kind: sdk.EventCapacity, Size: 1 << 50})
	for key := range sdk.Key(200_000) {
		observe(t, p,
			sdk.Event{Kind: sdk.EventAdmitted, Key: key, Size: 1},
			sdk.Event{Kind: sdk.EventRemoved, Key: key, Reason: sdk.ReasonEvicted})
	}
	if n := p.set.Queue(ghost).Len; n != maxGhosts {
		t.Errorf("%d ghosts, want %d", n, maxGhosts)
	}
	observe(t, p, sdk.Event{Kind: sdk.EventCapacity, Size: 100})
	if n := p.set.Queue(ghost).Bytes; n != 90 {
		t.Errorf("the ghosts stand for %d bytes of a capacity of 100, want 90", n)
	}
}

// TestOnlyEvictionMakesGhosts: an image that was deleted or replaced comes
// back as a stranger.
func TestOnlyEvictionMakesGhosts(t *testing.T) {
	for reason, want := range map[sdk.Reason]uint8{
		sdk.ReasonEvicted: main, sdk.ReasonDeleted: small, sdk.ReasonReplaced: small, sdk.ReasonCorrupt: small,
	} {
		p := New()
		observe(t, p,
			sdk.Event{Kind: sdk.EventCapacity, Size: 100},
			sdk.Event{Kind: sdk.EventAdmitted, Key: 1, Size: 10},
			sdk.Event{Kind: sdk.EventRemoved, Key: 1, Reason: reason},
			sdk.Event{Kind: sdk.EventAdmitted, Key: 1, Size: 10})
		if got := p.set.Node(p.set.Find(1)).In; got != want {
			t.Errorf("after reason %d the image is admitted to queue %d, want %d", reason, got, want)
		}
	}
}

func TestConfigure(t *testing.T) {
	for _, tt := range []struct {
		options sdk.Config
		bad     bool
	}{
		{sdk.Config{}, false},
		{sdk.Config{"small": "0.25", "ghost": "0"}, false},
		{sdk.Config{"small": "0"}, true},
		{sdk.Config{"small": "1"}, true},
		{sdk.Config{"small": "NaN"}, true},
		{sdk.Config{"ghost": "-1"}, true},
		{sdk.Config{"ghost": "+Inf"}, true},
		{sdk.Config{"promote": "3"}, false},
		{sdk.Config{"promote": "0"}, true},
		{sdk.Config{"promote": "4"}, true},
		{sdk.Config{"promote": "1.5"}, true},
	} {
		err := New().Configure(t.Context(), sdk.Settings{Options: tt.options})
		if errors.Is(err, sdk.ErrInvalid) != tt.bad || (err == nil) == tt.bad {
			t.Errorf("Configure(%v) = %v", tt.options, err)
		}
	}
}

func FuzzRestore(f *testing.F) {
	p := New()
	for i := range sdk.Key(40) {
		_ = p.Observe(f.Context(), []sdk.Event{
			{Kind: sdk.EventCapacity, Size: 50},
			{Kind: sdk.EventAdmitted, Key: i, Size: 5},
			{Kind: sdk.EventAccessed, Key: i / 2, Count: uint32(i) % 3},
			{Kind: sdk.EventRemoved, Key: i / 3, Reason: sdk.ReasonEvicted},
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
		if _, err := p.Select(t.Context(), time.Time{}, 1000, 100); err != nil {
			t.Fatalf("Select() = %v", err)
		}
	})
}
