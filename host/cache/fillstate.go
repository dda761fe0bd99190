package cache

import "fmt"

// phase is where a fill stands.
type phase int

// The phases of a fill. The arrows that exist:
//
//	reserving ─→ streaming ─→ verifying ─→ committing ─→ done
//	    │            │            │ (not to be stored) ──↗
//	    └────────────┴→ detached  │
//	    └────────────┴────────────┴→ failed
const (
	reserving  phase = iota // bytes are kept in memory while room is sought
	streaming               // bytes go to the staged file
	verifying               // every byte is here; the last block is withheld
	committing              // verified: clients get the rest while the file is committed
	done                    // over, and every client gets the whole image
	detached                // not stored any more: clients read the prefix, then go on by themselves
	failed                  // the origin broke off, or the bytes are wrong: clients are cut
)

func (p phase) String() string {
	return [...]string{"reserving", "streaming", "verifying", "committing", "done", "detached", "failed"}[p]
}

// fillState is the fill as a pure state machine: it decides what may happen
// next and how far clients may read, and does nothing itself. Its owner
// serialises the calls. An event that the present phase does not know is a
// programming error and panics.
type fillState struct {
	phase phase
	size  int64 // bytes of the whole image; -1: the origin did not say
	have  int64 // bytes that can be read: in memory or on disk
	err   error // detached, failed: why
	bar   error // why the image may not be stored though it is whole; nil: it may
}

// event checks that the machine is in one of the phases.
func (s *fillState) event(name string, in ...phase) {
	for _, p := range in {
		if s.phase == p {
			return
		}
	}
	panic(fmt.Sprintf("fill: %s while %s", name, s.phase))
}

// granted: there is room for the image, or for its first part.
func (s *fillState) granted() {
	s.event("granted", reserving)
	s.phase = streaming
}

// resumed: the first n bytes are on disk already, and room for them is
// charged.
func (s *fillState) resumed(n int64) {
	s.event("resumed", reserving)
	s.phase, s.have = streaming, n
}

// wrote: n more bytes can be read. It fails the fill when the origin sends
// more than it announced, and reports whether the fill goes on.
func (s *fillState) wrote(n int64) bool {
	s.event("wrote", reserving, streaming)
	s.have += n
	if s.size >= 0 && s.have > s.size {
		s.have = s.size
		s.fail(fmt.Errorf("%w: the origin sent more than the %d bytes that it announced", ErrVerify, s.size))
		return false
	}
	return true
}

// ended: the origin's stream came to a clean end. It reports whether the
// length is right, so that the digest remains to be checked.
func (s *fillState) ended() bool {
	s.event("ended", streaming)
	if s.size >= 0 && s.have != s.size {
		s.fail(fmt.Errorf("%w: the origin sent %d of %d bytes", ErrVerify, s.have, s.size))
		return false
	}
	s.size = s.have
	s.phase = verifying
	return true
}

// verified: size and digest are right. It reports whether to commit: a barred
// fill ends here, its clients served.
func (s *fillState) verified() bool {
	s.event("verified", verifying)
	if s.bar != nil {
		s.phase = done
		return false
	}
	s.phase = committing
	return true
}

// committed: the commit has ended, well or not. Clients get the image either
// way.
func (s *fillState) committed() {
	s.event("committed", committing)
	s.phase = done
}

// detach: the image cannot be stored, for the reason err. What can be read
// stays readable.
func (s *fillState) detach(err error) {
	s.event("detach", reserving, streaming)
	s.phase, s.err = detached, err
}

// fail: the image cannot be had. A fill whose bytes were verified cannot fail.
func (s *fillState) fail(err error) {
	s.event("fail", reserving, streaming, verifying)
	s.phase, s.err = failed, err
}

// barTo forbids the commit, for the reason err. It reports whether the commit
// may already be running, so that its end must be awaited.
func (s *fillState) barTo(err error) bool {
	if s.bar == nil {
		s.bar = err
	}
	return s.phase == committing
}

// over reports whether the fill will change no more.
func (s *fillState) over() bool { return s.phase >= done }

// readable returns the offset up to which clients may read. Until the whole
// image is verified the last block is withheld, so that no client can receive
// a complete response made of wrong bytes. When the size is not known the
// last block is the one that ends at the newest byte.
func (s *fillState) readable() int64 {
	switch s.phase {
	case committing, done:
		return s.size
	}
	return min(s.have, holdFrom(s.size, s.have))
}

// holdFrom returns the offset from which bytes are withheld before the
// verdict.
func holdFrom(size, have int64) int64 {
	if size < 0 {
		return max(0, have-blockSize)
	}
	if size == 0 {
		return 0
	}
	return (size - 1) / blockSize * blockSize
}
