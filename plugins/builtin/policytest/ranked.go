package policytest

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Ranked returns a scoring policy as a host consults it, in the form of a
// stateful one: the host keeps the records, takes the lowest score, of equals
// the older access, then the lower key, and passes over what may not leave now.
func Ranked(s sdk.Scorer) sdk.Stateful { return &ranked{scorer: s, refused: map[sdk.Key]int64{}} }

type ranked struct {
	scorer  sdk.Scorer
	records []sdk.Record
	refused map[sdk.Key]int64 // the time
}

// Observe implements [sdk.Stateful].
func (r *ranked) Observe(_ context.Context, events []sdk.Event) error {
	for _, e := range events {
		i := slices.IndexFunc(r.records, func(old sdk.Record) bool { return old.Key == e.Key })
		switch e.Kind {
		case sdk.EventAdmitted:
			r.records = append(r.records, sdk.Record{Key: e.Key, Size: e.Size, Admitted: e.At, Accessed: e.At})
		case sdk.EventAccessed:
			r.records[i].Hits += uint64(e.Count)
			r.records[i].Accessed = e.At
		case sdk.EventRemoved:
			r.records = slices.Delete(r.records, i, i+1)
		case sdk.EventRefused:
			r.refused[e.Key] = e.At
		}
	}
	return nil
}

// Select implements [sdk.Stateful].
func (r *ranked) Select(ctx context.Context, now time.Time, need uint64, limit int) (keys []sdk.Key, _ error) {
	scores := make([]float64, len(r.records))
	if err := r.scorer.Score(ctx, now, r.records, scores); err != nil {
		return nil, err
	}
	for need > 0 && len(keys) < limit {
		low := -1
		for i, rec := range r.records {
			if r.refused[rec.Key] == now.UnixNano() || slices.Contains(keys, rec.Key) {
				continue
			}
			if low < 0 || cmp.Or(
				cmp.Compare(scores[i], scores[low]),
				cmp.Compare(rec.Accessed, r.records[low].Accessed),
				cmp.Compare(rec.Key, r.records[low].Key)) < 0 {
				low = i
			}
		}
		if low < 0 {
			break
		}
		keys = append(keys, r.records[low].Key)
		need -= min(need, r.records[low].Size)
	}
	return keys, nil
}
