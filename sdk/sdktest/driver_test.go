package sdktest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestMemoryConforms(t *testing.T) {
	sdktest.Driver(t, func(*testing.T) sdktest.Subject { return sdktest.Subject{Driver: &sdktest.Memory{}} })
}

func TestMemoryIsDurableWhileItLives(t *testing.T) {
	sdktest.Durable(t, func(*testing.T) func() sdktest.Subject {
		m := &sdktest.Memory{}
		return func() sdktest.Subject { return sdktest.Subject{Driver: m} }
	})
}

// TestSuiteFindsBrokenDrivers breaks the reference in one way at a time and
// expects the case that says so to fail.
func TestSuiteFindsBrokenDrivers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		apply func(m *sdktest.Memory, ctx context.Context, b sdk.Batch) error
		list  func(m *sdktest.Memory, ctx context.Context, yield func([]sdk.Entry) error) error
		want  string // the name of a case
	}{
		{name: "no sequence", want: "a repeated batch", apply: func(m *sdktest.Memory, ctx context.Context, b sdk.Batch) error {
			b.Seq = m.Last(b.Source) + 1
			return m.Apply(ctx, b)
		}},
		{name: "one sequence for all", want: "sources are counted apart", apply: func(m *sdktest.Memory, ctx context.Context, b sdk.Batch) error {
			b.Source = "x"
			return m.Apply(ctx, b)
		}},
		{name: "put forgets hits", want: "put keeps the hits", apply: rewrite(func(op sdk.Op) []sdk.Op {
			if op.Kind == sdk.OpPut {
				return []sdk.Op{sdk.Delete(op.Entry.ID), op}
			}
			return []sdk.Op{op}
		})},
		{name: "touch creates", want: "touch of an absent id", apply: rewrite(func(op sdk.Op) []sdk.Op {
			if op.Kind == sdk.OpTouch {
				return []sdk.Op{sdk.Put(sdk.Entry{ID: op.Entry.ID}), op}
			}
			return []sdk.Op{op}
		})},
		{name: "ids without case", want: "ids are compared byte for byte", apply: rewrite(func(op sdk.Op) []sdk.Op {
			op.Entry.ID = strings.ToLower(op.Entry.ID)
			return []sdk.Op{op}
		})},
		{name: "applies in part", want: "an invalid batch", apply: func(m *sdktest.Memory, ctx context.Context, b sdk.Batch) error {
			first := b
			first.Ops = b.Ops[:min(1, len(b.Ops))]
			if b.Validate() != nil && first.Validate() == nil {
				if err := m.Apply(ctx, first); err != nil {
					return err
				}
			}
			return m.Apply(ctx, b)
		}},
		{name: "lists twice", want: "list yields each id once", list: func(m *sdktest.Memory, ctx context.Context, yield func([]sdk.Entry) error) error {
			if err := m.List(ctx, yield); err != nil {
				return err
			}
			return m.List(ctx, yield)
		}},
		{name: "swallows the error of yield", want: "an error of yield", list: func(m *sdktest.Memory, ctx context.Context, yield func([]sdk.Entry) error) error {
			return m.List(ctx, func(e []sdk.Entry) error { _ = yield(e); return nil })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var report sdktest.Report
			sdktest.Driver(&report, func(*sdktest.Report) sdktest.Subject {
				return sdktest.Subject{Driver: &broken{Memory: &sdktest.Memory{}, apply: tt.apply, list: tt.list}}
			})
			if got := strings.Join(report.Failures(), "\n"); !strings.Contains(got, tt.want) {
				t.Errorf("failures:\n%s\nwant one of %q", got, tt.want)
			}
		})
	}
}

func rewrite(f func(sdk.Op) []sdk.Op) func(*sdktest.Memory, context.Context, sdk.Batch) error {
	return func(m *sdktest.Memory, ctx context.Context, b sdk.Batch) error {
		var ops []sdk.Op
		for _, op := range b.Ops {
			ops = append(ops, f(op)...)
		}
		b.Ops = ops
		return m.Apply(ctx, b)
	}
}

type broken struct {
	*sdktest.Memory
	apply func(*sdktest.Memory, context.Context, sdk.Batch) error
	list  func(*sdktest.Memory, context.Context, func([]sdk.Entry) error) error
}

func (b *broken) Apply(ctx context.Context, batch sdk.Batch) error {
	if b.apply != nil {
		return b.apply(b.Memory, ctx, batch)
	}
	return b.Memory.Apply(ctx, batch)
}

func (b *broken) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	if b.list != nil {
		return b.list(b.Memory, ctx, yield)
	}
	return b.Memory.List(ctx, yield)
}

// TestFlaky sends touches through every fault, repeating each batch until it
// is acknowledged as the host does: the hits recorded equal the hits sent.
func TestFlaky(t *testing.T) {
	for _, fault := range []sdktest.Fault{sdktest.LoseRequest, sdktest.LoseAnswer, sdktest.Late, sdktest.DieBefore, sdktest.DieAfter} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			memory := &sdktest.Memory{}
			flaky := sdktest.NewFlaky(memory, func(call int) sdktest.Fault {
				if call%3 == 0 {
					return fault
				}
				return sdktest.NoFault
			})
			ops := []sdk.Op{sdk.Put(sdk.Entry{ID: "a"})}
			failed := 0
			for seq := uint64(1); seq <= 20; seq++ {
				for {
					err := flaky.Apply(t.Context(), sdk.Batch{Source: "s", Seq: seq, Ops: ops})
					if err == nil {
						break
					}
					if !errors.Is(err, sdk.ErrUnavailable) {
						t.Fatalf("Apply() = %v, want %v", err, sdk.ErrUnavailable)
					}
					failed++
					flaky.Revive()
				}
				ops = []sdk.Op{sdk.Touch("a", 1, ops[0].Entry.LastAccessed)}
			}
			if got := memory.Entries()[0].Hits; got != 19 {
				t.Errorf("%d hits recorded, 19 sent", got)
			}
			if failed == 0 || flaky.Calls() != 20+failed {
				t.Errorf("%d calls, %d of them failed", flaky.Calls(), failed)
			}
		})
	}
}

func TestFlakyListBreaksOff(t *testing.T) {
	memory := &sdktest.Memory{}
	var ops []sdk.Op
	for i := range 1000 {
		ops = append(ops, sdk.Put(sdk.Entry{ID: fmt.Sprint(i)}))
	}
	if err := memory.Apply(t.Context(), sdk.Batch{Source: "s", Seq: 1, Ops: ops}); err != nil {
		t.Fatal(err)
	}
	flaky := sdktest.NewFlaky(memory, func(int) sdktest.Fault { return sdktest.LoseAnswer })
	n := 0
	err := flaky.List(t.Context(), func(e []sdk.Entry) error { n += len(e); return nil })
	if !errors.Is(err, sdk.ErrUnavailable) || n == 0 || n == 1000 {
		t.Errorf("List() = %v after %d entries, want %v after some", err, n, sdk.ErrUnavailable)
	}
}

func TestReport(t *testing.T) {
	var seen []string
	r := &sdktest.Report{Observe: func(name string, failures []string) {
		seen = append(seen, fmt.Sprint(name, len(failures)))
	}}
	cleaned := false
	r.Run("group", func(r *sdktest.Report) {
		r.Cleanup(func() { cleaned = true })
		r.Run("good", func(r *sdktest.Report) {})
		r.Run("bad", func(r *sdktest.Report) {
			r.Errorf("first")
			r.Fatalf("second")
			r.Errorf("never")
		})
		r.Run("worse", func(*sdktest.Report) { panic("no") })
	})
	want := []string{"group/bad: first", "group/bad: second", "group/worse: panic: no"}
	if got := r.Failures(); !slices.Equal(got, want) {
		t.Errorf("Failures() = %q, want %q", got, want)
	}
	if want := []string{"group/good0", "group/bad2", "group/worse1"}; !slices.Equal(seen, want) {
		t.Errorf("observed %q, want %q", seen, want)
	}
	if !cleaned {
		t.Errorf("Cleanup was not called")
	}
}

// TestReportTimeout: a case that hangs fails, and the next one is run, unless
// nobody wants to know any more.
func TestReportTimeout(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	r := &sdktest.Report{Parent: parent, Timeout: time.Millisecond}
	hang := func(r *sdktest.Report) { <-r.Context().Done() }
	if r.Run("first", hang) || r.Run("second", hang) {
		t.Errorf("a case that hangs has passed")
	}
	r.Timeout = 0
	r.Run("third", func(r *sdktest.Report) { cancel(); hang(r) })
	r.Run("never", func(r *sdktest.Report) { r.Errorf("run") })
	want := []string{"first: it takes longer than 1ms", "second: it takes longer than 1ms", "third: interrupted"}
	if got := r.Failures(); !slices.Equal(got, want) {
		t.Errorf("Failures() = %q, want %q", got, want)
	}
}
