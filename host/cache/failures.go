package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

// failure is a kind of reason why a queued image is not in the cache.
type failure struct {
	word string

	// first and most bound the pause before the next try, which doubles with
	// each. What will fail in the same way is tried once a day in the end.
	first, most time.Duration
}

const (
	// firstRetryOfQueued is short, as most of what fails is mended soon.
	firstRetryOfQueued = time.Second
	// firstRetryOfWhole is for what costs a transfer, or a worker for a minute.
	firstRetryOfWhole = time.Minute
	// mostRetryOfAway is for an origin that will be back: a request in five
	// minutes for each image.
	mostRetryOfAway = 5 * time.Minute
	// mostRetryOfRoom is for a cache that is full of what may not leave.
	mostRetryOfRoom = time.Hour
	// mostRetryOfAll is for what will fail in the same way.
	mostRetryOfAll = 24 * time.Hour
)

// kindOf returns the kind of a failure.
func kindOf(err error) failure {
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
	}
	var disk diskError
	switch {
	case is(ErrVerify):
		return failure{"wrong bytes", firstRetryOfWhole, mostRetryOfAll}
	case is(origin.ErrSlow):
		return failure{"too slow", firstRetryOfWhole, mostRetryOfAll}
	case is(origin.ErrDenied):
		return failure{"denied", firstRetryOfQueued, mostRetryOfAll}
	case is(ErrNotFound, ErrBadID):
		return failure{"not found", firstRetryOfQueued, mostRetryOfAll}
	case is(errNotAdmitted):
		return failure{"not admitted", firstRetryOfWhole, mostRetryOfAll}
	case errors.As(err, &disk):
		return failure{"the disk failed", firstRetryOfQueued, mostRetryOfAway}
	case is(ErrNoSpace):
		return failure{"no room", firstRetryOfWhole, mostRetryOfRoom}
	case is(origin.ErrUnavailable):
		return failure{"unavailable", firstRetryOfQueued, mostRetryOfAway}
	}
	return failure{"other", firstRetryOfQueued, mostRetryOfAway}
}

// pause is how long to wait after so many tries that failed before this one.
func (f failure) pause(tries int) time.Duration {
	const doublings = 20 // of a second: more than a day
	return min(f.first<<min(tries, doublings), f.most)
}

// tally counts failures, so that the log has one line in a minute for them and
// not one for each.
type tally struct {
	since  time.Time // of the first that was not told; zero: there is none
	counts map[string]int
	id     string // of the last
	err    error
}

// tallyTime is for how long failures are counted before they are told.
const tallyTime = time.Minute

// add counts the failure of an image.
func (t *tally) add(now time.Time, kind failure, id string, err error) {
	if t.since.IsZero() {
		t.since, t.counts = now, map[string]int{}
	}
	t.counts[kind.word]++
	t.id, t.err = id, err
}

// due is when the failures are to be told; zero: there are none.
func (t *tally) due() time.Time {
	if t.since.IsZero() {
		return time.Time{}
	}
	return t.since.Add(tallyTime)
}

// tell logs what was counted, and begins anew.
func (t *tally) tell(log *slog.Logger, queued int) {
	if t.since.IsZero() {
		return
	}
	sum, words := 0, []string{}
	for _, word := range slices.Sorted(maps.Keys(t.counts)) {
		sum += t.counts[word]
		words = append(words, fmt.Sprintf("%s: %d", word, t.counts[word]))
	}
	log.Warn("queued images could not be fetched and are tried again", "failures", sum,
		"reasons", strings.Join(words, ", "), "queued", queued, "last", t.id, "error", t.err)
	*t = tally{}
}
