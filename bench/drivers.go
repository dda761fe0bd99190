package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	_ "github.com/mattn/go-sqlite3" // for the bare query

	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/sdk"
)

// touchBatch is how many images a busy second touches.
const touchBatch = 1000

// drivers measures the driver that ships as the host has it, a process behind
// gRPC, beside the same query on its database by a program that has nothing
// else to do.
func (p *plan) drivers(ctx context.Context, s *stage, t *table) error {
	s.stop() // what they hold is not to be in the way
	const n = 100_000
	path := filepath.Join(p.dir, "records.db")
	d, stop, err := p.startDriver(ctx, path)
	if err != nil {
		return err
	}
	defer stop()
	source := records{driver: d}
	if err := source.fill(ctx, n); err != nil {
		return err
	}
	var bare, remote, ratios, touches []float64
	for range p.rounds {
		b, err := timed(n, func() (int, error) { return listBare(ctx, path) })
		if err != nil {
			return fmt.Errorf("bare SQL: %w", err)
		}
		r, err := timed(n, func() (int, error) { return listRemote(ctx, d) })
		if err != nil {
			return fmt.Errorf("over gRPC: %w", err)
		}
		touch, err := timed(touchBatch, func() (int, error) { return touchBatch, source.touch(ctx, n) })
		if err != nil {
			return fmt.Errorf("touch: %w", err)
		}
		bare, remote, ratios, touches = append(bare, b), append(remote, r), append(ratios, r/b), append(touches, touch)
	}
	what := fmt.Sprintf("list of %d records", n)
	t.add(row{what: what, server: "bare SQL", unit: "ms", values: bare})
	t.add(row{what: what, server: "driver sqlite over gRPC", unit: "ms", values: remote})
	t.add(row{what: what + ", driver over bare SQL", server: "driver sqlite over gRPC", values: ratios}.under(2))
	t.add(row{what: fmt.Sprintf("batch of %d touches of %d records", touchBatch, n), server: "driver sqlite over gRPC", unit: "ms", values: touches})
	return nil
}

// startDriver runs the driver sqlite as the host does, until stop.
func (p *plan) startDriver(ctx context.Context, path string) (_ sdk.Driver, stop func(), err error) {
	sup, err := p.supervisor()
	if err != nil {
		return nil, nil, err
	}
	stop = func() { _ = sup.Close() }
	spec := plugin.Spec{Name: "sqlite", Kind: sdk.KindDriver, Path: filepath.Join(p.bin, "plugins", "imgcache-driver-sqlite")}
	child, err := sup.Start(ctx, spec)
	if err == nil {
		err = child.Configure(ctx, sdk.Settings{CacheDir: p.dir, Options: sdk.Config{"path": path}})
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return child.Driver(), stop, nil
}

// timed returns the milliseconds that f takes, which must give as much as is
// wanted.
func timed(want int, f func() (int, error)) (float64, error) {
	start := time.Now()
	got, err := f()
	took := time.Since(start)
	if err == nil && got != want {
		err = fmt.Errorf("%d records, want %d", got, want)
	}
	return ms(took), err
}

// listBare reads all records as directly as a Go program can.
func listBare(ctx context.Context, path string) (n int, err error) {
	name := url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro"}
	db, err := sql.Open("sqlite3", name.String())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, "SELECT id, version, size, hits, last_accessed, last_modified FROM images")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		var id, version string
		var size, hits, accessed, modified int64
		if err := rows.Scan(&id, &version, &size, &hits, &accessed, &modified); err != nil {
			return n, err
		}
	}
	return n, rows.Err()
}

func listRemote(ctx context.Context, d sdk.Driver) (n int, err error) {
	err = d.List(ctx, func(entries []sdk.Entry) error {
		n += len(entries)
		return nil
	})
	return n, err
}

// records are those of one source in a driver.
type records struct {
	driver sdk.Driver
	seq    uint64
}

func (r *records) apply(ctx context.Context, ops []sdk.Op) error {
	r.seq++
	return r.driver.Apply(ctx, sdk.Batch{Source: "bench", Seq: r.seq, Ops: ops})
}

// recordID is the id of an image in no order, as ids of images are.
func recordID(i int) string {
	return fmt.Sprintf("%08x-7c8e-4f53-9c6d-1f2a3b4c5d6e", uint32(i)*2654435761)
}

// fill puts n records.
func (r *records) fill(ctx context.Context, n int) error {
	const batch = 10_000
	for i := 0; i < n; i += batch {
		var ops []sdk.Op
		for i := i; i < min(i+batch, n); i++ {
			ops = append(ops, sdk.Put(sdk.Entry{
				ID: recordID(i), Version: fmt.Sprintf("sha256:%064x", i), Size: 1 << 30,
				LastAccessed: time.Now(), LastModified: time.Now(),
			}))
		}
		if err := r.apply(ctx, ops); err != nil {
			return fmt.Errorf("put: %w", err)
		}
	}
	return nil
}

// touch touches images all over the n records.
func (r *records) touch(ctx context.Context, n int) error {
	ops := make([]sdk.Op, touchBatch)
	for i := range ops {
		ops[i] = sdk.Touch(recordID(i*(n/touchBatch)), 1, time.Now())
	}
	return r.apply(ctx, ops)
}
