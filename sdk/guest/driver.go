package guest

import (
	"context"
	"errors"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// Driver is a driver as a module has it. The host asks a module for its records
// page by page, so that it needs memory for no more than one.
type Driver interface {
	sdk.Driver

	// ListAfter is List, but of the entries alone whose ids come after id, and
	// in the order of the bytes of their ids. An error of yield ends it, as it
	// does List; List is ListAfter of "".
	ListAfter(ctx context.Context, id string, yield func([]sdk.Entry) error) error
}

func (m *module) apply(frame []byte) abi.Status {
	d, ok := m.impl.(Driver)
	if !ok {
		return m.lacks()
	}
	b, err := abi.ParseBatch(frame)
	if err == nil {
		err = d.Apply(context.Background(), b)
	}
	return answer(err)
}

// list writes the frame of the entries after an id that there is room for, and
// answers its size. When there is no room for the first, it answers what that
// one needs.
func (m *module) list(after string, room []byte) int32 {
	d, ok := m.impl.(Driver)
	if !ok {
		return failed(m.lacks())
	}
	page, size := m.page[:0], abi.HeaderSize
	err := d.ListAfter(context.Background(), after, func(entries []sdk.Entry) error {
		for _, e := range entries {
			next := size + abi.EntryLen(e)
			if len(page) > 0 && (next > len(room) || len(page) == sdk.MaxBatch) {
				return errFull
			}
			page, size = append(page, e), next
		}
		return nil
	})
	m.page = page
	switch {
	case err != nil && !errors.Is(err, errFull):
		return failed(answer(err))
	case size > len(room):
		return int32(size)
	}
	return int32(len(abi.AppendPage(room[:0], page)))
}

// errFull ends a list when the page is full.
var errFull = errors.New("the page is full")
