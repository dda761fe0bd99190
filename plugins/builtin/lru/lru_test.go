package lru_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/plugins/builtin/internal/policytest"
	"github.com/imgcache/imgcache-host/plugins/builtin/lru"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestConformance(t *testing.T) {
	sdktest.Manifest(t, lru.Manifest)
	sdktest.Scorer(t, func(*testing.T) sdk.Scorer { return lru.New() })
}

// TestAgreesWithTextbook runs a trace, with time that moves on by less than a
// float64 can tell at today's dates, through the policy with the host's rule
// for equal scores, and through a list that is reordered at each access.
func TestAgreesWithTextbook(t *testing.T) {
	const capacity = 10_000
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC).UnixNano()
	rnd := rand.New(rand.NewPCG(1, 1))
	var book []policytest.Request // oldest first
	var cache []sdk.Record
	used := uint64(0)
	for i, r := range policytest.Trace(1, 5000, capacity/16) {
		now += 1 + rnd.Int64N(100)
		if at := slices.Index(book, r); at >= 0 {
			book = append(slices.Delete(book, at, at+1), r)
			cache[slices.IndexFunc(cache, func(e sdk.Record) bool { return e.Key == r.Key })].Accessed = now
			continue
		}
		for used+r.Size > capacity {
			next := lowest(t, cache)
			if got, want := cache[next].Key, book[0].Key; got != want {
				t.Fatalf("request %d: %d leaves, the textbook says %d", i, got, want)
			}
			used -= book[0].Size
			book, cache = book[1:], slices.Delete(cache, next, next+1)
		}
		used += r.Size
		book = append(book, r)
		cache = append(cache, sdk.Record{Key: r.Key, Size: r.Size, Admitted: now, Accessed: now})
	}
}

// lowest returns the index of the record that a host lets go first.
func lowest(t *testing.T, records []sdk.Record) int {
	t.Helper()
	scores := make([]float64, len(records))
	if err := lru.New().Score(t.Context(), time.Now(), records, scores); err != nil {
		t.Fatal(err)
	}
	low := 0
	for i := range records {
		if cmp.Or(
			cmp.Compare(scores[i], scores[low]),
			cmp.Compare(records[i].Accessed, records[low].Accessed),
			cmp.Compare(records[i].Key, records[low].Key),
		) < 0 {
			low = i
		}
	}
	return low
}
