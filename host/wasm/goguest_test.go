package wasm

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/plugins/builtin/lru"
	"github.com/imgcache/imgcache-host/sdk"
)

// build builds a Go guest and returns its module.
func build(t *testing.T, pkg string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-buildmode=c-shared",
		"-ldflags=-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// TestGoGuest has its parts in one test, because compiling a Go guest takes
// its time.
func TestGoGuest(t *testing.T) {
	code, dir := build(t, "./testdata/faults"), filepath.Join(t.TempDir(), "compiled")
	t.Run("faults", func(t *testing.T) { testFaults(t, code, dir) })
	t.Run("batches", func(t *testing.T) { testBatches(t, code, dir) })
	t.Run("garbage", func(t *testing.T) { testGarbage(t, code, dir) })
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of compiled code: %v, %v, want mode 0700", info, err)
	}
}

// testBatches scores more records than a batch holds as the native lru does,
// in batches of odd sizes, which make the module's buffers grow, and in frames
// with appended fields.
func testBatches(t *testing.T, code []byte, dir string) {
	p := load(t, code, Options{CacheDir: dir}).Plugin().(scorer)
	rnd := rand.New(rand.NewPCG(1, 2))
	records := make([]sdk.Record, 70_000)
	for i := range records {
		records[i] = sdk.Record{
			Key: 12, Size: rnd.Uint64(), Hits: rnd.Uint64(), Admitted: rnd.Int64(),
			Accessed: rnd.Int64() - rnd.Int64(), FetchMS: rnd.Uint32(), Flags: sdk.Flags(rnd.Uint32()),
		}
	}
	got, want := make([]float64, len(records)), make([]float64, len(records))
	now := time.Unix(0, rnd.Int64())
	if err := lru.New().Score(t.Context(), now, records, want); err != nil {
		t.Fatal(err)
	}
	from := 0
	for _, n := range []int{0, 1, 999, 3000, sdk.MaxBatch, len(records) - sdk.MaxBatch - 4000} {
		if err := p.Score(t.Context(), now, records[from:from+n], got[from:from+n]); err != nil {
			t.Fatalf("Score() of %d records = %v", n, err)
		}
		from += n
	}
	if from != len(records) || !slices.Equal(got, want) {
		t.Errorf("%d scores are not those of the native policy", from)
	}
	clear(got[:1000])
	appended := framedScorer{p, later}
	if err := appended.Score(t.Context(), now, records[:1000], got[:1000]); err != nil || !slices.Equal(got, want) {
		t.Errorf("Score() of a frame with appended fields = %v, or its scores are others", err)
	}
}

// testGarbage: a guest whose calls leave garbage runs for ever in memory for
// little more than twice what it keeps.
func testGarbage(t *testing.T, code []byte, dir string) {
	p := load(t, code, Options{Memory: 16 << 20, CacheDir: dir}).Plugin().(sdk.Scorer)
	for call := range 800 {
		if err := p.Score(t.Context(), time.Now(), []sdk.Record{{Key: 13}}, make([]float64, 1)); err != nil {
			t.Fatalf("call %d: %v", call, err)
		}
	}
}

// testFaults: what a Go guest can do wrong. After a trap comes a new instance
// with the same options, which the number of calls in the score shows.
func testFaults(t *testing.T, code []byte, dir string) {
	var log bytes.Buffer
	m := load(t, code, Options{
		Memory: 16 << 20, Log: slog.New(slog.NewTextHandler(&log, nil)), CacheDir: dir,
	})
	now := time.Unix(1000, 0)
	m.output.now = func() time.Time { now = now.Add(time.Second); return now } // nothing is dropped
	p := m.Plugin().(interface {
		sdk.Scorer
		sdk.Configurer
	})
	err := p.Configure(t.Context(), sdk.Settings{Options: sdk.Config{"base": "-1"}})
	if !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(fmt.Sprint(err), "-1 is negative") {
		t.Errorf("Configure() = %v, want %v and the policy's words", err, sdk.ErrInvalid)
	}
	if err := p.Configure(t.Context(), sdk.Settings{Options: sdk.Config{"base": "1000"}}); err != nil {
		t.Fatal(err)
	}
	calls := 0
	for _, c := range []struct {
		key   sdk.Key
		is    error
		want  string
		traps bool
	}{
		{1, sdk.ErrNotFound, "step", false},
		{2, sdk.ErrInvalid, "step", false},
		{3, sdk.ErrUnsupported, "step", false},
		{4, sdk.ErrUnavailable, "step", false},
		{5, sdk.ErrUnavailable, "something else", false},
		{6, sdk.ErrUnavailable, "panic: runtime error: index out of range [1]", true},
		{7, sdk.ErrUnavailable, "exit_code(3)", true},
		{8, sdk.ErrUnavailable, "out of memory", true},
		{9, sdk.ErrUnavailable, "deadlock", true},
		{10, nil, "", false},
		{11, nil, "", false},
	} {
		scores := make([]float64, 1)
		err := p.Score(t.Context(), time.Now(), []sdk.Record{{Key: c.key}}, scores)
		if !errors.Is(err, c.is) || c.want != "" && !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("key %d: Score() = %v, want %v with %q", c.key, err, c.is, c.want)
		}
		if calls++; c.traps {
			calls = 0
		}
		calls++
		if err := p.Score(t.Context(), time.Now(), make([]sdk.Record, 1), scores); err != nil || scores[0] != 1000+float64(calls) {
			t.Errorf("after key %d: Score() = %v, %v, want %d", c.key, scores[0], err, 1000+calls)
		}
	}
	if !strings.Contains(log.String(), `msg="half a line"`) {
		t.Errorf("what the module prints is not in the log:\n%s", log.String())
	}
}
