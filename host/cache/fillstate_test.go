package cache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestFillState walks the machine at random and checks after each step what
// must hold of every fill.
func TestFillState(t *testing.T) {
	for seed := range uint64(2000) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			size := rng.Int64N(4 * blockSize)
			s := &fillState{size: size}
			if rng.IntN(4) == 0 {
				s.size = -1
			}
			var barred, storedAfterBar bool
			before := s.readable()
			for !s.over() {
				was := s.phase
				step(rng, s, size, &barred)
				if s.phase < was {
					t.Fatalf("went back from %v to %v", was, s.phase)
				}
				if was == verifying && s.phase == committing && barred {
					storedAfterBar = true
				}
				if s.phase != failed && s.phase != detached && s.readable() < before {
					t.Fatalf("%v: readable shrank from %d to %d", s.phase, before, s.readable())
				}
				before = s.readable()
				if r := s.readable(); r > s.have {
					t.Fatalf("%v: %d bytes are readable and %d there", s.phase, r, s.have)
				}
				whole := s.size >= 0 && s.readable() == s.size && s.size > 0
				if whole && s.phase != committing && s.phase != done {
					t.Fatalf("%v: the whole image is readable before the verdict", s.phase)
				}
			}
			if storedAfterBar {
				t.Fatal("a barred fill went on to commit")
			}
			if (s.phase == failed || s.phase == detached) && s.err == nil {
				t.Fatalf("%v without a reason", s.phase)
			}
		})
	}
}

// step applies one event that the phase allows.
func step(rng *rand.Rand, s *fillState, size int64, barred *bool) {
	boom := errors.New("boom")
	if rng.IntN(20) == 0 {
		if s.phase < committing {
			*barred = true
		}
		s.barTo(errDeleted)
		return
	}
	switch s.phase {
	case reserving, streaming:
		switch n := rng.IntN(20); {
		case n == 0:
			s.fail(boom)
		case n == 1:
			s.detach(boom)
		case s.phase == reserving && n < 8:
			s.granted()
		case s.have < size:
			s.wrote(min(rng.Int64N(blockSize)+1, size-s.have))
		case s.phase == streaming && n < 19:
			s.ended()
		default:
			s.wrote(1) // more than announced
		}
	case verifying:
		if rng.IntN(4) == 0 {
			s.fail(boom)
		} else {
			s.verified()
		}
	case committing:
		s.committed()
	}
}

func TestFillStateRefusesWhatCannotBe(t *testing.T) {
	for name, f := range map[string]func(*fillState){
		"verified before the end":  func(s *fillState) { s.verified() },
		"committed before verdict": func(s *fillState) { s.committed() },
		"failed after the verdict": func(s *fillState) { s.granted(); s.ended(); s.verified(); s.fail(errDeleted) },
		"wrote after detach":       func(s *fillState) { s.detach(errDeleted); s.wrote(1) },
		"granted twice":            func(s *fillState) { s.granted(); s.granted() },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("the machine allowed it")
				}
			}()
			f(&fillState{size: -1})
		})
	}
}

func TestHoldFrom(t *testing.T) {
	for _, tt := range []struct{ size, have, want int64 }{
		{0, 0, 0},
		{1, 1, 0},
		{blockSize, 10, 0},
		{blockSize + 1, 10, blockSize},
		{3 * blockSize, 0, 2 * blockSize},
		{-1, 10, 0},
		{-1, blockSize + 10, 10},
	} {
		if got := holdFrom(tt.size, tt.have); got != tt.want {
			t.Errorf("holdFrom(%d, %d) = %d, want %d", tt.size, tt.have, got, tt.want)
		}
	}
}
