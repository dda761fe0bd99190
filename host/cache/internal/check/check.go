// Package check keeps when the origin of a cached image was last asked about it,
// and when it is to be asked again.
package check

import (
	"sync"
	"time"
)

const (
	// firstPause is how long an origin that could not answer is left alone:
	// hits in that time do not wait for it. It is about what a front end takes
	// to restart.
	firstPause = 10 * time.Second
	// maxPause bounds the pause, which doubles with each failure: when an
	// origin comes back after a night it is noticed within five minutes.
	maxPause = 5 * time.Minute
)

// State is how the questions about one cached image went. The zero value is an
// image that nobody has asked about. It may be used by several goroutines.
type State struct {
	mu        sync.Mutex
	confirmed time.Time     // when the origin last had this version; zero: not since the start
	trust     time.Duration // how long that holds
	failed    time.Time     // when the questions began to fail; zero: the last one did not
	pause     time.Duration // after the last failure
	retry     time.Time     // no question before
	refuted   bool          // the last answer was not that the origin has this version
}

// Due reports whether the origin is to be asked at now, if a version is trusted
// for at most after.
func (s *State) Due(now time.Time, after time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmed.IsZero() || now.Sub(s.confirmed) >= min(s.trust, after)
}

// Confirm says that the origin has the version at now, which holds for trust.
func (s *State) Confirm(now time.Time, trust time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed, s.trust, s.refuted = now, trust, false
	s.failed, s.pause, s.retry = time.Time{}, 0, time.Time{}
}

// Refute says that the origin answered that it has another version, or none, or
// hands it out no more. Until it confirms this one, whoever asks for the image is
// not to get it before the origin was asked.
func (s *State) Refute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuted = true
}

// Refuted reports whether the origin's last answer was not this version.
func (s *State) Refuted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refuted
}

// Fail says that a question could not be answered, or what was announced could
// not be delivered. No other is worth while for a pause, which grows with each
// failure and is at least what the origin asks for.
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

// Paused reports whether the origin is left alone after a failure.
func (s *State) Paused(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.retry)
}

// Confirmed returns when the origin last had this version; zero: not since the
// start.
func (s *State) Confirmed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmed
}
