package conformance

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Measure is how fast a plugin does one thing as the service sees it: through
// the same supervisor and the same socket.
type Measure struct {
	Name   string        `json:"name"`
	Calls  int           `json:"calls"`
	Items  int           `json:"items"` // records, events, keys or bytes of one call
	Median time.Duration `json:"median_ns"`
	P99    time.Duration `json:"p99_ns"`
}

// PerSecond is the number of items per second at the median time.
func (m Measure) PerSecond() float64 { return float64(m.Items) / m.Median.Seconds() }

// benchFor is how long each thing is measured.
const benchFor = time.Second

// Bench measures a plugin, and calls tell with each figure. Each measurement
// takes about c.Timeout, or a second when that is 0. The plugin gets a store of
// its own.
func (c Check) Bench(ctx context.Context, tell func(Measure)) error {
	w, err := c.workshop()
	if err != nil {
		return err
	}
	defer w.clear()
	b := &bench{ctx: ctx, lasts: cmp.Or(c.Timeout, benchFor), tell: tell}
	i, err := w.open(ctx)
	if err != nil {
		return err
	}
	defer i.close()
	m := i.p.Manifest()
	b.measure("start and configure", 1, func() error { return i.restart(ctx) })
	switch {
	case m.Kind == sdk.KindDriver:
		b.driver(i.p.Driver(), cmp.Or(c.Entries, 100_000))
	case m.Has(sdk.CapScore):
		b.scorer(i.p.Scorer())
	default:
		b.stateful(i.p.Stateful())
		if m.Has(sdk.CapSnapshot) {
			b.snapshotter(i.p.Snapshotter())
		}
	}
	return b.err
}

// bench measures until something fails.
type bench struct {
	ctx   context.Context
	lasts time.Duration
	tell  func(Measure)
	err   error
}

// measure makes calls for a while and reports them. The first is not counted,
// because it grows the plugin's memory.
func (b *bench) measure(name string, items int, call func() error) {
	var took []time.Duration
	for ends := time.Now().Add(b.lasts); b.err == nil && (len(took) < 2 || time.Now().Before(ends)); {
		begun := time.Now()
		if err := call(); err != nil {
			b.err = fmt.Errorf("%s: %w", name, err)
		}
		took = append(took, time.Since(begun))
	}
	if b.err != nil {
		return
	}
	took = took[1:]
	slices.Sort(took)
	b.tell(Measure{Name: name, Calls: len(took), Items: items, Median: took[len(took)/2], P99: took[len(took)*99/100]})
}

func (b *bench) scorer(p sdk.Scorer) {
	for _, n := range []int{1, 1000, sdk.MaxBatch} {
		records, scores := benchRecords(n), make([]float64, n)
		b.measure(fmt.Sprintf("score %d records", n), n, func() error { return p.Score(b.ctx, time.Now(), records, scores) })
	}
}

func (b *bench) stateful(p sdk.Stateful) {
	events := make([]sdk.Event, sdk.MaxBatch)
	for i := range events {
		events[i] = sdk.Event{Kind: sdk.EventAdmitted, Key: sdk.Key(i), Size: 1 << 20, At: int64(i)}
	}
	b.measure(fmt.Sprintf("observe that %d images are admitted", len(events)), len(events), func() error { return p.Observe(b.ctx, events) })
	for i := range events {
		events[i] = sdk.Event{Kind: sdk.EventAccessed, Key: sdk.Key(i * 7919 % len(events)), Count: 1, At: int64(i)}
	}
	for _, n := range []int{1, 1000} {
		b.measure(fmt.Sprintf("observe %d accesses", n), n, func() error { return p.Observe(b.ctx, events[:n]) })
	}
	for _, n := range []int{1, len(events) / 20} {
		b.measure(fmt.Sprintf("select %d of %d images", n, len(events)), n, func() error {
			_, err := p.Select(b.ctx, time.Now(), uint64(n)<<20, len(events))
			return err
		})
	}
}

func (b *bench) snapshotter(p sdk.Snapshotter) {
	snapshot, err := p.Snapshot(b.ctx)
	if err != nil {
		b.err = cmp.Or(b.err, fmt.Errorf("snapshot: %w", err))
		return
	}
	b.measure("snapshot of them, in bytes", len(snapshot), func() error { _, err := p.Snapshot(b.ctx); return err })
	b.measure("restore, in bytes", len(snapshot), func() error { return p.Restore(b.ctx, snapshot) })
}

// driver fills the store with n records first.
func (b *bench) driver(d sdk.Driver, n int) {
	const source = "bench"
	var seq uint64
	apply := func(ops []sdk.Op) error {
		seq++
		return d.Apply(b.ctx, sdk.Batch{Source: source, Seq: seq, Ops: ops})
	}
	id := func(i int) string { return fmt.Sprintf("image-%d", i%n) }
	now := time.Now()
	for i := 0; i < n && b.err == nil; i += 1000 {
		var puts []sdk.Op
		for k := i; k < min(n, i+1000); k++ {
			puts = append(puts, sdk.Put(sdk.Entry{ID: id(k), Size: 1, LastAccessed: now, LastModified: now}))
		}
		if err := apply(puts); err != nil {
			b.err = fmt.Errorf("put %d records: %w", len(puts), err)
		}
	}
	touched := 0
	for _, size := range []int{1, 1000} {
		b.measure(fmt.Sprintf("apply %d touches", size), size, func() error {
			var touches []sdk.Op
			for range size {
				touched++
				touches = append(touches, sdk.Touch(id(touched*7919%math.MaxInt32), 1, time.Now()))
			}
			return apply(touches)
		})
	}
	b.measure(fmt.Sprintf("list %d records", n), n, func() error {
		return d.List(b.ctx, func([]sdk.Entry) error { return nil })
	})
}

func benchRecords(n int) []sdk.Record {
	now := time.Now().UnixNano()
	records := make([]sdk.Record, n)
	for i := range records {
		age := int64(i) * int64(time.Second)
		records[i] = sdk.Record{
			Key: sdk.Key(i * 7919), Size: uint64(i%97+1) << 20, Hits: uint64(i % 53), Admitted: now - 2*age, Accessed: now - age, FetchMS: 1000,
		}
	}
	return records
}
