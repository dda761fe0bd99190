package wasm

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// pageRoom is the room for a page of a list in bytes: some thousand records.
const pageRoom = 256 << 10

// driver is a module that keeps records. It stores them as keys and values,
// which outlive its instances.
type driver struct{ *Module }

// List implements [sdk.Driver]. Between two pages other calls get their turn, so
// a batch waits for one page at most.
func (d driver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	after := ""
	for {
		var page []sdk.Entry
		err := d.use(ctx, func(g *guest) (err error) {
			page, err = g.page(ctx, after)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1].ID
		if err := yield(page); err != nil {
			return err
		}
	}
}

// Apply implements [sdk.Driver].
func (d driver) Apply(ctx context.Context, b sdk.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	frame := abi.AppendBatch(nil, b)
	return d.use(ctx, func(g *guest) error { return g.apply(ctx, frame) })
}

func (g *guest) apply(ctx context.Context, frame []byte) error {
	in, err := g.give(ctx, frame)
	if err != nil {
		return err
	}
	return g.status(ctx, abi.FuncApply, in, uint64(len(frame)))
}

// page asks for the entries after an id, as many as there is room for. An empty
// page is the end.
func (g *guest) page(ctx context.Context, after string) ([]sdk.Entry, error) {
	in, err := g.give(ctx, []byte(after))
	if err != nil {
		return nil, err
	}
	frame, err := g.fill(ctx, pageRoom, abi.FuncList, in, uint64(len(after)))
	if err != nil {
		return nil, err
	}
	page, err := abi.ParsePage(frame)
	if err == nil {
		err = checkPage(page, after)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s returned an impossible page: %w", sdk.ErrUnavailable, abi.FuncList, err)
	}
	return page, nil
}

// checkPage checks that the ids of a page rise, so that a list cannot run for
// ever or name an image twice.
func checkPage(page []sdk.Entry, after string) error {
	for i, e := range page {
		switch {
		case e.ID == "" || len(e.ID) > sdk.MaxIDLen || !utf8.ValidString(e.ID):
			return fmt.Errorf("entry %d has the id %q", i, e.ID)
		case e.ID <= after:
			return fmt.Errorf("the id %q comes after %q", e.ID, after)
		case e.Size < 0:
			return fmt.Errorf("the entry of %q has the size %d", e.ID, e.Size)
		}
		after = e.ID
	}
	return nil
}
