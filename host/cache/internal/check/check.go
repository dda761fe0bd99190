// Package check remembers when the origin of a cached image was last asked about
// it, and says when it is to be asked again.
package check

import (
	"sync"
	"time"
)

const (
	// firstPause is how long an origin is not asked again after it failed to
	// answer: hits in that time do not wait for it. A front end takes about
	// that long to restart.
	firstPause = 10 * time.Second
	// maxPause bounds the pause, which doubles with each failure: an origin that
	// comes back after a night is asked again within five minutes.
	maxPause = 5 * time.Minute
)

// State is what the origin last answered about one cached image. The zero value
// says that it was not asked yet. Several goroutines may use a State.
type State struct {
	mu        sync.Mutex
	confirmed time.Time     // when the origin last confirmed this version; zero: not since the start
	trust     time.Duration // how long that answer holds
	failed    time.Time     // when the questions began to fail; zero: the last one did not
	pause     time.Duration // after the last failure
	retry     time.Time     // the origin is not asked before this time
	refuted   bool          // the last answer did not confirm this version
}

// Due reports whether the origin is to be asked at the time now. A confirmation
// holds for after at most.
func (s *State) Due(now time.Time, after time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmed.IsZero() || now.Sub(s.confirmed) >= min(s.trust, after)
}

// Confirm says that the origin confirmed the version at the time now, which holds
// for trust.
func (s *State) Confirm(now time.Time, trust time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed, s.trust, s.refuted = now, trust, false
	s.failed, s.pause, s.retry = time.Time{}, 0, time.Time{}
}

// Refute says that the origin answered that it has another version or none, or no
// longer sends the image. Until it confirms this version, a request must not be
// served before the origin was asked.
func (s *State) Refute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuted = true
}

// Refuted reports whether the origin's last answer did not confirm this version.
func (s *State) Refuted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refuted
}

// Fail says that the origin did not answer, or could not deliver the image that
// it announced. It is not asked again for a pause, which grows with each failure
// and is at least what the origin asked for.
func (s *State) Fail(now time.Time, least time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed.IsZero() {
		s.failed = now
	}
	if now.Before(s.retry) {
		s.retry = latest(s.retry, now.Add(least))
		return
	}
	s.pause = min(max(firstPause, 2*s.pause), maxPause)
	s.retry = now.Add(max(s.pause, least))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Paused reports whether the origin is not to be asked yet because of a failure.
func (s *State) Paused(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.retry)
}

// Confirmed returns when the origin last confirmed this version; zero: not since
// the start.
func (s *State) Confirmed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmed
}
