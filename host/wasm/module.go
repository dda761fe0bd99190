// Package wasm runs plugins that are WebAssembly modules, on wazero.
//
// In the service a module runs in the runner, a child process that the
// supervisor can kill. Code that can be interrupted is slower, and while other
// code runs, the garbage collector of its process waits. Tools that run a module
// in their own process set Options.Interruptible.
//
// A module gets no files, no network, no arguments and no environment. Unless
// it is granted more, it has a clock that only ticks, and random numbers that
// repeat. A driver gets a store of keys and values if it requests one.
package wasm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/imgcache/imgcache-host/host/kv"
	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// maxModule bounds the size of a module in bytes. A Go guest has 2 to 3
	// MiB, and compiling one takes twenty times its size in memory.
	maxModule = 32 << 20

	// DefaultMemory is the limit of a module's memory in bytes: 64 MiB of its
	// own, which is enough for a stateful policy of half a million images, and
	// 8 MiB for the largest batch and the answer to it.
	DefaultMemory = 72 << 20

	pageSize = 64 << 10 // WebAssembly's unit of memory
	maxPages = 1 << 16  // of a 32-bit memory
)

// Options says how a module is run.
type Options struct {
	Memory   int64        // limit in bytes, rounded up to pages of 64 KiB; 0: DefaultMemory
	CacheDir string       // for compiled code; made private to the user; empty: none is kept
	Log      *slog.Logger // for what the module logs and prints; nil: nowhere
	State    int64        // limit of what a driver stores in bytes; 0: kv.DefaultQuota
	Grants   []sdk.Grant  // of sdk.GrantClock and sdk.GrantRandom

	// Interruptible makes calls end with their context. It also makes them 3
	// to 20 times slower. Without it a call ends when the module returns.
	Interruptible bool

	// OnLostState is called when an instance of a stateful policy has
	// trapped, before the call returns its error. It may be nil.
	OnLostState func()
}

// Module is a plugin that was loaded. It runs one call at a time.
type Module struct {
	opts     Options
	output   *output
	cache    wazero.CompilationCache // nil: none is kept
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	manifest sdk.Manifest

	mu       sync.Mutex
	guest    *guest     // nil after a trap
	options  sdk.Config // from Configure, for later instances; nil: not configured
	lostWhat error      // the trap that cost a stateful policy its state
	store    *kv.Store  // of a driver; nil: it requests none, or is not configured
}

// Load compiles a module, checks that it is a plugin that this host can run,
// and makes an instance of it. An error of the module wraps sdk.ErrInvalid and
// names the export, import or field of the manifest; a trap before the first
// call wraps sdk.ErrUnavailable.
func Load(ctx context.Context, code []byte, o Options) (*Module, error) {
	if len(code) > maxModule {
		return nil, fmt.Errorf("%w: the module is too large; expected at most %d bytes", sdk.ErrInvalid, maxModule)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &Module{opts: o, output: newOutput(o.Log)}
	var declared bool
	var err error
	if m.manifest, declared, err = ReadManifest(code); err != nil { // before any of its code runs
		return nil, err
	}
	if code, err = boundTables(code); err != nil {
		return nil, err
	}
	if err := m.compile(ctx, code); err != nil {
		return nil, err
	}
	if err := m.open(ctx, declared); err != nil {
		_ = m.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	return m, nil
}

// open does what Load does after the module is compiled.
func (m *Module) open(ctx context.Context, declared bool) (err error) {
	if err := checkModule(m.compiled); err != nil {
		return err
	}
	if err := m.offer(ctx); err != nil {
		return err
	}
	if m.guest, err = m.instantiate(ctx); err != nil {
		return err
	}
	if !declared {
		text, err := m.guest.manifest(ctx)
		if err != nil {
			return err
		}
		if m.manifest, err = parseManifest(text); err != nil {
			return err
		}
	}
	return checkForm(m.compiled, m.manifest)
}

// compile compiles the module with the cache of compiled code. If that fails,
// it compiles without: a full or damaged cache must not stop a policy.
func (m *Module) compile(ctx context.Context, code []byte) error {
	ctx = experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0))
	if m.opts.CacheDir != "" {
		err := m.compileCached(ctx, code)
		if err == nil {
			return nil
		}
		m.opts.Log.Debug("compile without the cache of compiled modules", "error", err)
	}
	if err := m.compileWith(ctx, code, m.config()); err != nil {
		return fmt.Errorf("%w: compile: %w", sdk.ErrInvalid, err)
	}
	return nil
}

func (m *Module) compileCached(ctx context.Context, code []byte) error {
	cache, err := openCache(m.opts.CacheDir)
	if err != nil {
		return err
	}
	if err := m.compileWith(ctx, code, m.config().WithCompilationCache(cache)); err != nil {
		_ = cache.Close(ctx)
		return err
	}
	m.cache = cache
	return nil
}

func (m *Module) compileWith(ctx context.Context, code []byte, config wazero.RuntimeConfig) (err error) {
	m.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	if m.compiled, err = m.runtime.CompileModule(ctx, code); err != nil {
		_ = m.runtime.Close(ctx)
	}
	return err
}

func (m *Module) config() wazero.RuntimeConfig {
	memory := m.opts.Memory
	if memory <= 0 {
		memory = DefaultMemory
	}
	pages := min((uint64(memory)+pageSize-1)/pageSize, maxPages)
	return wazero.NewRuntimeConfig().
		WithMemoryLimitPages(uint32(pages)).
		WithCloseOnContextDone(m.opts.Interruptible)
}

// openCache opens the directory of compiled code. The machine code in it will be
// run, so nobody else may write there.
func openCache(dir string) (wazero.CompilationCache, error) {
	const private = 0o700
	if err := os.MkdirAll(dir, private); err != nil {
		return nil, fmt.Errorf("make the cache of compiled modules: %w", err)
	}
	if err := os.Chmod(dir, private); err != nil {
		return nil, fmt.Errorf("make the cache of compiled modules private: %w", err)
	}
	if err := tidyCache(dir); err != nil {
		return nil, fmt.Errorf("tidy the cache of compiled modules: %w", err)
	}
	versioning.Lock()
	defer versioning.Unlock()
	return wazero.NewCompilationCacheWithDir(dir)
}

// tidyCache removes links, FIFOs and other things that are neither files nor
// directories: they would be followed or waited for.
func tidyCache(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // another process is writing
		case err != nil:
			return err
		case e.IsDir() || e.Type().IsRegular() || path == dir:
			return nil
		}
		return os.Remove(path)
	})
}

// versioning is held where wazero may look up its own version, which it stores
// without a lock, while modules are loaded at the same time.
var versioning sync.Mutex

// instantiate makes an instance and asks for its version.
func (m *Module) instantiate(ctx context.Context) (*guest, error) {
	m.output.begin()
	mod, err := m.runtime.InstantiateModule(ctx, m.compiled, m.instanceConfig())
	if err != nil {
		return nil, m.output.trap("start", err)
	}
	g := &guest{mod: mod, output: m.output}
	version, err := g.call(ctx, abi.FuncVersion)
	if err == nil && version != abi.Version {
		err = fmt.Errorf("%w: the module is built for version %d of the ABI; this host speaks version %d",
			sdk.ErrInvalid, version, abi.Version)
	}
	if err != nil {
		g.close(ctx)
		return nil, err
	}
	return g, nil
}

func (m *Module) instanceConfig() wazero.ModuleConfig {
	c := wazero.NewModuleConfig().
		WithName(""). // two instances cannot have the same name
		WithStartFunctions("_initialize").
		WithStdout(m.output).WithStderr(m.output)
	if slices.Contains(m.opts.Grants, sdk.GrantClock) {
		c = c.WithSysWalltime().WithSysNanotime()
	}
	if slices.Contains(m.opts.Grants, sdk.GrantRandom) {
		c = c.WithRandSource(rand.Reader)
	}
	return c
}

// Manifest returns what the module says of itself.
func (m *Module) Manifest() sdk.Manifest { return m.manifest }

// Plugin returns the module in the form that its manifest declares: a value that
// implements sdk.Configurer and sdk.Noter, and one of sdk.Driver, sdk.Scorer and
// sdk.Stateful, the last with sdk.Snapshotter if the manifest declares it.
func (m *Module) Plugin() any {
	switch {
	case m.manifest.Kind == sdk.KindDriver:
		return driver{m}
	case m.manifest.Has(sdk.CapScore):
		return scorer{m}
	case m.manifest.Has(sdk.CapSnapshot):
		return snapshotter{stateful{m}}
	}
	return stateful{m}
}

// Configure passes options to the module, and to each later instance. The store
// of a driver is in s.StateDir.
func (m *Module) Configure(ctx context.Context, s sdk.Settings) error {
	if err := m.openStore(ctx, s.StateDir); err != nil {
		return err
	}
	return m.use(ctx, func(g *guest) error {
		if err := g.configure(ctx, s.Options); err != nil {
			return err
		}
		m.options = s.Options
		return nil
	})
}

// Notes implements [sdk.Noter]: it says what the module requests but was not
// granted.
func (m *Module) Notes() []string {
	var notes []string
	if m.manifest.Kind == sdk.KindPolicy && m.manifest.Asks(sdk.GrantKV) {
		notes = append(notes, fmt.Sprintf("It asks for %q, which is for drivers; a policy keeps its state by the capability %q.", sdk.GrantKV, sdk.CapSnapshot))
	}
	for _, g := range []sdk.Grant{sdk.GrantClock, sdk.GrantRandom} {
		if m.manifest.Asks(g) && !slices.Contains(m.opts.Grants, g) {
			notes = append(notes, fmt.Sprintf("It asks for %q, which is not granted: grant = [%[1]q] in its plugin block would.", g))
		}
	}
	return notes
}

// Close ends the module and gives its memory back. No call may be running.
func (m *Module) Close(ctx context.Context) error {
	err := m.runtime.Close(ctx)
	if m.cache != nil {
		err = errors.Join(err, m.cache.Close(ctx))
	}
	if m.store != nil {
		err = errors.Join(err, m.store.Close())
	}
	return err
}

// use runs f with the instance, or with a new one if the last has trapped. That
// makes no difference to a scoring policy, or to a driver, whose records are in
// its store. A stateful policy has lost its state: from then on every call
// fails.
func (m *Module) use(ctx context.Context, f func(*guest) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lostWhat != nil {
		return fmt.Errorf("%w: the policy has lost its state: %w", sdk.ErrUnavailable, m.lostWhat)
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%w: %w", sdk.ErrUnavailable, err)
	}
	if m.guest == nil {
		if err := m.renew(ctx); err != nil {
			return err
		}
	}
	err := f(m.guest)
	if errors.As(err, new(*trap)) {
		m.drop(ctx, err)
	}
	return err
}

// renew makes an instance and configures it as the one before.
func (m *Module) renew(ctx context.Context) error {
	g, err := m.instantiate(ctx)
	if err != nil {
		return err
	}
	if m.options != nil {
		if err := g.configure(ctx, m.options); err != nil {
			g.close(ctx)
			return err
		}
	}
	m.guest = g
	return nil
}

// drop discards the instance: after a trap its memory may be in any state.
func (m *Module) drop(ctx context.Context, why error) {
	m.guest.close(ctx)
	m.guest = nil
	if !m.manifest.Has(sdk.CapStateful) {
		return
	}
	m.lostWhat = why
	if m.opts.OnLostState != nil {
		m.opts.OnLostState()
	}
}
