package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// misbehaved reads a module of the corpus.
func misbehaved(t *testing.T, name string) []byte {
	t.Helper()
	code, err := os.ReadFile(filepath.Join("..", "..", "testdata", "wasm", name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func load(t *testing.T, code []byte, o Options) *Module {
	t.Helper()
	m, err := Load(t.Context(), code, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// TestLoadRefuses: what is wrong with a module is said by name.
func TestLoadRefuses(t *testing.T) {
	huge := make([]byte, maxModule+1)
	damaged := misbehaved(t, "trap")
	damaged[len(preamble)+3] ^= 0xff // in the section of types
	for name, c := range map[string]struct {
		code []byte
		want string
	}{
		"missing":    {misbehaved(t, "missing"), "does not export imgcache_score"},
		"oldabi":     {misbehaved(t, "oldabi"), "version 99"},
		"import":     {misbehaved(t, "import"), "imports imgcache.open"},
		"wrong":      {misbehaved(t, "wrong"), "imgcache_score has the type (i32, i32) -> (i64); expected (i32, i32) -> (i32)"},
		"wide":       {misbehaved(t, "wide"), "more than 1048576 elements"},
		"huge":       {huge, "at most 33554432"},
		"empty":      {nil, "not a WebAssembly module"},
		"text":       {[]byte("#!/bin/sh"), "not a WebAssembly module"},
		"no memory":  {[]byte(preamble), `memory as "memory"`},
		"half of it": {misbehaved(t, "trap")[:100], "middle of a section"},
		"damaged":    {damaged, "compile"},
	} {
		_, err := Load(t.Context(), c.code, Options{})
		if !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: Load() = %v, want %v with %q", name, err, sdk.ErrInvalid, c.want)
		}
	}
}

// TestMisbehaviour calls each module twice: the second call finds a fresh
// instance and fails in the same way.
func TestMisbehaviour(t *testing.T) {
	for name, c := range map[string]struct {
		timeout time.Duration
		is      error
		want    string
	}{
		"abort":   {time.Minute, sdk.ErrUnavailable, `abort: "no idé" at line 7, column 3`},
		"spin":    {50 * time.Millisecond, context.DeadlineExceeded, "imgcache_score: module closed"},
		"trap":    {time.Minute, sdk.ErrUnavailable, "imgcache_score: wasm error: unreachable"},
		"recurse": {time.Minute, sdk.ErrUnavailable, "imgcache_score: stack overflow"},
		"bomb":    {time.Minute, sdk.ErrUnavailable, "imgcache_score: wasm error: out of bounds memory access"},
		"table":   {time.Minute, sdk.ErrUnavailable, "imgcache_score: wasm error: unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			m := load(t, misbehaved(t, name), Options{Interruptible: true, Memory: 8 << 20})
			if m.Manifest().Name != name {
				t.Errorf("the manifest has the name %q", m.Manifest().Name)
			}
			for range 2 {
				ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
				defer cancel()
				err := m.Plugin().(sdk.Scorer).Score(ctx, time.Now(), make([]sdk.Record, 3), make([]float64, 3))
				if !errors.Is(err, sdk.ErrUnavailable) || !errors.Is(err, c.is) || !strings.Contains(fmt.Sprint(err), c.want) {
					t.Errorf("Score() = %v, want %q", err, c.want)
				}
				if strings.Contains(fmt.Sprint(err), "\n") {
					t.Errorf("the error has several lines: %v", err)
				}
			}
		})
	}
}

// TestBadAdvice passes on what only the host can judge.
func TestBadAdvice(t *testing.T) {
	scores := []float64{1, 1, 1}
	err := load(t, misbehaved(t, "nan"), Options{}).Plugin().(sdk.Scorer).Score(t.Context(), time.Now(), make([]sdk.Record, 3), scores)
	if err != nil || scores[0] != 0 || scores[1] != 0 || !math.IsNaN(scores[2]) {
		t.Errorf("nan: Score() = %v, %v", scores, err)
	}
	foreign := load(t, misbehaved(t, "foreign"), Options{}).Plugin().(sdk.Stateful)
	if err := foreign.Observe(t.Context(), []sdk.Event{{Key: 77, Kind: sdk.EventAdmitted}}); err != nil {
		t.Errorf("foreign: Observe() = %v", err)
	}
	for _, limit := range []int{-1, 0, 3, sdk.MaxBatch, math.MaxInt} {
		keys, err := foreign.Select(t.Context(), time.Now(), 1, limit)
		want := max(0, min(limit, sdk.MaxBatch))
		if err != nil || len(keys) != want || want > 0 && keys[want-1] != sdk.Key(want) {
			t.Errorf("foreign: Select(%d) = %d keys, %v, want %d", limit, len(keys), err, want)
		}
	}
	if _, ok := foreign.(sdk.Snapshotter); ok {
		t.Error("foreign does not declare snapshots, and has them")
	}
}

// TestFlood: of 100000 lines in a call some are logged, and the next second
// says how many were not.
func TestFlood(t *testing.T) {
	var log bytes.Buffer
	m := load(t, misbehaved(t, "flood"), Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	now := time.Unix(1000, 0)
	m.output.now = func() time.Time { return now }
	score := func() {
		if err := m.Plugin().(sdk.Scorer).Score(t.Context(), now, make([]sdk.Record, 1), make([]float64, 1)); err != nil {
			t.Fatal(err)
		}
	}
	score()
	if got := strings.Count(log.String(), `level=INFO msg="look at me"`); got != maxLines {
		t.Errorf("%d lines are logged, want %d", got, maxLines)
	}
	now = now.Add(time.Second)
	score()
	if want := fmt.Sprintf("dropped=%d", 100_000-maxLines); !strings.Contains(log.String(), want) {
		t.Errorf("the log does not say %s", want)
	}
}

// TestLostState: a stateful policy whose instance has trapped stays silent,
// and says so once.
func TestLostState(t *testing.T) {
	lost := 0
	p := load(t, misbehaved(t, "forget"), Options{OnLostState: func() { lost++ }}).Plugin().(sdk.Stateful)
	if err := p.Observe(t.Context(), nil); err != nil {
		t.Errorf("Observe() of nothing = %v", err)
	}
	for range 3 {
		err := p.Observe(t.Context(), make([]sdk.Event, 1))
		if !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "unreachable") {
			t.Errorf("Observe() of an event = %v", err)
		}
	}
	if keys, err := p.Select(t.Context(), time.Now(), 1, 1); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("Select() without a state = %v, %v", keys, err)
	}
	if lost != 1 {
		t.Errorf("OnLostState was called %d times, want once", lost)
	}
}

// TestMemoryLimit: a module whose memory cannot grow has no room for a batch.
func TestMemoryLimit(t *testing.T) {
	score := func(memory int64, n int) error {
		m := load(t, misbehaved(t, "nan"), Options{Memory: memory})
		return m.Plugin().(sdk.Scorer).Score(t.Context(), time.Now(), make([]sdk.Record, n), make([]float64, n))
	}
	if err := score(5<<20, sdk.MaxBatch); err != nil {
		t.Errorf("5 MiB are not enough for a full batch: %v", err)
	}
	err := score(2<<20, sdk.MaxBatch)
	if !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "no memory") {
		t.Errorf("2 MiB: Score() = %v, want that there is no memory", err)
	}
	if _, err := Load(t.Context(), misbehaved(t, "nan"), Options{Memory: 1}); err != nil {
		t.Errorf("a module of one page does not load into one page: %v", err)
	}
}

// TestCalls: arguments that the host must not send, and a context that is
// over.
func TestCalls(t *testing.T) {
	p := load(t, misbehaved(t, "nan"), Options{}).Plugin().(sdk.Scorer)
	for _, c := range [][2]int{{1, 2}, {sdk.MaxBatch + 1, sdk.MaxBatch + 1}} {
		err := p.Score(t.Context(), time.Now(), make([]sdk.Record, c[0]), make([]float64, c[1]))
		if !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("Score() of %d records to %d scores = %v, want %v", c[0], c[1], err, sdk.ErrInvalid)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Score(ctx, time.Now(), nil, nil); !errors.Is(err, sdk.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("Score() with a cancelled context = %v", err)
	}
}

// TestDamagedCache: what is wrong with the cache of compiled code does not keep
// a module from loading.
func TestDamagedCache(t *testing.T) {
	dir := t.TempDir()
	load(t, misbehaved(t, "nan"), Options{CacheDir: dir})
	damaged := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			damaged++
			return os.WriteFile(path, []byte("WAZEVO damaged"), 0o600)
		}
		return err
	})
	if err != nil || damaged == 0 {
		t.Fatalf("%d files of compiled code, %v", damaged, err)
	}
	load(t, misbehaved(t, "nan"), Options{CacheDir: dir})
	load(t, misbehaved(t, "nan"), Options{CacheDir: filepath.Join(os.DevNull, "compiled")})
}

// TestThingsInTheCache: links, FIFOs and devices in it are removed, and neither
// followed nor waited for.
func TestThingsInTheCache(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "precious")
	load(t, misbehaved(t, "nan"), Options{CacheDir: dir})
	var files []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("files of compiled code: %q, %v", files, err)
	}
	for name, place := range map[string]func(path string) error{
		"FIFO":            func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"link to a file":  func(path string) error { return os.Symlink(outside, path) },
		"link to nothing": func(path string) error { return os.Symlink(outside+"-not", path) },
	} {
		for _, path := range files {
			if err := errors.Join(os.WriteFile(outside, []byte("precious"), 0o600), os.Remove(path), place(path)); err != nil {
				t.Fatal(err)
			}
		}
		load(t, misbehaved(t, "nan"), Options{CacheDir: dir})
		for _, path := range files {
			if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%s: then there is %v, %v", name, info, err)
			}
		}
		if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
			t.Errorf("%s: the file outside is %q, %v", name, text, err)
		}
	}
}

// TestBadAddresses: a module that hands out memory that it does not have is not
// loaded.
func TestBadAddresses(t *testing.T) {
	for name, want := range map[string]string{
		"pointer": "imgcache_alloc: returned the address 4294967288, which is outside of the module's memory",
		"crooked": "imgcache_alloc: returned the address 1027, which is not aligned to 8",
	} {
		if _, err := Load(t.Context(), misbehaved(t, name), Options{}); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: Load() = %v, want %q", name, err, want)
		}
	}
}

// TestTrapInEveryExport: wherever a module traps, the error says where.
func TestTrapInEveryExport(t *testing.T) {
	const ours = `"kind":"policy","capabilities":["stateful","snapshot"]`
	for letter, c := range map[string]struct{ kind, where string }{
		"a": {ours, "function[_initialize] failed"},
		"b": {ours, "imgcache_abi_version"},
		"c": {ours, "imgcache_manifest"},
		"d": {ours, "imgcache_alloc"},
		"e": {ours, "imgcache_free"},
		"f": {ours, "imgcache_configure"},
		"g": {`"kind":"policy","capabilities":["score"]`, "imgcache_score"},
		"h": {ours, "imgcache_observe"},
		"i": {ours, "imgcache_select"},
		"j": {ours, "imgcache_snapshot"},
		"k": {ours, "imgcache_restore"},
		"l": {`"kind":"driver"`, "imgcache_apply"},
		"m": {`"kind":"driver"`, "imgcache_list"},
	} {
		code := bytes.Replace(misbehaved(t, "stumble"), []byte("trap in: ?"), []byte("trap in: "+letter), 1)
		code = bytes.Replace(code, []byte(ours), fmt.Appendf(nil, "%-*s", len(ours), c.kind), 1)
		if err := callAll(t, code); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), c.where+": wasm error: unreachable") {
			t.Errorf("%s: %v", c.where, err)
		}
	}
}

// callAll loads a module and calls each of its exports, until one fails.
func callAll(t *testing.T, code []byte) error {
	m, err := Load(t.Context(), code, Options{})
	if err != nil {
		return err
	}
	defer m.Close(context.Background())
	ctx, now := t.Context(), time.Now()
	if err := m.Configure(ctx, sdk.Settings{Options: sdk.Config{"a": "b"}, StateDir: t.TempDir()}); err != nil {
		return err
	}
	switch p := m.Plugin().(type) {
	case sdk.Scorer:
		return p.Score(ctx, now, make([]sdk.Record, 1), make([]float64, 1))
	case sdk.Driver:
		return errors.Join(p.Apply(ctx, sdk.Batch{Source: "s", Seq: 1}), p.List(ctx, func([]sdk.Entry) error { return nil }))
	}
	p := m.Plugin().(sdk.Stateful)
	err = p.Observe(ctx, make([]sdk.Event, 1000)) // too much for the room that the options had
	if err == nil {
		_, err = p.Select(ctx, now, 1, 1)
	}
	if err == nil {
		_, err = p.(sdk.Snapshotter).Snapshot(ctx)
	}
	if err == nil {
		err = p.(sdk.Snapshotter).Restore(ctx, []byte("state"))
	}
	return err
}

// TestBoast: lengths that cannot be are errors, and nothing is read there.
func TestBoast(t *testing.T) {
	open := func() sdk.Stateful {
		return load(t, misbehaved(t, "boast"), Options{}).Plugin().(sdk.Stateful)
	}
	if keys, err := open().Select(t.Context(), time.Now(), 1, 7); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "8 keys; expected at most 7") {
		t.Errorf("Select() = %d keys, %v", len(keys), err)
	}
	if b, err := open().(sdk.Snapshotter).Snapshot(t.Context()); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "asks for a larger buffer each time") {
		t.Errorf("Snapshot() = %d bytes, %v", len(b), err)
	}
	if err := open().Observe(t.Context(), make([]sdk.Event, 1)); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "log with an address outside of the module's memory") {
		t.Errorf("Observe() = %v", err)
	}
}
