package simulate

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/plugins/builtin/fifo"
	"github.com/imgcache/imgcache-host/plugins/builtin/lfu"
	"github.com/imgcache/imgcache-host/plugins/builtin/lru"
	"github.com/imgcache/imgcache-host/sdk"
)

// zipf returns requests of objects some of which are far more wanted than
// others. With one is 0 sizes differ, and change at times.
func zipf(seed uint64, n int, one uint64) []trace.Access {
	rnd := rand.New(rand.NewPCG(seed, 1))
	z := rand.NewZipf(rnd, 1.2, 3, 200)
	list := make([]trace.Access, n)
	for i := range list {
		key := z.Uint64()
		size := cmp.Or(one, 1+key*7919%100)
		if one == 0 && rnd.IntN(200) == 0 {
			size += 1 + rnd.Uint64N(100)
		}
		list[i] = trace.Access{At: int64(i / 3), Key: sdk.KeyOf(string(rune(key + 1000))), Size: size}
	}
	return list
}

// naive counts the misses of a cache whose victim is whatever worst says.
func naive(requests []trace.Access, capacity uint64, worst func(cached []sdk.Record, at int) int) (s Stats) {
	var cached []sdk.Record
	used := uint64(0)
	drop := func(i int) {
		used -= cached[i].Size
		cached = slices.Delete(cached, i, i+1)
	}
	for at, a := range inOrder(requests) {
		s.Requests++
		s.Bytes += a.Size
		i := slices.IndexFunc(cached, func(r sdk.Record) bool { return r.Key == a.Key })
		if i >= 0 && cached[i].Size == a.Size {
			cached[i].Hits++
			cached[i].Accessed = a.At
			continue
		}
		if i >= 0 {
			drop(i)
		}
		s.Misses++
		s.MissedBytes += a.Size
		if a.Size > capacity {
			continue
		}
		for used+a.Size > capacity {
			i := worst(cached, at)
			s.Evictions++
			s.EvictedBytes += cached[i].Size
			drop(i)
		}
		cached = append(cached, sdk.Record{Key: a.Key, Size: a.Size, Admitted: a.At, Accessed: a.At})
		used += a.Size
	}
	return s
}

// lowest returns the place of the record with the lowest score, ties by age.
func lowest(records []sdk.Record, score func(*sdk.Record) float64) int {
	best := 0
	for i := range records {
		if d := cmp.Compare(score(&records[i]), score(&records[best])); d < 0 || d == 0 && records[i].Accessed < records[best].Accessed {
			best = i
		}
	}
	return best
}

func policyOf(name string, p any) Policy {
	return Policy{name, func(context.Context) (any, func(), error) { return p, func() {}, nil }}
}

// TestScoring compares scoring policies, and Belady's rule, with a cache that
// looks at everything each time.
func TestScoring(t *testing.T) {
	greedy := func(r *sdk.Record, now time.Time) float64 { // depends on the time
		return float64(r.Hits+1) / (float64(now.UnixNano()-r.Admitted) + 1)
	}
	ttl := func(r *sdk.Record, now time.Time) float64 { // does so late
		if now.Sub(time.Unix(0, r.Admitted)) > 2*time.Hour {
			return math.Inf(-1)
		}
		return float64(r.Accessed)
	}
	for seed := range uint64(5) {
		for _, one := range []uint64{0, 10} {
			requests := zipf(seed, 3000, one)
			if seed == 4 {
				for i := range requests {
					requests[i].At = int64(i) * int64(time.Minute)
				}
			}
			now := inOrder(requests)
			next := nextRequests(requests)
			for _, capacity := range []uint64{1, 90, 400, 2000} {
				byName := map[string]Stats{}
				results, err := Run(t.Context(), requests, []Policy{
					policyOf("lru", lru.New()), policyOf("fifo", fifo.New()), policyOf("lfu", lfu.New()),
					policyOf("greedy", sdk.ScoreFunc(greedy)), policyOf("ttl", sdk.ScoreFunc(ttl)),
				}, []uint64{capacity}, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range results {
					byName[r.Policy] = r.Stats
				}
				for name, worst := range map[string]func([]sdk.Record, int) int{
					"lru": func(l []sdk.Record, _ int) int {
						return lowest(l, func(r *sdk.Record) float64 { return float64(r.Accessed) })
					},
					"fifo": func(l []sdk.Record, _ int) int {
						return lowest(l, func(r *sdk.Record) float64 { return float64(r.Admitted) })
					},
					"lfu": func(l []sdk.Record, _ int) int {
						return lowest(l, func(r *sdk.Record) float64 { return float64(r.Hits) })
					},
					"greedy": func(l []sdk.Record, at int) int {
						return lowest(l, func(r *sdk.Record) float64 { return greedy(r, time.Unix(0, now[at].At)) })
					},
					"ttl": func(l []sdk.Record, at int) int {
						return lowest(l, func(r *sdk.Record) float64 { return ttl(r, time.Unix(0, now[at].At)) })
					},
					Belady: func(l []sdk.Record, at int) int {
						comes := func(r *sdk.Record) float64 {
							last := at - 1
							for requests[last].Key != r.Key {
								last--
							}
							return -float64(next[last])
						}
						return lowest(l, comes)
					},
				} {
					if want := naive(requests, capacity, worst); byName[name] != want {
						t.Errorf("seed %d, %s in %d bytes: %+v, want %+v", seed, name, capacity, byName[name], want)
					}
				}
				if one > 0 {
					for name, s := range byName {
						if s.Misses < byName[Belady].Misses {
							t.Errorf("%s has %d misses, Belady's rule %d", name, s.Misses, byName[Belady].Misses)
						}
					}
				}
			}
		}
	}
}

// liar proposes what nobody asked for, then nothing.
type liar struct{ calls int }

func (l *liar) Observe(context.Context, []sdk.Event) error { return nil }

func (l *liar) Select(context.Context, time.Time, uint64, int) ([]sdk.Key, error) {
	if l.calls++; l.calls%2 == 0 {
		return nil, nil
	}
	return []sdk.Key{1, 2, 3}, nil
}

// TestWrongPolicies: a policy that proposes nothing of use is helped by
// least-recently-used order, and one that fails ends the simulation.
func TestWrongPolicies(t *testing.T) {
	requests := zipf(1, 500, 10)
	results, err := Run(t.Context(), requests, []Policy{policyOf("liar", &liar{}), policyOf("lru", lru.New())}, []uint64{200}, nil)
	if err != nil {
		t.Fatal(err)
	}
	liar, lru := results[0], results[1]
	if liar.Misses != lru.Misses || liar.Helped != liar.Evictions || liar.Foreign == 0 {
		t.Errorf("%+v, want the misses of %+v", liar, lru)
	}
	nan := sdk.ScoreFunc(func(*sdk.Record, time.Time) float64 { return math.NaN() })
	if _, err := Run(t.Context(), requests, []Policy{policyOf("nan", nan)}, []uint64{200}, nil); err == nil {
		t.Error("scores that are no numbers are accepted")
	}
	if _, err := Run(t.Context(), requests, []Policy{policyOf("none", 1)}, []uint64{200}, nil); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("what is no policy: %v", err)
	}
}
