package space

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestReservationsSum grows and ends reservations at random: the pool holds the
// sum of what is reserved and committed, never more than its limit, and nothing
// of what was ended twice.
func TestReservationsSum(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p := NewPool(1000, true)
		f := NewFree(nil, time.Now, 0)
		var open []*Reservation
		var committed int64
		for range 100 {
			switch n := rng.IntN(4); {
			case n == 0 || len(open) == 0:
				open = append(open, NewReservation(p, f))
			case n == 1:
				i := rng.IntN(len(open))
				r := open[i]
				open = append(open[:i], open[i+1:]...)
				if rng.IntN(2) == 0 {
					r.Release()
				} else {
					size := rng.Int64N(r.Bytes() + 1)
					r.Commit(size)
					committed += size
				}
				r.Release()
				r.Commit(5)
				if ok, _, _ := r.Grow(1); ok {
					t.Fatalf("seed %d: a reservation that has ended grows", seed)
				}
			default:
				r := open[rng.IntN(len(open))]
				_, _, _ = r.Grow(rng.Int64N(200))
				r.OnDisk(rng.Int64N(r.Bytes()+1), 0)
				if rng.IntN(8) == 0 {
					if r.Written(); r.Bytes() != r.written.Load() {
						t.Fatalf("seed %d: %d bytes stay reserved for a file of %d", seed, r.Bytes(), r.written.Load())
					}
				}
			}
			want, unwritten := committed, int64(0)
			for _, r := range open {
				want += r.Bytes()
				unwritten += r.Bytes() - r.written.Load()
			}
			if got := p.Unwritten(); got != unwritten {
				t.Fatalf("seed %d: %d bytes are reserved and not written, want %d", seed, got, unwritten)
			}
			if total, _ := p.State(); total != want || total > 1000 {
				t.Fatalf("seed %d: %d bytes are charged, want %d of at most 1000", seed, total, want)
			}
			if n := p.Reservations(); n != len(open) {
				t.Fatalf("seed %d: %d reservations are open, want %d", seed, n, len(open))
			}
		}
	}
}
