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

	// first and most bound the pause before the next try, which doubles with each
	// try. An image that keeps failing is tried once a day in the end.
	first, most time.Duration
}

const (
	// firstRetryOfQueued is short, since most failures are over soon.
	firstRetryOfQueued = time.Second
	// firstRetryOfWhole is for tries that cost a whole transfer, or occupy a
	// worker for a minute.
	firstRetryOfWhole = time.Minute
	// mostRetryOfAway is for an origin that will be back: each image causes one
	// request in five minutes.
	mostRetryOfAway = 5 * time.Minute
	// mostRetryOfRoom is for a cache that is full of images that may not leave.
	mostRetryOfRoom = time.Hour
	// mostRetryOfAll is for failures that will probably repeat.
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

// pause returns how long to wait after a failure. tries is how many tries had failed
// before it.
func (f failure) pause(tries int) time.Duration {
	const doublings = 20 // of a second: more than a day
	return min(f.first<<min(tries, doublings), f.most)
}

// tally counts failures, so that the log has one line a minute for all of them.
type tally struct {
	since  time.Time // of the first that was not logged; zero: there is none
	counts map[string]int
	id     string // of the last
	err    error
}

// tallyTime is how long failures are counted before they are logged.
const tallyTime = time.Minute

// add counts the failure of an image.
func (t *tally) add(now time.Time, kind failure, id string, err error) {
	if t.since.IsZero() {
		t.since, t.counts = now, map[string]int{}
	}
	t.counts[kind.word]++
	t.id, t.err = id, err
}

// due returns when the failures are to be logged; zero: there are none.
func (t *tally) due() time.Time {
	if t.since.IsZero() {
		return time.Time{}
	}
	return t.since.Add(tallyTime)
}

// tell logs what was counted, and starts to count again.
func (t *tally) tell(log *slog.Logger, queued int) {
	if t.since.IsZero() {
		return
	}
	sum, words := 0, []string{}
	for _, word := range slices.Sorted(maps.Keys(t.counts)) {
		sum += t.counts[word]
		words = append(words, fmt.Sprintf("%s: %d", word, t.counts[word]))
	}
	log.Warn("some queued images could not be fetched; they are tried again", "failures", sum,
		"reasons", strings.Join(words, ", "), "queued", queued, "last", t.id, "error", t.err)
	*t = tally{}
}
