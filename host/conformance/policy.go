package conformance

import (
	"cmp"
	"context"
	"math"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// Budget is how long a policy may take for the largest batch: a fifth of the
// time limit of a call in the service, because the machine of the service may
// be slower than the author's.
const Budget = time.Second

// The case that checks a policy's budget.
const (
	inBudget       = "the largest batch is answered within the budget"
	budgetSentence = "A policy has a deadline for each call, and one that lets it pass is started anew."
)

func (w *workshop) scorer(report *sdktest.Report) {
	sdktest.Scorer(report, func(r *sdktest.Report) sdk.Scorer { return w.mustOpen(r).p.Scorer() })
	report.Run(inBudget, func(r *sdktest.Report) {
		p := w.mustOpen(r).p.Scorer()
		records := benchRecords(sdk.MaxBatch)
		scores := make([]float64, len(records))
		w.within(r, "Score", func(ctx context.Context) error { return p.Score(ctx, time.Now(), records, scores) })
	})
}

func (w *workshop) stateful(report *sdktest.Report) {
	sdktest.Stateful(report, func(r *sdktest.Report) sdk.Stateful {
		p := w.mustOpen(r).p
		if p.Manifest().Has(sdk.CapSnapshot) {
			return snapshotter{p.Stateful(), p.Snapshotter()}
		}
		return p.Stateful()
	})
	report.Run(inBudget, func(r *sdktest.Report) {
		p := w.mustOpen(r).p.Stateful()
		events := make([]sdk.Event, sdk.MaxBatch)
		for i := range events {
			events[i] = sdk.Event{Kind: sdk.EventAdmitted, Key: sdk.Key(i), Size: 1}
		}
		w.within(r, "Observe", func(ctx context.Context) error { return p.Observe(ctx, events) })
		w.within(r, "Select", func(ctx context.Context) error {
			_, err := p.Select(ctx, time.Now(), math.MaxUint64, len(events))
			return err
		})
	})
}

type snapshotter struct {
	sdk.Stateful
	sdk.Snapshotter
}

// within makes a call twice and measures the second: the first also grows the
// plugin's memory.
func (w *workshop) within(r *sdktest.Report, name string, call func(context.Context) error) {
	budget := cmp.Or(w.check.Budget, Budget)
	for try := range 2 {
		begun := time.Now()
		if err := call(r.Context()); err != nil {
			r.Fatalf("%s(%d) = %v, want nil", name, sdk.MaxBatch, err)
		}
		if took := time.Since(begun); try == 1 && took > budget {
			r.Errorf("%s(%d) took %v, the budget is %v", name, sdk.MaxBatch, took.Round(time.Millisecond), budget)
		}
	}
}
