package sdktest

import (
	"context"
	"fmt"
	"sync"

	"github.com/imgcache/imgcache-host/sdk"
)

// Fault is what goes wrong with one call of a driver. The caller sees an
// error that wraps [sdk.ErrUnavailable] in every case but NoFault, and cannot
// tell one from the other.
type Fault int

// The faults.
const (
	NoFault     Fault = iota
	LoseRequest       // the driver never hears of the call
	LoseAnswer        // the driver carries the call out, its answer is lost
	Late              // the driver carries the batch out after the caller gave up, before the next call
	DieBefore         // this call and all later ones fail until Revive
	DieAfter          // the same, but this call is carried out
)

// Flaky is a driver that works in the way of another one, except that its
// calls meet faults. It may be used by several goroutines.
type Flaky struct {
	driver sdk.Driver
	fault  func(call int) Fault

	mu    sync.Mutex
	calls int
	dead  bool
	late  []sdk.Batch
}

var _ sdk.Driver = (*Flaky)(nil)

// NewFlaky returns a driver before d. fault chooses what happens to each call
// of List and Apply, which are counted together from 1.
func NewFlaky(d sdk.Driver, fault func(call int) Fault) *Flaky {
	return &Flaky{driver: d, fault: fault}
}

// Revive starts a dead driver again.
func (f *Flaky) Revive() {
	f.mu.Lock()
	f.dead = false
	f.mu.Unlock()
}

// Calls returns the number of calls so far.
func (f *Flaky) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// List implements [sdk.Driver]. A List that loses its answer breaks off after
// the first batch.
func (f *Flaky) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	fault, err := f.begin(ctx)
	switch {
	case err != nil:
		return err
	case fault == NoFault:
		return f.driver.List(ctx, yield)
	case fault != LoseAnswer && fault != DieAfter:
		return unavailable("list")
	}
	return f.driver.List(ctx, func(entries []sdk.Entry) error {
		if err := yield(entries); err != nil {
			return err
		}
		return unavailable("list")
	})
}

// Apply implements [sdk.Driver].
func (f *Flaky) Apply(ctx context.Context, b sdk.Batch) error {
	fault, err := f.begin(ctx)
	if err != nil {
		return err
	}
	switch fault {
	case NoFault:
		return f.driver.Apply(ctx, b)
	case LoseAnswer, DieAfter:
		if err := f.driver.Apply(ctx, b); err != nil {
			return err
		}
	case Late:
		f.mu.Lock()
		b.Ops = append([]sdk.Op(nil), b.Ops...) // the caller may reuse its own
		f.late = append(f.late, b)
		f.mu.Unlock()
	}
	return unavailable("apply")
}

// begin counts the call, carries out what is late, and chooses the fault.
func (f *Flaky) begin(ctx context.Context) (Fault, error) {
	f.mu.Lock()
	f.calls++
	fault := f.fault(f.calls)
	if f.dead || fault == DieBefore {
		f.dead = true
		f.mu.Unlock()
		return DieBefore, unavailable("connect")
	}
	f.dead = fault == DieAfter
	late := f.late
	f.late = nil
	f.mu.Unlock()
	for _, b := range late {
		// Nobody waits for the answer; it may well be that of a gap.
		_ = f.driver.Apply(ctx, b)
	}
	return fault, nil
}

func unavailable(step string) error { return fmt.Errorf("%s: %w", step, sdk.ErrUnavailable) }
