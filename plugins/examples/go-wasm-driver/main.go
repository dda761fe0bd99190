// Command go-wasm-driver keeps records in the keys and values that the host
// keeps for a module. It is built for WebAssembly:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o imgcache-driver-cabinet.wasm .
package main

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/guest"
	"github.com/imgcache/imgcache-host/sdk/guest/kv"
)

func init() {
	guest.Export(sdk.Manifest{
		Name: "cabinet", Version: "1.0.0", Kind: sdk.KindDriver, Requests: []sdk.Grant{sdk.GrantKV},
	}, driver{})
}

// main does not run in a module.
func main() {}

// What stands in front of an id, and of a source of batches.
const (
	image  = "image/"
	source = "source/"
)

type driver struct{}

// List implements sdk.Driver.
func (d driver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	return d.ListAfter(ctx, "", yield)
}

// ListAfter implements guest.Driver. Keys are in the order of the ids.
func (d driver) ListAfter(ctx context.Context, id string, yield func([]sdk.Entry) error) error {
	for p, err := range kv.Scan([]byte(image), []byte(image+id)) {
		if err != nil {
			return err
		}
		var e sdk.Entry
		if err := json.Unmarshal(p.Value, &e); err != nil {
			return err
		}
		if err := yield([]sdk.Entry{e}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Apply writes what the batch leaves of the records, together with its number.
func (d driver) Apply(ctx context.Context, b sdk.Batch) error {
	var last uint64
	if err := errors.Join(b.Validate(), ctx.Err(), get(source+b.Source, &last)); err != nil {
		return err
	}
	if fresh, err := b.Admit(last); !fresh {
		return err
	}
	changed := map[string]*sdk.Entry{} // by id; nil: there is no record
	for _, op := range b.Ops {
		id := op.Entry.ID
		old, known := changed[id]
		if !known {
			var err error
			if old, err = record(id); err != nil {
				return err
			}
		}
		changed[id] = after(op, old)
	}
	var w kv.Batch
	w.Put([]byte(source+b.Source), strconv.AppendUint(nil, b.Seq, 10))
	for id, e := range changed {
		if e == nil {
			w.Delete([]byte(image + id))
			continue
		}
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		w.Put([]byte(image+id), text)
	}
	return kv.Write(&w)
}

// after returns the record that an operation leaves.
func after(op sdk.Op, old *sdk.Entry) *sdk.Entry {
	var e sdk.Entry
	if old != nil {
		e = *old
	}
	if e, keep := op.Apply(e, old != nil); keep {
		return &e
	}
	return nil
}

// record returns the record of an id, nil if there is none.
func record(id string) (*sdk.Entry, error) {
	var e *sdk.Entry
	err := get(image+id, &e)
	return e, err
}

// get reads the value of a key, and leaves into as it is when there is none.
func get(key string, into any) error {
	text, err := kv.Get([]byte(key))
	if errors.Is(err, sdk.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
