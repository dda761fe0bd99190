package policytest

import (
	"slices"

	"github.com/imgcache/imgcache-host/sdk"
)

// SIEVE is a queue, the oldest first, and a hand that walks along it.
func SIEVE() Textbook { return &sieve{} }

type sieve struct {
	queue []marked
	hand  int // index; 0 when it has passed the newest
}

type marked struct {
	Request
	visited bool
}

func (s *sieve) find(key sdk.Key) int {
	return slices.IndexFunc(s.queue, func(im marked) bool { return im.Key == key })
}

func (s *sieve) walk(to int) {
	s.hand = to
	if s.hand == len(s.queue) {
		s.hand = 0
	}
}

// Resize implements [Textbook].
func (s *sieve) Resize(uint64) {}

// Access implements [Textbook].
func (s *sieve) Access(key sdk.Key) bool {
	i := s.find(key)
	if i >= 0 {
		s.queue[i].visited = true
	}
	return i >= 0
}

// Admit implements [Textbook].
func (s *sieve) Admit(r Request) { s.queue = append(s.queue, marked{Request: r}) }

// Next implements [Textbook].
func (s *sieve) Next() (Request, bool) {
	if len(s.queue) == 0 {
		return Request{}, false
	}
	for s.queue[s.hand].visited {
		s.queue[s.hand].visited = false
		s.walk(s.hand + 1)
	}
	return s.queue[s.hand].Request, true
}

// Stay implements [Textbook]: the hand goes on.
func (s *sieve) Stay(sdk.Key) { s.walk(s.hand + 1) }

// Leave implements [Textbook]: an eviction is a search, whoever leaves by it.
func (s *sieve) Leave(key sdk.Key, why sdk.Reason) {
	if why == sdk.ReasonEvicted {
		s.Next()
	}
	i, hand := s.find(key), s.hand
	if i < hand {
		hand--
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	s.walk(hand)
}
