package sdktest_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/wasm"
	"github.com/imgcache/imgcache-host/plugins/builtin/fifo"
	"github.com/imgcache/imgcache-host/plugins/builtin/gdsf"
	"github.com/imgcache/imgcache-host/plugins/builtin/lfu"
	"github.com/imgcache/imgcache-host/plugins/builtin/lru"
	"github.com/imgcache/imgcache-host/plugins/builtin/policytest"
	"github.com/imgcache/imgcache-host/plugins/builtin/s3fifo"
	"github.com/imgcache/imgcache-host/plugins/builtin/sieve"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// modules are instances of a policy as WebAssembly. They are used by one test
// after the other, because loading them takes longer than most tests.
type modules struct {
	code     []byte
	compiled string // directory of compiled code
	idle     []*wasm.Module
}

// take returns an instance for the time of a test. Its policy is as the test
// before left it.
func (m *modules) take(t *testing.T) *wasm.Module {
	t.Helper()
	var mod *wasm.Module
	if last := len(m.idle) - 1; last >= 0 {
		mod, m.idle = m.idle[last], m.idle[:last]
	} else {
		var err error
		if mod, err = wasm.Load(t.Context(), m.code, wasm.Options{CacheDir: m.compiled}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { m.idle = append(m.idle, mod) })
	return mod
}

// open builds the module of a builtin policy for the time of a test.
func open(t *testing.T, name string) *modules {
	t.Helper()
	m := &modules{code: build(t, "builtin/"+name+"/wasm"), compiled: t.TempDir()}
	t.Cleanup(func() {
		for _, mod := range m.idle {
			if err := mod.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	return m
}

// build returns the module whose package is below plugins.
func build(t *testing.T, name string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "module.wasm")
	if err := goBuild(path, name); err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// goBuild writes that module to a file.
func goBuild(path, name string) error {
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", path, "github.com/imgcache/imgcache-host/plugins/"+name)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return nil
}

// TestScoringThroughWasm holds the modules of scoring policies to the contract
// and to their textbook versions, and each score to that of the native policy,
// bit by bit.
func TestScoringThroughWasm(t *testing.T) {
	for name, c := range map[string]struct {
		native func() sdk.Scorer
		book   func() policytest.Textbook
	}{
		"lru":  {lru.New, policytest.LRU},
		"lfu":  {lfu.New, policytest.LFU},
		"fifo": {fifo.New, policytest.FIFO},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, name)
			sdktest.Manifest(t, m.take(t).Manifest())
			both := func(t *testing.T) sdk.Scorer {
				return &twinScorer{native: c.native(), module: m.take(t).Plugin().(sdk.Scorer)}
			}
			sdktest.Scorer(t, both)
			policytest.Agree(t, 10_000, func(t *testing.T) sdk.Stateful { return policytest.Ranked(both(t)) }, c.book)
		})
	}
}

// TestStatefulThroughWasm does the same for the stateful policies, snapshots
// included: what the ABI carries is enough for all of them.
func TestStatefulThroughWasm(t *testing.T) {
	for name, c := range map[string]struct {
		native func() snapshotter
		book   func() policytest.Textbook
	}{
		"gdsf": {
			func() snapshotter { return gdsf.New() },
			func() policytest.Textbook { return policytest.GDSF(func(policytest.Request) float64 { return 1 }) },
		},
		"sieve": {func() snapshotter { return sieve.New() }, policytest.SIEVE},
		"s3fifo": {
			func() snapshotter { return s3fifo.New() },
			func() policytest.Textbook { return &policytest.S3FIFO{Small: 0.1, Ghost: 0.9, Threshold: 2} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, name)
			sdktest.Manifest(t, m.take(t).Manifest())
			nothing, err := c.native().Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			both := func(t *testing.T) sdk.Stateful {
				p := &twin{native: c.native(), module: m.take(t).Plugin().(snapshotter)}
				if err := p.module.Restore(t.Context(), nothing); err != nil {
					t.Fatal(err)
				}
				return p
			}
			sdktest.Stateful(t, both)
			policytest.Agree(t, 10_000, both, c.book)
		})
	}
}

// twinScorer is a policy twice. It fails when the two disagree.
type twinScorer struct{ native, module sdk.Scorer }

func (p *twinScorer) Score(ctx context.Context, now time.Time, records []sdk.Record, scores []float64) error {
	want := make([]float64, len(scores))
	if err := p.native.Score(ctx, now, records, want); err != nil {
		return err
	}
	if err := p.module.Score(ctx, now, records, scores); err != nil {
		return err
	}
	for i := range want {
		if math.Float64bits(scores[i]) != math.Float64bits(want[i]) {
			return fmt.Errorf("the module's score of %+v is %v, natively it is %v", records[i], scores[i], want[i])
		}
	}
	return nil
}

type snapshotter interface {
	sdk.Stateful
	sdk.Snapshotter
}

// twin is a stateful policy twice.
type twin struct{ native, module snapshotter }

func (p *twin) Observe(ctx context.Context, events []sdk.Event) error {
	if err := p.native.Observe(ctx, events); err != nil {
		return err
	}
	return p.module.Observe(ctx, events)
}

func (p *twin) Select(ctx context.Context, now time.Time, need uint64, limit int) ([]sdk.Key, error) {
	want, err := p.native.Select(ctx, now, need, limit)
	if err != nil {
		return nil, err
	}
	got, err := p.module.Select(ctx, now, need, limit)
	if err == nil && !slices.Equal(got, want) {
		err = fmt.Errorf("the module proposes %v, natively it is %v", got, want)
	}
	return got, err
}

func (p *twin) Snapshot(ctx context.Context) ([]byte, error) {
	want, err := p.native.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	got, err := p.module.Snapshot(ctx)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("the module's snapshot is %x, natively it is %x", got, want)
	}
	return got, err
}

func (p *twin) Restore(ctx context.Context, snapshot []byte) error {
	want := p.native.Restore(ctx, snapshot)
	got := p.module.Restore(ctx, snapshot)
	if (want == nil) != (got == nil) {
		return fmt.Errorf("the module answers %w, natively it is %w", got, want)
	}
	return got
}
