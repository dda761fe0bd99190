package wasm

import (
	"context"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

type scorer struct{ *Module }

// Score implements [sdk.Scorer].
func (p scorer) Score(ctx context.Context, now time.Time, records []sdk.Record, scores []float64) error {
	return p.ScoreFrame(ctx, abi.AppendRecords(nil, now.UnixNano(), records), scores)
}

// ScoreFrame implements [serve.FrameScorer].
func (p scorer) ScoreFrame(ctx context.Context, frame []byte, scores []float64) error {
	h, err := abi.ParseHeader(frame, abi.RecordSize)
	if err != nil {
		return err
	}
	if len(scores) != int(h.Count) {
		return fmt.Errorf("%w: expected room for %d scores, got room for %d", sdk.ErrInvalid, h.Count, len(scores))
	}
	return p.use(ctx, func(g *guest) error { return g.score(ctx, frame, scores) })
}

type stateful struct{ *Module }

// Observe implements [sdk.Stateful].
func (p stateful) Observe(ctx context.Context, events []sdk.Event) error {
	return p.ObserveFrame(ctx, abi.AppendEvents(nil, 0, events))
}

// ObserveFrame implements [serve.FrameObserver].
func (p stateful) ObserveFrame(ctx context.Context, frame []byte) error {
	if _, err := abi.ParseHeader(frame, abi.EventSize); err != nil {
		return err
	}
	return p.use(ctx, func(g *guest) error { return g.observe(ctx, frame) })
}

// Select implements [sdk.Stateful].
func (p stateful) Select(ctx context.Context, now time.Time, need uint64, limit int) (keys []sdk.Key, err error) {
	if limit <= 0 {
		return nil, nil
	}
	err = p.use(ctx, func(g *guest) (err error) {
		keys, err = g.choose(ctx, now, need, min(limit, sdk.MaxBatch))
		return err
	})
	return keys, err
}

type snapshotter struct{ stateful }

// Snapshot implements [sdk.Snapshotter].
func (p snapshotter) Snapshot(ctx context.Context) (snapshot []byte, err error) {
	err = p.use(ctx, func(g *guest) (err error) {
		snapshot, err = g.text(ctx, abi.FuncSnapshot)
		return err
	})
	return snapshot, err
}

// Restore implements [sdk.Snapshotter].
func (p snapshotter) Restore(ctx context.Context, snapshot []byte) error {
	return p.use(ctx, func(g *guest) error { return g.restore(ctx, snapshot) })
}
