// Command probes is a driver that does what the source of a batch says.
package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/guest"
	"github.com/imgcache/imgcache-host/sdk/guest/kv"
)

func init() {
	guest.Export(sdk.Manifest{
		Name: "probes", Version: "1.0.0", Kind: sdk.KindDriver,
		Requests: []sdk.Grant{sdk.GrantKV, sdk.GrantClock, sdk.GrantRandom},
	}, &driver{})
}

func main() {}

type driver struct{ calls int }

// Configure may use the store already.
func (d *driver) Configure(context.Context, sdk.Settings) error {
	_, err := kv.Get([]byte("absent"))
	if !errors.Is(err, sdk.ErrNotFound) {
		return fmt.Errorf("an absent key is %w", err)
	}
	return nil
}

func (d *driver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	return d.ListAfter(ctx, "", yield)
}

// ListAfter says what the clock and the random numbers are.
func (d *driver) ListAfter(_ context.Context, id string, yield func([]sdk.Entry) error) error {
	if id != "" {
		return nil
	}
	var random [16]byte
	if _, err := crand.Read(random[:]); err != nil {
		return err
	}
	return yield([]sdk.Entry{{ID: "seen", Version: fmt.Sprintf("%x", random), LastAccessed: time.Now()}})
}

func (d *driver) Apply(_ context.Context, b sdk.Batch) error {
	d.calls++
	var w kv.Batch
	switch b.Source {
	case "trap":
		var none []int
		none[d.calls] = 1
	case "fill": // until there is no room
		w.Put([]byte("big"), []byte(strings.Repeat("x", 1<<20)))
		w.Put([]byte("bigger"), []byte(strings.Repeat("x", 1<<20)))
		return kv.Write(&w)
	case "long key":
		w.Put([]byte(strings.Repeat("k", kv.MaxKey+1)), nil)
		return kv.Write(&w)
	case "pages": // values larger than the room that a scan has at first
		for i := range 5 {
			w.Put(fmt.Appendf(nil, "p%d", i), []byte(strings.Repeat("v", 30_000*i)))
		}
		if err := kv.Write(&w); err != nil {
			return err
		}
		n := 0
		for p, err := range kv.Scan([]byte("p"), nil) {
			if err != nil || string(p.Key) != fmt.Sprintf("p%d", n) || len(p.Value) != 30_000*n {
				return fmt.Errorf("pair %d: %q, %d bytes, %w", n, p.Key, len(p.Value), err)
			}
			n++
		}
		if n != 5 {
			return fmt.Errorf("%d pairs", n)
		}
	case "calls":
		if d.calls != int(b.Seq) {
			return fmt.Errorf("this is call %d", d.calls)
		}
	}
	return nil
}
