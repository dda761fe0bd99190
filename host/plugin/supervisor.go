// Package plugin runs plugins as child processes and keeps them running: it starts
// them, calls them with deadlines, kills those that hang, and restarts those that
// end. While a plugin is down, calls fail at once. A WebAssembly module is a plugin
// like any other, and the host's own binary runs it. Plugins are confined: see package
// confine.
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
	Executable string   // imgcache-host itself, which runs modules and confines plugins; empty: neither is possible
	// Confinement says what to do with a plugin that cannot be confined
	// completely; empty: BestEffort.
	Confinement Confinement
	Log         *slog.Logger

	// Admit, unless it is nil, is called before bytes are run. It returns what is
	// known about their signature, or an error if they may not run.
	Admit func(Candidate) (signature string, err error)
}

// Supervisor runs plugins.
type Supervisor struct {
	cfg     Config
	sockets string

	mu      sync.Mutex
	plugins []*Plugin
}

// maxRunDir bounds the path of the run directory, because the kernel limits the path
// of a socket to 107 bytes. "/plugins", a directory of up to 21 bytes for each
// process, and a name of up to 17 bytes are added to it.
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
	if err := os.MkdirAll(cfg.RunDir, 0o755); err != nil { // other users may connect to listeners whose sockets are in it
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	if err := makePrivate(s.sockets); err != nil {
		return nil, err
	}
	if cfg.CacheDir != "" {
		if err := makePrivate(cfg.CacheDir); err != nil {
			cfg.Log.Warn("compiled modules cannot be kept; modules are compiled at each start", "error", err)
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

// makePrivate makes a directory that only its owner can use.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory for plugins: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("protect directory for plugins: %w", err)
	}
	return nil
}

// Status is what `plugin list` shows about a plugin.
type Status struct {
	Name       string    `json:"name"`
	Kind       sdk.Kind  `json:"kind"`
	Shadow     bool      `json:"shadow,omitempty"` // the policy is tried, and its advice is not followed
	Runtime    string    `json:"runtime"`          // "process" or "wasm"
	Path       string    `json:"path"`
	Reattached bool      `json:"reattached,omitempty"` // somebody else has started it, to debug it
	SHA256     string    `json:"sha256"`               // of the running binary
	Signature  string    `json:"signature,omitempty"`  // what Config.Admit says about that
	Version    string    `json:"version"`
	State      string    `json:"state"` // "starting", "running", "restarting", "reloading", "broken" or "stopped"
	PID        int       `json:"pid"`
	Restarts   uint64    `json:"restarts"`   // without reloads
	Breaker    string    `json:"breaker"`    // "closed"; "open": it is only tried from time to time; or "half-open": it runs again, but may still fail
	Walls      []Wall    `json:"walls"`      // around the process; none: it is not confined
	StandIn    string    `json:"stand_in"`   // what does the plugin's work while it is away
	LastError  string    `json:"last_error"` // since the last reload
	LastPanic  *Panic    `json:"last_panic,omitempty"`
	Notes      []string  `json:"notes,omitempty"` // what the plugin says about its configuration
	Started    time.Time `json:"started"`
	Calls      uint64    `json:"calls"`
	Errors     uint64    `json:"errors"`
	P99        float64   `json:"p99_seconds"`       // 99 of 100 calls ended within this time, as exactly as the classes of latency allow
	Memory     uint64    `json:"memory_bytes"`      // resident, of the process
	CPU        float64   `json:"cpu_seconds"`       // of the process
	Methods    []Method  `json:"methods,omitempty"` // by name
}

// Panic is what a process said when it panicked.
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

// Start runs a plugin and keeps it running, even if the context ends after Start has
// returned. The error says why the first start failed; then the plugin is not kept
// running.
func (s *Supervisor) Start(ctx context.Context, spec Spec) (*Plugin, error) {
	p := s.Plugin(spec, nil)
	live, stop := context.WithCancel(context.WithoutCancel(ctx))
	started := context.AfterFunc(ctx, stop)
	p.stop = stop
	go p.supervise(live, false)
	err := <-p.first
	if !started() { // the context has ended meanwhile
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

// Setup is called at each start of a plugin, and calls configure with its settings. If
// it returns an error the plugin does not run until the next attempt.
type Setup func(m sdk.Manifest, configure func(sdk.Settings) error) error

// Plugin returns a plugin that is not running yet. Calls fail with sdk.ErrUnavailable
// until [Plugin.Run] has started it. If setup is nil, it gets no settings.
func (s *Supervisor) Plugin(spec Spec, setup Setup) *Plugin {
	return &Plugin{
		spec: spec, sup: s, log: s.cfg.Log.With("plugin", spec.label()), setup: setup,
		first: make(chan error, 1), ended: make(chan struct{}), reloads: make(chan reload), state: stateStarting, meter: newMeter(),
	}
}

// Run runs the plugin and keeps it running, even if starts fail. It does not wait for
// the first start. After each start that succeeded, up is called, and calls reach the
// plugin; up must not wait. Run must be called only once.
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
