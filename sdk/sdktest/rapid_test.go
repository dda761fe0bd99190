package sdktest_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/imgcache/imgcache-host/plugins/builtin/sqlite"
	"github.com/imgcache/imgcache-host/plugins/builtin/xattr"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// configurable is a driver as its package makes it.
type configurable interface {
	sdk.Driver
	sdk.Configurer
	io.Closer
}

// TestModel leads the drivers that need no server, and the reference, through
// batches that are searched for, and made small, where the two differ.
func TestModel(t *testing.T) {
	checks := "10"
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		checks = "100"
	}
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	for name, open := range map[string]func() configurable{
		"sqlite": func() configurable { return sqlite.New(slog.New(slog.DiscardHandler)) },
		"xattr":  func() configurable { return xattr.New(slog.New(slog.DiscardHandler)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, n := cacheDir(t), 0
			rapid.Check(t, func(rt *rapid.T) {
				n++
				m := &modelled{dir: filepath.Join(dir, fmt.Sprint(n)), open: open}
				if err := os.MkdirAll(filepath.Join(m.dir, ".imgcache"), 0o750); err != nil {
					rt.Fatal(err)
				}
				m.restart(rt)
				defer func() { _ = m.driver.Close() }()
				rt.Repeat(map[string]func(*rapid.T){"": m.compare, "apply": m.apply, "restart": m.restart})
			})
		})
	}
}

// modelled is a driver beside the reference.
type modelled struct {
	dir    string
	open   func() configurable
	driver configurable
	memory sdktest.Memory
}

// restart opens what an earlier driver has left.
func (m *modelled) restart(t *rapid.T) {
	if m.driver != nil {
		if err := m.driver.Close(); err != nil {
			t.Fatal(err)
		}
	}
	m.driver = m.open()
	if err := m.driver.Configure(context.Background(), sdk.Settings{CacheDir: m.dir, Node: "node", Instance: "0123456789abcdef"}); err != nil {
		t.Fatal(err)
	}
}

// apply gives both a batch: mostly the next one of a source, else one that is
// repeated or leaves a gap.
func (m *modelled) apply(t *rapid.T) {
	source := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "source")
	step := rapid.SampledFrom([]int{0, 0, 0, 0, -1, -2, 1, 5}).Draw(t, "step")
	b := sdk.Batch{
		Source: source, Seq: uint64(max(0, int(m.memory.Last(source))+1+step)), // 0 is invalid
		Ops: rapid.SliceOfN(operations(), 0, 12).Draw(t, "operations"),
	}
	next := b.Seq == m.memory.Last(source)+1
	want := m.memory.Apply(context.Background(), b)
	if next && want == nil {
		m.files(t)
	}
	got := m.driver.Apply(context.Background(), b)
	if (got == nil) != (want == nil) || errors.Is(got, sdk.ErrInvalid) != errors.Is(want, sdk.ErrInvalid) {
		t.Fatalf("Apply() = %v, the reference says %v", got, want)
	}
}

// files makes the file of each image that has a record, and removes others, as
// the host has done when it sends the batch.
func (m *modelled) files(t *rapid.T) {
	there := map[string]bool{}
	for _, e := range m.memory.Entries() {
		there[e.ID] = true
	}
	for _, id := range ids {
		path, err := filepath.Join(m.dir, id), error(nil)
		if !there[id] {
			err = os.RemoveAll(path)
		} else if _, absent := os.Lstat(path); absent != nil {
			err = os.WriteFile(path, nil, 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// compare lists both.
func (m *modelled) compare(t *rapid.T) {
	var got []sdk.Entry
	err := m.driver.List(context.Background(), func(entries []sdk.Entry) error {
		got = append(got, entries...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b sdk.Entry) int { return cmp.Compare(a.ID, b.ID) })
	if want := m.memory.Entries(); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Fatalf("listed\n%v\nthe reference has\n%v", got, want)
	}
}

// ids are few, so that operations meet.
var ids = []string{"a", "A", "image", "image.raw", "z-9_9"}

// operations are of any kind.
func operations() *rapid.Generator[sdk.Op] {
	return rapid.Custom(func(t *rapid.T) sdk.Op {
		moment := rapid.Custom(func(t *rapid.T) time.Time {
			return time.UnixMicro(rapid.Int64Range(1, 1<<50).Draw(t, "microseconds")).UTC()
		})
		return sdk.Op{
			Kind: sdk.OpKind(rapid.IntRange(int(sdk.OpPut), int(sdk.OpTouch)).Draw(t, "kind")),
			Entry: sdk.Entry{
				ID:           rapid.SampledFrom(ids).Draw(t, "id"),
				Version:      rapid.SampledFrom([]string{"", "v", "V", `W/"1"`, "é\n", "it's"}).Draw(t, "version"),
				Size:         rapid.Int64Range(0, 1<<40).Draw(t, "size"),
				Hits:         rapid.Uint64Range(0, 1<<20).Draw(t, "hits"),
				LastAccessed: moment.Draw(t, "accessed"),
				LastModified: moment.Draw(t, "modified"),
			},
		}
	})
}
