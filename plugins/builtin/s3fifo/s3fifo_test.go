package s3fifo

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/plugins/builtin/internal/policytest"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestConformance(t *testing.T) {
	sdktest.Manifest(t, Manifest)
	sdktest.Stateful(t, func(*testing.T) sdk.Stateful { return New() })
}

// textbook is S3-FIFO on three slices, the newest first.
type textbook struct {
	capacity uint64
	refuse   policytest.Refusal
	requests int
	s, m, g  []object
	promoted int // images that went from s to m
	returned int // images that were admitted to m because of their ghost
}

type object struct {
	policytest.Request
	freq int
}

func bytesOf(list []object) (n uint64) {
	for _, o := range list {
		n += o.Size
	}
	return n
}

func find(list []object, key sdk.Key) int {
	return slices.IndexFunc(list, func(o object) bool { return o.Key == key })
}

func push(list *[]object, o object) { *list = slices.Insert(*list, 0, o) }

func pop(list *[]object) object {
	last := len(*list) - 1
	o := (*list)[last]
	*list = (*list)[:last]
	return o
}

func (b *textbook) Request(r policytest.Request) (left []sdk.Key) {
	defer func() { b.requests++ }()
	for _, list := range [][]object{b.s, b.m} {
		if i := find(list, r.Key); i >= 0 {
			list[i].freq = min(list[i].freq+1, 3)
			return nil
		}
	}
	refused := 0
	for b.full(r.Size) && refused < policytest.Patience {
		key, gone := b.step()
		if gone {
			left = append(left, key)
		} else if key != nobody {
			refused++
		}
	}
	if b.full(r.Size) {
		return left
	}
	o := object{Request: r}
	if i := find(b.g, r.Key); i >= 0 {
		b.g = slices.Delete(b.g, i, i+1)
		push(&b.m, o)
		b.returned++
	} else {
		push(&b.s, o)
	}
	return left
}

func (b *textbook) full(more uint64) bool { return bytesOf(b.s)+bytesOf(b.m)+more > b.capacity }

const nobody = ^sdk.Key(0)

// step takes one image from the end of s or m and reports who left, or who
// was to leave and was refused.
func (b *textbook) step() (key sdk.Key, gone bool) {
	if len(b.s) > 0 && (len(b.m) == 0 || float64(bytesOf(b.s)) >= 0.1*float64(b.capacity)) {
		switch o := pop(&b.s); {
		case o.freq > 1:
			push(&b.m, o)
			b.promoted++
			return nobody, false
		case b.refuse(b.requests, o.Key):
			push(&b.s, o)
			return o.Key, false
		default:
			push(&b.g, o)
			for float64(bytesOf(b.g)) > 0.9*float64(b.capacity) {
				pop(&b.g)
			}
			return o.Key, true
		}
	}
	switch o := pop(&b.m); {
	case o.freq > 0:
		o.freq--
		push(&b.m, o)
		return nobody, false
	case b.refuse(b.requests, o.Key):
		push(&b.m, o)
		return o.Key, false
	default:
		return o.Key, true
	}
}

func TestAgreesWithTextbook(t *testing.T) {
	const capacity = 10_000
	policytest.Each(t, func(t *testing.T, seed uint64, refuse policytest.Refusal) {
		book := &textbook{capacity: capacity, refuse: refuse}
		policytest.Agree(t, New(), book, capacity, policytest.Trace(seed, 5000, capacity/64), refuse)
		if book.promoted < 20 || book.returned < 100 {
			t.Errorf("%d images were promoted and %d came back: the trace proves little", book.promoted, book.returned)
		}
	})
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
