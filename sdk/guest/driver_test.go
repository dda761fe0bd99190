package guest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

// shelf is a driver that keeps entries in the order of their ids.
type shelf struct {
	entries []sdk.Entry
	applied []sdk.Batch
	err     error // of every call
}

func (s *shelf) Apply(_ context.Context, b sdk.Batch) error {
	s.applied = append(s.applied, b)
	return s.err
}

func (s *shelf) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	return s.ListAfter(ctx, "", yield)
}

// ListAfter yields batches of two.
func (s *shelf) ListAfter(_ context.Context, id string, yield func([]sdk.Entry) error) error {
	rest := slices.DeleteFunc(slices.Clone(s.entries), func(e sdk.Entry) bool { return e.ID <= id })
	for batch := range slices.Chunk(rest, 2) {
		if err := yield(batch); err != nil {
			return err
		}
	}
	return s.err
}

// TestList asks for pages as the host does, with room of every size that
// matters: each entry comes once.
func TestList(t *testing.T) {
	s := &shelf{}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		s.entries = append(s.entries, sdk.Entry{ID: id, Version: strings.Repeat(id, 20), Size: 1})
	}
	one := abi.EntryLen(s.entries[0])
	for _, room := range []int{0, abi.HeaderSize, abi.HeaderSize + one - 1, abi.HeaderSize + one, abi.HeaderSize + 3*one, 1 << 20} {
		m := module{impl: s}
		var got []sdk.Entry
		for after, buf := "", make([]byte, room); ; {
			n := m.list(after, buf)
			if int(n) > len(buf) {
				buf = make([]byte, n)
				continue
			}
			page, err := abi.ParsePage(buf[:n])
			if err != nil {
				t.Fatalf("room %d: %v", room, err)
			}
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			after = page[len(page)-1].ID
		}
		if !reflect.DeepEqual(got, s.entries) {
			t.Errorf("room %d: the pages hold %+v", room, got)
		}
	}
	s.err = errors.New("broken")
	if n := (&module{impl: s}).list("", make([]byte, 4096)); n != -int32(abi.StatusUnavailable) {
		t.Errorf("list() of a broken driver = %d", n)
	}
}

func TestApply(t *testing.T) {
	s := &shelf{}
	m := module{impl: s}
	b := sdk.Batch{Source: "s", Seq: 7, Ops: []sdk.Op{sdk.Put(sdk.Entry{ID: "a", Size: 1}), sdk.Delete("b")}}
	if st := m.apply(abi.AppendBatch(nil, b)); st != abi.StatusOK || !reflect.DeepEqual(s.applied, []sdk.Batch{b}) {
		t.Errorf("apply() = %d, the driver got %+v", st, s.applied)
	}
	if st := m.apply([]byte("no batch")); st != abi.StatusInvalid || len(s.applied) != 1 {
		t.Errorf("apply() of garbage = %d, the driver got %d batches", st, len(s.applied))
	}
	s.err = sdk.ErrInvalid
	if st := m.apply(abi.AppendBatch(nil, b)); st != abi.StatusInvalid {
		t.Errorf("apply() that is refused = %d", st)
	}
}
