package wasm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// Policy returns the module as what its manifest declares: a value that
// implements sdk.Configurer, and exactly one of sdk.Scorer and sdk.Stateful,
// the latter perhaps with sdk.Snapshotter.
func (m *Module) Policy() any {
	switch {
	case m.manifest.Has(sdk.CapSnapshot):
		return savedPolicy{statefulPolicy{m}}
	case m.manifest.Has(sdk.CapStateful):
		return statefulPolicy{m}
	}
	return scoringPolicy{m}
}

// use makes one call of an instance. An instance that trapped is thrown away,
// as its memory may be damaged: a scoring module gets a new one at the next
// call, a stateful one has lost its state.
func (m *Module) use(ctx context.Context, f func(*guest) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.guest == nil {
		if m.manifest.Has(sdk.CapStateful) {
			return fmt.Errorf("%w: %w", sdk.ErrUnavailable, errTrapped)
		}
		if err := m.renew(ctx); err != nil {
			return err
		}
	}
	err := f(m.guest)
	if trap := (*trapError)(nil); errors.As(err, &trap) {
		_ = m.guest.mod.Close(context.WithoutCancel(ctx))
		m.guest = nil
		if m.manifest.Has(sdk.CapStateful) && m.opts.OnLostState != nil {
			m.opts.OnLostState()
		}
	}
	return err
}

func (m *Module) renew(ctx context.Context) error {
	g, err := m.instantiate(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", sdk.ErrUnavailable, err)
	}
	if m.settings != nil {
		if err := g.configure(ctx, m.settings.Options); err != nil {
			return err
		}
	}
	m.guest = g
	return nil
}

// Configure gives the module its options, and again to each new instance.
func (m *Module) Configure(ctx context.Context, s sdk.Settings) error {
	err := m.use(ctx, func(g *guest) error { return g.configure(ctx, s.Options) })
	if err == nil {
		m.settings = &s
	}
	return err
}

type scoringPolicy struct{ *Module }

// Score implements sdk.Scorer.
func (p scoringPolicy) Score(ctx context.Context, now time.Time, records []sdk.Record, scores []float64) error {
	return p.use(ctx, func(g *guest) error { return g.score(ctx, now, records, scores) })
}

type statefulPolicy struct{ *Module }

// Observe implements sdk.Stateful.
func (p statefulPolicy) Observe(ctx context.Context, events []sdk.Event) error {
	return p.use(ctx, func(g *guest) error { return g.observe(ctx, events) })
}

// Select implements sdk.Stateful.
func (p statefulPolicy) Select(ctx context.Context, now time.Time, need uint64, limit int) (keys []sdk.Key, err error) {
	err = p.use(ctx, func(g *guest) (err error) {
		keys, err = g.choose(ctx, now, need, limit)
		return err
	})
	return keys, err
}

type savedPolicy struct{ statefulPolicy }

// Snapshot implements sdk.Snapshotter.
func (p savedPolicy) Snapshot(ctx context.Context) (b []byte, err error) {
	err = p.use(ctx, func(g *guest) (err error) {
		b, err = g.bytes(ctx, abi.FuncSnapshot, 64<<10)
		return err
	})
	return b, err
}

// Restore implements sdk.Snapshotter.
func (p savedPolicy) Restore(ctx context.Context, snapshot []byte) error {
	return p.use(ctx, func(g *guest) error { return g.restore(ctx, snapshot) })
}
