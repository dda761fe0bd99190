package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
)

// script is a service whose images go through states, a step with each look.
type script struct {
	images map[string][]cache.ImageInfo
	queued []string // what was asked for
	broken error    // of the queue
}

func (s *script) Image(_ context.Context, id string) (cache.ImageInfo, error) {
	states := s.images[id]
	if len(states) == 0 {
		return cache.ImageInfo{}, errors.New("the service is gone")
	}
	if len(states) > 1 {
		s.images[id] = states[1:]
	}
	states[0].ID = id
	return states[0], nil
}

func (s *script) Queue(_ context.Context, id string) (bool, error) {
	s.queued = append(s.queued, id)
	return true, s.broken
}

func (s *script) Queued(context.Context) ([]cache.QueueEntry, error) {
	return []cache.QueueEntry{{ID: "second"}, {ID: "first"}}, s.broken
}

// failed is the state of an image that failed for a reason, at a time.
func failed(reason string, at int64) cache.ImageInfo {
	return cache.ImageInfo{State: cache.StateQueued, Error: reason, History: []cache.Event{{Time: time.Unix(at, 0)}}}
}

// prefetch lets a waiter follow a script, and returns what it tells.
func prefetch(ctx context.Context, s *script, ids ...string) (told []string, results []cache.ImageInfo, err error) {
	w := waiter{service: s, stale: map[string]string{}, tell: func(i cache.ImageInfo, last bool) {
		told = append(told, fmt.Sprint(i.ID, " ", i.State, " ", last))
	}}
	if ids, err = w.enqueue(ctx, ids); err == nil {
		results, err = w.wait(ctx, ids)
	}
	return told, results, err
}

// TestPrefetchWaits for each image, until it is cached or has failed since it was
// queued, if only for the reason for which it had failed before.
func TestPrefetchWaits(t *testing.T) {
	queued, filling := cache.ImageInfo{State: cache.StateQueued}, cache.ImageInfo{State: cache.StateFilling}
	cached, absent := cache.ImageInfo{State: cache.StateCached}, cache.ImageInfo{State: cache.StateAbsent}
	for name, tt := range map[string]struct {
		states []cache.ImageInfo // the first before it is queued
		want   []string
	}{
		"there already":      {[]cache.ImageInfo{cached}, []string{"a cached true"}},
		"fetched":            {[]cache.ImageInfo{absent, queued, filling, cached}, []string{"a queued false", "a filling false", "a cached true"}},
		"fails":              {[]cache.ImageInfo{absent, queued, failed("gone", 1)}, []string{"a queued false", "a queued true"}},
		"fails again":        {[]cache.ImageInfo{failed("gone", 1), failed("gone", 1), failed("gone", 2)}, []string{"a queued false", "a queued true"}},
		"fails while filled": {[]cache.ImageInfo{failed("gone", 1), filling, failed("gone", 1)}, []string{"a filling false", "a queued true"}},
		"is deleted":         {[]cache.ImageInfo{absent, filling, absent}, []string{"a filling false", "a absent true"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{images: map[string][]cache.ImageInfo{"a": tt.states, "b": {cached}}}
				told, results, err := prefetch(t.Context(), s, "a", "b")
				told = slices.DeleteFunc(told, func(line string) bool { return line == "b cached true" })
				if err != nil || !slices.Equal(told, tt.want) {
					t.Errorf("%v; it tells %q, want %q", err, told, tt.want)
				}
				if !slices.Equal(s.queued, []string{"a", "b"}) || len(results) != 2 || results[0].ID != "a" || results[1].ID != "b" {
					t.Errorf("queued were %q, the results are %v", s.queued, results)
				}
			})
		})
	}
}

// TestPrefetchTakesOverTheQueue: without ids nothing is queued, and what is
// queued is waited for.
func TestPrefetchTakesOverTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{images: map[string][]cache.ImageInfo{"first": {{State: cache.StateCached}}, "second": {{State: cache.StateFilling}, {State: cache.StateCached}}}}
		_, results, err := prefetch(t.Context(), s)
		if err != nil || len(s.queued) != 0 || len(results) != 2 || results[0].ID != "second" || results[1].ID != "first" {
			t.Errorf("%v; queued were %q, the results are %v", err, s.queued, results)
		}
	})
}

// TestPrefetchEnds when the service does, or the caller has no more patience.
func TestPrefetchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		forever := &script{images: map[string][]cache.ImageInfo{"a": {{State: cache.StateFilling}}}}
		if _, _, err := prefetch(ctx, forever, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without an end: %v, want %v", err, context.DeadlineExceeded)
		}
		if _, _, err := prefetch(t.Context(), &script{}, "a"); err == nil {
			t.Error("it waits for a service that is gone")
		}
		full := &script{images: map[string][]cache.ImageInfo{"a": {{State: cache.StateAbsent}}}, broken: cache.ErrNoSpace}
		for _, ids := range [][]string{nil, {"a"}} {
			if _, _, err := prefetch(t.Context(), full, ids...); !errors.Is(err, cache.ErrNoSpace) {
				t.Errorf("prefetch(%q) = %v, want %v", ids, err, cache.ErrNoSpace)
			}
		}
	})
}
