package sdktest

import (
	"errors"
	"math/rand/v2"
	"slices"

	"github.com/imgcache/imgcache-host/sdk"
)

// snapshot returns the state of the policy, or false when it has no such
// capability.
func (h *history) snapshot() ([]byte, bool) {
	h.Helper()
	s, ok := h.policy.(sdk.Snapshotter)
	if !ok {
		return nil, false
	}
	b, err := s.Snapshot(h.Context())
	if errors.Is(err, sdk.ErrUnsupported) {
		return nil, false
	}
	if err != nil {
		h.Fatalf("Snapshot() = %v, want nil", err)
	}
	return b, true
}

// restore makes the policy, and the cache around it, like those of another.
func (h *history) restore(from *history, snapshot []byte) {
	h.Helper()
	if err := h.policy.(sdk.Snapshotter).Restore(h.Context(), snapshot); err != nil {
		h.Fatalf("Restore(%d bytes) = %v, want nil", len(snapshot), err)
	}
	h.clock = from.clock
	h.present = map[sdk.Key]uint64{}
	for key, size := range from.present {
		h.present[key] = size
	}
}

func testSnapshot(t T, open func() *history) {
	for seed := range uint64(5) {
		a, b := open(), open()
		a.live(rand.New(rand.NewPCG(seed, 6)), 300, 5000, evictAll)
		a.propose(1000, noLimit) // the host has an answer in hand
		snapshot, ok := a.snapshot()
		if !ok {
			return
		}
		b.live(rand.New(rand.NewPCG(seed, 7)), 100, 3000, evictAll) // must leave no trace
		b.restore(a, snapshot)
		for round := range uint64(10) {
			if x, y := a.all(), b.all(); !slices.Equal(x, y) {
				t.Fatalf("seed %d, round %d: the policy proposes\n%v\nthe restored one\n%v", seed, round, x, y)
			}
			rnd1, rnd2 := rand.New(rand.NewPCG(round, 8)), rand.New(rand.NewPCG(round, 8))
			a.live(rnd1, 40, 5000, refuseSome(rnd1, 4))
			b.live(rnd2, 40, 5000, refuseSome(rnd2, 4))
		}
	}
}

func testSnapshotEmpty(_ T, open func() *history) {
	a, b := open(), open()
	if snapshot, ok := a.snapshot(); ok {
		b.fill(3)
		b.restore(a, snapshot)
		b.all()
	}
}

func testSnapshotBroken(t T, open func() *history) {
	a := open()
	a.live(rand.New(rand.NewPCG(9, 9)), 300, 5000, evictAll)
	snapshot, ok := a.snapshot()
	if !ok {
		return
	}
	n := len(snapshot)
	broken := [][]byte{nil, []byte("no snapshot"), snapshot[:1], snapshot[:n/2], snapshot[:n-1], append(slices.Clone(snapshot), 0)}
	for _, b := range broken {
		err := open().policy.(sdk.Snapshotter).Restore(t.Context(), b)
		if !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("Restore(%d bytes of %d) = %v, want %v", len(b), len(snapshot), err, sdk.ErrInvalid)
		}
	}
}
