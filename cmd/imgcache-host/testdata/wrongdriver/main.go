// Command wrongdriver is a driver that breaks one sentence of its contract: that
// which its option fault names.
package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

func main() {
	serve.Main(sdk.Manifest{
		Name: "wrong", Version: "1.0.0", Kind: sdk.KindDriver,
		Options: []sdk.Option{{Name: "fault", Type: sdk.TypeString}},
	}, &driver{})
}

// driver is the reference, with a journal of its batches, and a fault.
type driver struct {
	sdktest.Memory
	fault string
	mu    sync.Mutex
	moved uint64 // records that were moved back
	log   *os.File
}

// Configure applies the batches of earlier runs.
func (d *driver) Configure(ctx context.Context, s sdk.Settings) error {
	d.fault = s.Options.Text("fault")
	path := filepath.Join(s.CacheDir, ".imgcache", "wrong.log")
	var err error
	if d.log, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return err
	}
	for read := json.NewDecoder(d.log); read.More(); {
		var b sdk.Batch
		if err := read.Decode(&b); err != nil {
			return err
		}
		if d.fault == "forgets the sequence" {
			b.Source += "?"
		}
		if err := d.Memory.Apply(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// Apply implements [sdk.Driver].
func (d *driver) Apply(ctx context.Context, b sdk.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.fault {
	case "counts replays":
		if b.Seq <= d.Last(b.Source) {
			b.Seq = d.Last(b.Source) + 1
		}
	case "accepts gaps":
		for b.Seq > d.Last(b.Source)+1 {
			if err := d.Memory.Apply(ctx, sdk.Batch{Source: b.Source, Seq: d.Last(b.Source) + 1}); err != nil {
				return err
			}
		}
	case "half of a gap":
		if b.Seq > d.Last(b.Source)+1 && len(b.Ops) > 0 {
			_ = d.Memory.Apply(ctx, sdk.Batch{Source: "?", Seq: 1, Ops: b.Ops[:1]})
		}
	case "dies":
		if len(b.Ops) == 0 {
			os.Exit(1)
		}
	case "fails on absent":
		for _, op := range b.Ops {
			if op.Kind == sdk.OpDelete && b.Seq == 1 {
				return sdk.ErrNotFound
			}
		}
	}
	b.Ops = d.change(b.Ops)
	err := d.Memory.Apply(ctx, b)
	if d.fault == "loses the last" && b.Seq%5 == 0 {
		return err
	}
	if err == nil && d.fault != "forgets all" {
		err = json.NewEncoder(d.log).Encode(b)
	}
	return err
}

// change rewrites operations.
func (d *driver) change(ops []sdk.Op) []sdk.Op {
	var list []sdk.Op
	for _, op := range ops {
		switch {
		case d.fault == "resets hits" && op.Kind == sdk.OpPut:
			list = append(list, sdk.Delete(op.Entry.ID))
		case d.fault == "creates on touch" && op.Kind == sdk.OpTouch:
			list = append(list, sdk.Put(sdk.Entry{ID: op.Entry.ID}))
		case d.fault == "touches backwards" && op.Kind == sdk.OpTouch:
			d.moveBack(op)
		case d.fault == "folds ids":
			op.Entry.ID = strings.ToLower(op.Entry.ID)
		case d.fault == "truncates times":
			op.Entry.LastAccessed = op.Entry.LastAccessed.Truncate(time.Second)
		}
		list = append(list, op)
	}
	return list
}

// moveBack puts the record anew, with the time of the touch.
func (d *driver) moveBack(op sdk.Op) {
	for _, e := range d.Entries() {
		if e.ID == op.Entry.ID {
			e.LastAccessed = op.Entry.LastAccessed
			d.moved++
			_ = d.Memory.Apply(context.Background(), sdk.Batch{
				Source: "?", Seq: d.moved, Ops: []sdk.Op{sdk.Delete(e.ID), sdk.Put(e)},
			})
		}
	}
}

// hang lists, and while nobody listens holds up all batches.
func (d *driver) hang(ctx context.Context, yield func([]sdk.Entry) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Memory.List(context.WithoutCancel(ctx), func(entries []sdk.Entry) error {
		if err := yield(entries); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			select {}
		case <-time.After(10 * time.Millisecond):
			return nil
		}
	})
}

// List implements [sdk.Driver].
func (d *driver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	if d.fault == "hangs" {
		return d.hang(ctx, yield)
	}
	if d.fault == "lists twice" {
		if err := d.Memory.List(ctx, yield); err != nil {
			return err
		}
	}
	return d.Memory.List(ctx, yield)
}
