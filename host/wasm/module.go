// Package wasm runs WebAssembly policies on wazero. In the service it works
// in the runner, a child process that can be killed, because compiled guest
// code cannot be interrupted without a price; see RATIONALE.md.
//
// A module gets no file system, no network, no environment, a clock that
// stands still and random numbers that repeat.
package wasm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// maxModule bounds the size of a module file: a Go guest with all of
	// protobuf has 6 MiB.
	maxModule = 32 << 20
	// pageSize is WebAssembly's unit of memory.
	pageSize = 64 << 10
	// DefaultMemory is the limit of a module's memory in bytes: a Go guest
	// starts with 3 MiB and needs 12 more for the largest frame and its
	// scores.
	DefaultMemory = 64 << 20
)

// Options says how a module is run.
type Options struct {
	Memory   int64        // limit in bytes; 0: DefaultMemory
	CacheDir string       // for compiled code, owner only; empty: none is kept
	Log      *slog.Logger // what the module logs and prints; nil: nowhere
	// Interruptible makes calls end with their context, at 3 to 20 times the
	// run time. The service does not set it: it kills the runner.
	Interruptible bool
	// OnLostState is called after a stateful module trapped; nil: its calls
	// fail from then on.
	OnLostState func()
}

// Module is a loaded policy module. It makes one call at a time.
type Module struct {
	opts     Options
	manifest sdk.Manifest
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	output   *output

	mu       sync.Mutex
	guest    *guest // nil after a trap
	settings *sdk.Settings
}

// Load compiles a module, checks that it is a policy of the ABI's version, and
// makes one instance, so that whatever is wrong is known at once.
func Load(ctx context.Context, code []byte, o Options) (_ *Module, err error) {
	if len(code) > maxModule {
		return nil, fmt.Errorf("%w: the module has %d bytes, at most %d are loaded", sdk.ErrInvalid, len(code), maxModule)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	m := &Module{opts: o, output: &output{log: o.Log}}
	if m.runtime, err = newRuntime(ctx, o); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = m.runtime.Close(ctx)
		}
	}()
	if m.compiled, err = m.runtime.CompileModule(ctx, code); err != nil {
		return nil, fmt.Errorf("%w: compile: %w", sdk.ErrInvalid, err)
	}
	if err := checkExports(m.compiled.ExportedFunctions(), everyModule); err != nil {
		return nil, err
	}
	if err := offer(ctx, m.runtime, m.compiled, o.Log); err != nil {
		return nil, err
	}
	if m.guest, err = m.instantiate(ctx); err != nil {
		return nil, err
	}
	if m.manifest, err = m.readManifest(ctx); err != nil {
		return nil, err
	}
	form := scoring
	if m.manifest.Has(sdk.CapStateful) {
		form = stateful
	}
	if m.manifest.Has(sdk.CapSnapshot) {
		form = slices.Concat(form, saving)
	}
	return m, checkExports(m.compiled.ExportedFunctions(), form)
}

func newRuntime(ctx context.Context, o Options) (wazero.Runtime, error) {
	cfg := wazero.NewRuntimeConfig().
		WithCustomSections(true).
		WithMemoryLimitPages(uint32(min(o.Memory/pageSize, 1<<16))).
		WithCloseOnContextDone(o.Interruptible)
	if o.CacheDir != "" {
		// The directory holds machine code that will be run.
		if err := os.MkdirAll(o.CacheDir, 0o700); err != nil {
			return nil, fmt.Errorf("make directory of compiled modules: %w", err)
		}
		cache, err := wazero.NewCompilationCacheWithDir(o.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("open directory of compiled modules: %w", err)
		}
		cfg = cfg.WithCompilationCache(cache)
	}
	return wazero.NewRuntimeWithConfig(ctx, cfg), nil
}

// Manifest returns what the module says of itself.
func (m *Module) Manifest() sdk.Manifest { return m.manifest }

// Close frees the module.
func (m *Module) Close(ctx context.Context) error { return m.runtime.Close(ctx) }

// export is a function that a module must have.
type export struct {
	name            string
	params, results []api.ValueType
}

const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
)

var (
	everyModule = []export{
		{abi.FuncVersion, nil, []api.ValueType{i32}},
		{abi.FuncAlloc, []api.ValueType{i32}, []api.ValueType{i32}},
		{abi.FuncFree, []api.ValueType{i32, i32}, nil},
	}
	scoring = []export{
		{abi.FuncScore, []api.ValueType{i32, i32}, []api.ValueType{i32}},
	}
	stateful = []export{
		{abi.FuncObserve, []api.ValueType{i32}, []api.ValueType{i32}},
		{abi.FuncSelect, []api.ValueType{i64, i64, i32, i32}, []api.ValueType{i32}},
	}
	saving = []export{
		{abi.FuncSnapshot, []api.ValueType{i32, i32}, []api.ValueType{i32}},
		{abi.FuncRestore, []api.ValueType{i32, i32}, []api.ValueType{i32}},
	}
	optional = []export{
		{abi.FuncConfigure, []api.ValueType{i32, i32}, []api.ValueType{i32}},
		{abi.FuncManifest, []api.ValueType{i32, i32}, []api.ValueType{i32}},
	}
)

// checkExports reports a function that is missing or of another type.
func checkExports(have map[string]api.FunctionDefinition, want []export) error {
	for _, w := range want {
		if err := w.check(have[w.name]); err != nil {
			return err
		}
	}
	for _, w := range optional {
		if f := have[w.name]; f != nil {
			if err := w.check(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w export) check(f api.FunctionDefinition) error {
	if f == nil {
		return fmt.Errorf("%w: the module does not export %s", sdk.ErrInvalid, w.name)
	}
	if !slices.Equal(f.ParamTypes(), w.params) || !slices.Equal(f.ResultTypes(), w.results) {
		return fmt.Errorf("%w: the module's %s has the type %s, want %s", sdk.ErrInvalid, w.name,
			signature(f.ParamTypes(), f.ResultTypes()), signature(w.params, w.results))
	}
	return nil
}

func signature(params, results []api.ValueType) string {
	names := func(types []api.ValueType) (list []string) {
		for _, t := range types {
			list = append(list, api.ValueTypeName(t))
		}
		return list
	}
	return fmt.Sprintf("%v -> %v", names(params), names(results))
}

// instantiate makes an instance and asks for its version.
func (m *Module) instantiate(ctx context.Context) (*guest, error) {
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize").
		WithStdout(m.output).WithStderr(m.output)
	mod, err := m.runtime.InstantiateModule(ctx, m.compiled, cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: start the module: %w", sdk.ErrInvalid, m.output.explain(err))
	}
	g := &guest{mod: mod, output: m.output}
	version, err := g.call(ctx, abi.FuncVersion)
	if err != nil {
		return nil, err
	}
	if version != abi.Version {
		return nil, fmt.Errorf("%w: the module is built for version %d of the ABI, this host speaks version %d", sdk.ErrInvalid, version, abi.Version)
	}
	return g, nil
}

// offer instantiates what the module imports, and only that.
func offer(ctx context.Context, r wazero.Runtime, compiled wazero.CompiledModule, log *slog.Logger) error {
	modules := map[string]bool{}
	for _, f := range compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		modules[module] = true
		known := module == wasi_snapshot_preview1.ModuleName ||
			module == abi.Module && name == abi.ImportLog || module == "env" && name == "abort"
		if !known {
			return fmt.Errorf("%w: the module imports %s.%s, which is not offered", sdk.ErrInvalid, module, name)
		}
	}
	if modules[wasi_snapshot_preview1.ModuleName] {
		if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
			return fmt.Errorf("offer WASI: %w", err)
		}
	}
	if modules[abi.Module] {
		if err := offerLog(ctx, r, log); err != nil {
			return err
		}
	}
	if modules["env"] {
		return offerAbort(ctx, r)
	}
	return nil
}

// errTrapped is why a call fails after a stateful module has trapped.
var errTrapped = errors.New("the module trapped and has lost its state")
