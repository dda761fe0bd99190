// Package plugin runs plugins as child processes and keeps them running: it
// starts them, calls them with deadlines, kills those that hang, restarts
// those that end, and answers at once while one is away. A WebAssembly module
// is a plugin like any other, run by the host's own binary. Each runs within
// walls: see package confine.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Config says where things are. All paths are absolute.
type Config struct {
	Dirs       []string // searched for plugins, in this order
	RunDir     string   // below it the sockets of plugins; at most 61 bytes long
	CacheDir   string   // of compiled modules; created, for the owner only
	Executable string   // imgcache-host itself, which runs modules and confines plugins; empty: neither
	// Confinement says what becomes of a plugin around which a wall cannot be
	// built; empty: BestEffort.
	Confinement Confinement
	Log         *slog.Logger

	// Admit, unless it is nil, says why bytes may not run, or what is known of
	// their signature.
	Admit func(Candidate) (signature string, err error)
}

// Supervisor runs plugins.
type Supervisor struct {
	cfg     Config
	sockets string

	mu      sync.Mutex
	plugins []*Plugin
}

// maxRunDir keeps the path of a socket, which the kernel limits to 107 bytes,
// short enough: /plugins, a directory of up to 21 bytes for each process, and
// a name of up to 17 are added.
const maxRunDir = 107 - 8 - 21 - 17

// New prepares the directories of the plugins. Sockets that an earlier
// process left are removed.
func New(cfg Config) (*Supervisor, error) {
	if len(cfg.RunDir) > maxRunDir {
		return nil, fmt.Errorf("the path run_dir = %s has %d bytes; expected at most %d, because of the sockets in it", cfg.RunDir, len(cfg.RunDir), maxRunDir)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Supervisor{cfg: cfg, sockets: filepath.Join(cfg.RunDir, "plugins")}
	if err := os.MkdirAll(cfg.RunDir, 0o755); err != nil { // others may reach the sockets of listeners in it
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	if err := makePrivate(s.sockets); err != nil {
		return nil, err
	}
	if cfg.CacheDir != "" {
		if err := makePrivate(cfg.CacheDir); err != nil {
			cfg.Log.Warn("compiled modules cannot be kept; they are compiled at each start", "error", err)
			s.cfg.CacheDir = ""
		}
	}
	left, err := filepath.Glob(filepath.Join(s.sockets, "plugin*"))
	if err != nil {
		return nil, err
	}
	for _, name := range left {
		if err := os.RemoveAll(name); err != nil {
			return nil, fmt.Errorf("remove the socket of an earlier run: %w", err)
		}
	}
	return s, nil
}

// makePrivate makes a directory for the owner alone.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory for plugins: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("protect directory for plugins: %w", err)
	}
	return nil
}

// Status is what `plugin list` shows of a plugin.
type Status struct {
	Name       string    `json:"name"`
	Kind       sdk.Kind  `json:"kind"`
	Shadow     bool      `json:"shadow,omitempty"` // it is tried, and advises nobody
	Runtime    string    `json:"runtime"`          // "process" or "wasm"
	Path       string    `json:"path"`
	Reattached bool      `json:"reattached,omitempty"` // somebody else has started it, to debug it
	SHA256     string    `json:"sha256"`               // of the bytes that run
	Signature  string    `json:"signature,omitempty"`  // of these; what Config.Admit says
	Version    string    `json:"version"`
	State      string    `json:"state"` // "starting", "running", "restarting", "reloading", "broken" or "stopped"
	PID        int       `json:"pid"`
	Restarts   uint64    `json:"restarts"`   // without reloads
	Breaker    string    `json:"breaker"`    // "closed", "open": tried now and then only, or "half-open": it proves itself again
	Walls      []Wall    `json:"walls"`      // around the process; none: it is not confined
	StandIn    string    `json:"stand_in"`   // what does the plugin's work while it is away
	LastError  string    `json:"last_error"` // since the last reload
	LastPanic  *Panic    `json:"last_panic,omitempty"`
	Notes      []string  `json:"notes,omitempty"` // what the plugin says of how it works as it is configured
	Started    time.Time `json:"started"`
	Calls      uint64    `json:"calls"`
	Errors     uint64    `json:"errors"`
	P99        float64   `json:"p99_seconds"`       // within which 99 of 100 calls ended, as exactly as the classes of latency are
	Memory     uint64    `json:"memory_bytes"`      // resident, of the process
	CPU        float64   `json:"cpu_seconds"`       // of the process
	Methods    []Method  `json:"methods,omitempty"` // by name
}

// Panic is what a process said last.
type Panic struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"` // with the first lines of the stack
}

// List returns the state of all plugins, by kind and name.
func (s *Supervisor) List() []Status {
	s.mu.Lock()
	plugins := slices.Clone(s.plugins)
	s.mu.Unlock()
	list := []Status{}
	for _, p := range plugins {
		list = append(list, p.Status())
	}
	slices.SortFunc(list, func(a, b Status) int {
		return strings.Compare(string(a.Kind)+" "+a.Name, string(b.Kind)+" "+b.Name)
	})
	return list
}

// Start runs a plugin and keeps it running, also when the context has ended
// after it returned. The error says why the first start failed; the plugin is
// then not kept.
func (s *Supervisor) Start(ctx context.Context, spec Spec) (*Plugin, error) {
	p := s.Plugin(spec, nil)
	live, stop := context.WithCancel(context.WithoutCancel(ctx))
	started := context.AfterFunc(ctx, stop)
	p.stop = stop
	go p.supervise(live, false)
	err := <-p.first
	if !started() { // the caller gave up meanwhile
		err = context.Cause(ctx)
	}
	if err != nil {
		stop()
		<-p.ended
		return nil, fmt.Errorf("%s: %w", spec, err)
	}
	s.add(p)
	return p, nil
}

// Setup gives a plugin its settings by calling configure with them, at each
// start. What it returns keeps the plugin from running until the next attempt.
type Setup func(m sdk.Manifest, configure func(sdk.Settings) error) error

// Plugin returns a plugin that does not run yet: until [Plugin.Run] has brought
// it up, calls fail with sdk.ErrUnavailable. A nil setup gives it no settings.
func (s *Supervisor) Plugin(spec Spec, setup Setup) *Plugin {
	return &Plugin{
		spec: spec, sup: s, log: s.cfg.Log.With("plugin", spec.label()), setup: setup,
		first: make(chan error, 1), ended: make(chan struct{}), reloads: make(chan reload), state: stateStarting, meter: newMeter(),
	}
}

// Run runs the plugin and keeps it running, however its starts go, and does
// not wait for the first. After each start that went well, from when on calls
// reach the plugin, up is called; it must not wait. Run is called once.
func (p *Plugin) Run(up func()) {
	ctx, stop := context.WithCancel(context.Background())
	p.stop, p.up = stop, up
	p.sup.add(p)
	go p.supervise(ctx, true)
}

func (s *Supervisor) add(p *Plugin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plugins = append(s.plugins, p)
}

// Stop stops one plugin and forgets it.
func (s *Supervisor) Stop(p *Plugin) error {
	s.mu.Lock()
	s.plugins = slices.DeleteFunc(s.plugins, func(other *Plugin) bool { return other == p })
	s.mu.Unlock()
	return p.Close()
}

// Close stops all plugins.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	plugins := s.plugins
	s.plugins = nil
	s.mu.Unlock()
	var errs []error
	for _, p := range plugins {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
