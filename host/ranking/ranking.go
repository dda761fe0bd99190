// Package ranking orders images for eviction under a scoring policy: the lowest
// score leaves first; of equal scores the image that was accessed less recently;
// of equal times the smaller key.
package ranking

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/imgcache/imgcache-host/sdk"
)

// ErrNaN says that a score of the policy is not a number.
var ErrNaN = errors.New("the answer of the policy is refused: a score is NaN")

const (
	// batch is how many records go into a call: a message of less than a MiB,
	// for which gRPC has buffers ready and the processor room in its cache.
	batch = sdk.MaxBatch / 4
	// ahead is how many calls are under way: while the policy works on one,
	// the next is written, and the one before is read. Together they are
	// smaller than the largest allowed call, so no call waits longer than that
	// call may take.
	ahead = 3
)

// Score asks the policy for the score of each record, in several calls, of
// which a few run at the same time. The policy must allow concurrent calls, as
// all policies of packages plugin and wasm do.
func Score(ctx context.Context, p sdk.Scorer, now time.Time, records []sdk.Record) ([]float64, error) {
	scores := make([]float64, len(records))
	calls, ctx := errgroup.WithContext(ctx)
	calls.SetLimit(ahead)
	for from := 0; from < len(records); from += batch {
		to := min(from+batch, len(records))
		calls.Go(func() error {
			if err := p.Score(ctx, now, records[from:to], scores[from:to]); err != nil {
				return fmt.Errorf("score %d images: %w", to-from, err)
			}
			return nil
		})
	}
	if err := calls.Wait(); err != nil {
		return nil, err
	}
	for i := range scores {
		if math.IsNaN(scores[i]) {
			return nil, ErrNaN
		}
	}
	return scores, nil
}

// Order yields the indices of records in the order in which the images leave.
// Without scores that is least-recently-used order.
//
// Starting takes time in proportion to the number of records, and each step
// takes logarithmic time: whoever needs the first few of a million does not pay
// for sorting the rest.
func Order(records []sdk.Record, scores []float64) iter.Seq[int] {
	return func(yield func(int) bool) {
		h := newHeap(records, scores)
		for len(h.list) > 0 {
			if !yield(h.pop()) {
				return
			}
		}
	}
}

// heap is a binary heap of the indices of records. It holds the scores too, so
// most comparisons look nowhere else. container/heap, which calls its elements
// through an interface, takes three times as long.
type heap struct {
	records []sdk.Record
	list    []entry
}

type entry struct {
	score float64
	index int
}

func newHeap(records []sdk.Record, scores []float64) *heap {
	h := &heap{records: records, list: make([]entry, len(records))}
	for i := range h.list {
		h.list[i].index = i
		if scores != nil {
			h.list[i].score = scores[i]
		}
	}
	for i := len(h.list)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
	return h
}

func (h *heap) less(a, b entry) bool {
	if a.score != b.score {
		return a.score < b.score
	}
	x, y := &h.records[a.index], &h.records[b.index]
	if x.Accessed != y.Accessed {
		return x.Accessed < y.Accessed
	}
	return x.Key < y.Key
}

// down lets the entry at i sink to its place.
func (h *heap) down(i int) {
	e := h.list[i]
	for {
		child := 2*i + 1
		if child >= len(h.list) {
			break
		}
		if next := child + 1; next < len(h.list) && h.less(h.list[next], h.list[child]) {
			child = next
		}
		if !h.less(h.list[child], e) {
			break
		}
		h.list[i] = h.list[child]
		i = child
	}
	h.list[i] = e
}

func (h *heap) pop() int {
	first, last := h.list[0], len(h.list)-1
	h.list[0] = h.list[last]
	h.list = h.list[:last]
	if last > 0 {
		h.down(0)
	}
	return first.index
}
