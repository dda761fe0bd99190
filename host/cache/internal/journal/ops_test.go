package journal

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/cache/internal/drivertest"
	"github.com/imgcache/imgcache-host/sdk"
)

// TestMergedOpsMeanTheSame applies random operations one by one to a record
// store, and merged to another that began alike, whatever it began with.
func TestMergedOpsMeanTheSame(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		begin := map[string]sdk.Entry{}
		for i := range rng.IntN(3) {
			begin[fmt.Sprint(i)] = randomOp(rng, fmt.Sprint(i), sdk.OpPut).Entry
		}
		var set opSet
		plain := drivertest.Clone(begin)
		var all []sdk.Op
		for range rng.IntN(12) {
			op := randomOp(rng, fmt.Sprint(rng.IntN(3)), sdk.OpKind(1+rng.IntN(3)))
			all = append(all, op)
			set.add(op)
			drivertest.Apply(plain, op)
		}
		merged := drivertest.Clone(begin)
		for _, op := range set.ops() {
			drivertest.Apply(merged, op)
		}
		if diff := cmp.Diff(plain, merged); diff != "" {
			t.Fatalf("seed %d: operations %v\nmerged %v\nfrom %v (-plain +merged):\n%s", seed, all, set.ops(), begin, diff)
		}
		for id, ops := range set.byID {
			if len(ops) > 3 {
				t.Fatalf("seed %d: %d operations of %s are left", seed, len(ops), id)
			}
		}
	}
}

func randomOp(rng *rand.Rand, id string, kind sdk.OpKind) sdk.Op {
	at := time.Unix(rng.Int64N(100), 0).UTC()
	switch kind {
	case sdk.OpPut:
		return sdk.Put(sdk.Entry{
			ID: id, Version: string(rune('a' + rng.IntN(2))), Size: rng.Int64N(10),
			Hits: uint64(rng.IntN(5)), LastAccessed: at, LastModified: at,
		})
	case sdk.OpTouch:
		return sdk.Touch(id, uint64(rng.IntN(5)), at)
	}
	return sdk.Delete(id)
}
