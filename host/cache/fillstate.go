package cache

import "fmt"

// phase is the phase that a fill is in.
type phase int

// The phases of a fill, and how they follow each other:
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
	detached                // no longer stored: clients read the prefix, then continue by themselves
	failed                  // the transfer broke off, or the bytes are wrong: responses are broken off
)

func (p phase) String() string {
	return [...]string{"reserving", "streaming", "verifying", "committing", "done", "detached", "failed"}[p]
}

// fillState is the fill as a pure state machine: it decides what may happen next
// and how far clients may read, but does nothing itself. Its methods are the
// events; the caller serialises them. An event that cannot happen in the current
// phase is a programming error and panics.
type fillState struct {
	phase phase
	size  int64 // bytes of the whole image; -1: the origin did not say
	have  int64 // bytes that can be read: in memory or on disk
	err   error // detached, failed: why
	bar   error // why the image must not be stored even if it is whole; nil: it may be
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

// granted says that there is room for the image, or for its first part.
func (s *fillState) granted() {
	s.event("granted", reserving)
	s.phase = streaming
}

// resumed says that the first n bytes are on disk already, and that their room is
// charged.
func (s *fillState) resumed(n int64) {
	s.event("resumed", reserving)
	s.phase, s.have = streaming, n
}

// wrote says that n more bytes can be read. If the origin sent more than it
// announced, the fill fails. wrote reports whether the fill goes on.
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

// ended says that the origin's stream ended normally. It reports whether the length
// is right; then the digest has still to be checked.
func (s *fillState) ended() bool {
	s.event("ended", streaming)
	if s.size >= 0 && s.have != s.size {
		s.fail(fmt.Errorf("%w: the origin sent only %d of the %d bytes that it announced", ErrVerify, s.have, s.size))
		return false
	}
	s.size = s.have
	s.phase = verifying
	return true
}

// verified says that size and digest are right. It reports whether to commit: if
// the fill is barred, it ends here, and its clients get the whole image.
func (s *fillState) verified() bool {
	s.event("verified", verifying)
	if s.bar != nil {
		s.phase = done
		return false
	}
	s.phase = committing
	return true
}

// committed says that the commit has ended. Clients get the whole image even if it
// failed.
func (s *fillState) committed() {
	s.event("committed", committing)
	s.phase = done
}

// detach says that the image cannot be stored, because of err. What can be read
// stays readable.
func (s *fillState) detach(err error) {
	s.event("detach", reserving, streaming)
	s.phase, s.err = detached, err
}

// fail says that the clients cannot get the image, because of err. A fill whose
// bytes were verified cannot fail.
func (s *fillState) fail(err error) {
	s.event("fail", reserving, streaming, verifying)
	s.phase, s.err = failed, err
}

// barTo forbids the commit, because of err. It reports whether the commit may be
// running already; then the caller must wait for its end.
func (s *fillState) barTo(err error) bool {
	if s.bar == nil {
		s.bar = err
	}
	return s.phase == committing
}

// over reports whether the fill will not change any more.
func (s *fillState) over() bool { return s.phase >= done }

// readable returns the offset up to which clients may read. Until the whole image
// is verified, the last block is withheld, so that no client can receive a complete
// response with wrong bytes. If the size is not known, the block that ends at the
// newest byte is withheld.
func (s *fillState) readable() int64 {
	switch s.phase {
	case committing, done:
		return s.size
	}
	return min(s.have, holdFrom(s.size, s.have))
}

// holdFrom returns the offset from which bytes are withheld until the image is
// verified.
func holdFrom(size, have int64) int64 {
	if size < 0 {
		return max(0, have-blockSize)
	}
	if size == 0 {
		return 0
	}
	return (size - 1) / blockSize * blockSize
}
