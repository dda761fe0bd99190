package check

import (
	"testing"
	"time"
)

func TestDue(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	var s State
	if !s.Due(start, time.Hour) {
		t.Error("an image that nobody asked about is not due")
	}
	s.Confirm(start, time.Minute)
	for _, c := range []struct {
		seconds int
		after   time.Duration
		want    bool
	}{
		{0, time.Hour, false},
		{59, time.Hour, false},
		{60, time.Hour, true},
		{0, 0, true},
		{10, 10 * time.Second, true},
		{9, 10 * time.Second, false},
	} {
		if got := s.Due(at(c.seconds), c.after); got != c.want {
			t.Errorf("after %d s, trusted for at most %v: due %v, want %v", c.seconds, c.after, got, c.want)
		}
	}
}

// TestPausesGrow: each failure doubles the pause up to five minutes, an origin
// may ask for more, and an answer ends it.
func TestPausesGrow(t *testing.T) {
	now := time.Unix(1000, 0)
	var s State
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		want *= time.Second
		s.Fail(now, 0)
		if !s.Paused(now.Add(want-1)) || s.Paused(now.Add(want)) {
			t.Errorf("the pause is not %v", want)
		}
		now = now.Add(want)
	}
	s.Fail(now, time.Hour)
	if !s.Paused(now.Add(time.Hour - 1)) {
		t.Error("the origin is asked before it wants to be")
	}
	s.Confirm(now, time.Hour)
	s.Fail(now, 0)
	if !s.Paused(now.Add(9*time.Second)) || s.Paused(now.Add(10*time.Second)) {
		t.Error("the first pause after an answer is not 10 s")
	}
}

func TestRefuted(t *testing.T) {
	var s State
	if s.Refuted() {
		t.Error("nobody has asked, and it is refuted")
	}
	now := time.Unix(1e9, 0)
	s.Confirm(now, time.Hour)
	s.Refute()
	s.Fail(now, 0)
	if !s.Refuted() {
		t.Error("a question that fails takes back what was answered before")
	}
	s.Confirm(now, time.Hour)
	if s.Refuted() {
		t.Error("it is confirmed, and refuted")
	}
}

// TestFailsOnce: requests that waited for the same question, or the same
// transfer, tell of one failure.
func TestFailsOnce(t *testing.T) {
	var s State
	now := time.Unix(1e9, 0)
	for range 8 {
		s.Fail(now.Add(time.Second), 0)
	}
	if at := now.Add(12 * time.Second); s.Paused(at) {
		t.Error("eight requests make a longer pause than one")
	}
	s.Fail(now.Add(2*time.Second), 30*time.Second)
	if !s.Paused(now.Add(31 * time.Second)) {
		t.Error("the origin is asked before it wants to be")
	}
}
