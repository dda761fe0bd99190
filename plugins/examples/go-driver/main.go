// Command go-driver keeps records in one JSON file, which it replaces with each
// batch: simple, and quick enough for a few thousand images.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

func main() {
	serve.Main(sdk.Manifest{Name: "onefile", Version: "1.0.0", Kind: sdk.KindDriver}, &driver{})
}

// records are what the file holds.
type records struct {
	Last   map[string]uint64    // of each source, the last batch
	Images map[string]sdk.Entry // by id
}

type driver struct {
	path string
	mu   sync.Mutex // guards now, whose maps are replaced and never changed
	now  records
}

// Configure reads the file of an earlier run.
func (d *driver) Configure(_ context.Context, s sdk.Settings) error {
	d.path = filepath.Join(s.StateDir, "records.json")
	b, err := os.ReadFile(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(s.StateDir, 0o700)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(b, &d.now)
}

// List yields all at once; package serve cuts it into messages.
func (d *driver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	d.mu.Lock()
	all := slices.Collect(maps.Values(d.now.Images))
	d.mu.Unlock()
	if err := ctx.Err(); err != nil || len(all) == 0 {
		return err
	}
	return yield(all)
}

// Apply writes what the batch leaves of the records, together with its number,
// and only then takes it for done.
func (d *driver) Apply(ctx context.Context, b sdk.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := errors.Join(b.Validate(), ctx.Err()); err != nil {
		return err
	}
	if fresh, err := b.Admit(d.now.Last[b.Source]); !fresh {
		return err
	}
	next := records{map[string]uint64{}, map[string]sdk.Entry{}}
	maps.Copy(next.Last, d.now.Last)
	maps.Copy(next.Images, d.now.Images)
	next.Last[b.Source] = b.Seq
	for _, op := range b.Ops {
		old, exists := next.Images[op.Entry.ID]
		if e, keep := op.Apply(old, exists); keep {
			next.Images[e.ID] = e
		} else {
			delete(next.Images, op.Entry.ID)
		}
	}
	err := d.write(next)
	if err == nil {
		d.now = next
	}
	return err
}

// write replaces the file. A crash leaves the old one or the new one.
func (d *driver) write(r records) error {
	b, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(d.path+".new", b, 0o600)
	}
	if err != nil {
		return err
	}
	return os.Rename(d.path+".new", d.path)
}
