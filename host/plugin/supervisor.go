// Package plugin runs plugins as child processes and keeps them running: it
// starts them, calls them with deadlines, kills those that hang, restarts
// those that end, and answers at once while one is away. A WebAssembly module
// is a plugin like any other, run by the host's own binary.
//
// It is no sandbox for process plugins, which have the rights of the host's
// user.
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
	Executable string   // imgcache-host itself, which runs modules
	Log        *slog.Logger
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
		return nil, fmt.Errorf("run_dir %s has %d bytes; sockets below it allow at most %d: choose a shorter one", cfg.RunDir, len(cfg.RunDir), maxRunDir)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Supervisor{cfg: cfg, sockets: filepath.Join(cfg.RunDir, "plugins")}
	if err := os.MkdirAll(cfg.RunDir, 0o755); err != nil { // others may reach the sockets of listeners in it
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	for _, dir := range []string{s.sockets, cfg.CacheDir} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make directory for plugins: %w", err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			return nil, fmt.Errorf("protect directory for plugins: %w", err)
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

// Status is what `plugin list` shows of a plugin.
type Status struct {
	Name      string    `json:"name"`
	Kind      sdk.Kind  `json:"kind"`
	Runtime   string    `json:"runtime"` // "process" or "wasm"
	Path      string    `json:"path"`
	Version   string    `json:"version"`
	State     string    `json:"state"` // "running", "restarting", "broken" or "stopped"
	PID       int       `json:"pid"`
	Restarts  uint64    `json:"restarts"`
	LastError string    `json:"last_error"`
	Started   time.Time `json:"started"`
	Calls     uint64    `json:"calls"`
	Errors    uint64    `json:"errors"`
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
	live, stop := context.WithCancel(context.WithoutCancel(ctx))
	started := context.AfterFunc(ctx, stop)
	p := &Plugin{
		spec: spec, sup: s, log: s.cfg.Log.With("plugin", spec.Name),
		stop: stop, ended: make(chan struct{}), state: stateRestarting,
	}
	first := make(chan error, 1)
	go p.supervise(live, first)
	err := <-first
	if !started() { // the caller gave up meanwhile
		err = context.Cause(ctx)
	}
	if err != nil {
		stop()
		<-p.ended
		return nil, fmt.Errorf("%s: %w", spec, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plugins = append(s.plugins, p)
	return p, nil
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
