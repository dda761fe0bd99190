package ranking_test

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/ranking"
	"github.com/imgcache/imgcache-host/sdk"
)

// TestOrder compares with sorting, of records many of which are equal but for
// their key.
func TestOrder(t *testing.T) {
	for n := range 300 {
		rnd := rand.New(rand.NewPCG(1, uint64(n)))
		records, scores := make([]sdk.Record, n), make([]float64, n)
		for i, key := range rnd.Perm(n) {
			records[i] = sdk.Record{Key: sdk.Key(key), Accessed: rnd.Int64N(4) - 2}
			scores[i] = []float64{0, math.Copysign(0, -1), 1, math.Inf(1), math.Inf(-1)}[rnd.IntN(5)]
		}
		for _, scores := range [][]float64{scores, nil} {
			want := make([]int, n)
			for i := range want {
				want[i] = i
			}
			slices.SortFunc(want, func(a, b int) int {
				by := cmp.Or(cmp.Compare(records[a].Accessed, records[b].Accessed), cmp.Compare(records[a].Key, records[b].Key))
				if scores != nil {
					by = cmp.Or(cmp.Compare(scores[a], scores[b]), by)
				}
				return by
			})
			if got := slices.Collect(ranking.Order(records, scores)); !slices.Equal(got, want) {
				t.Fatalf("%d records with the scores %v: the order is %v, want %v", n, scores, got, want)
			}
		}
	}
}

// batches is a policy that remembers how it was asked.
type batches struct {
	mu    sync.Mutex
	sizes []int
}

func (b *batches) Score(_ context.Context, _ time.Time, records []sdk.Record, scores []float64) error {
	b.mu.Lock()
	b.sizes = append(b.sizes, len(records))
	b.mu.Unlock()
	for i, r := range records {
		switch {
		case r.Key == 1<<40:
			return sdk.ErrUnavailable
		case r.Key == 1<<41:
			scores[i] = math.NaN()
		default:
			scores[i] = float64(r.Key)
		}
	}
	return nil
}

// TestScore asks about more than one call carries.
func TestScore(t *testing.T) {
	const n = 2*sdk.MaxBatch + 1
	records := make([]sdk.Record, n)
	for i := range records {
		records[i].Key = sdk.Key(i)
	}
	p := &batches{}
	scores, err := ranking.Score(t.Context(), p, time.Now(), records)
	asked := 0
	for _, size := range p.sizes {
		asked += size
	}
	if err != nil || asked != n || slices.Max(p.sizes) > sdk.MaxBatch {
		t.Errorf("Score() asks in batches of %v, %v, want %d records in all, and at most %d at once", p.sizes, err, n, sdk.MaxBatch)
	}
	for i := range scores {
		if scores[i] != float64(i) {
			t.Fatalf("record %d has the score %v", i, scores[i])
		}
	}
	for key, want := range map[sdk.Key]error{1 << 40: sdk.ErrUnavailable, 1 << 41: ranking.ErrNaN} {
		records[n-1].Key = key
		if scores, err := ranking.Score(t.Context(), p, time.Now(), records); !errors.Is(err, want) || scores != nil {
			t.Errorf("Score() = %d scores, %v, want %v", len(scores), err, want)
		}
	}
}

func BenchmarkOrder(b *testing.B) {
	const n = 1_000_000
	rnd := rand.New(rand.NewPCG(1, 1))
	records, scores := make([]sdk.Record, n), make([]float64, n)
	for i := range records {
		records[i] = sdk.Record{Key: sdk.Key(i), Accessed: rnd.Int64()}
		scores[i] = rnd.Float64()
	}
	for b.Loop() {
		left := n / 20
		for range ranking.Order(records, scores) {
			if left--; left == 0 {
				break
			}
		}
	}
}
