package conformance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// workshop makes instances of a plugin, each over a store of its own.
type workshop struct {
	check Check
	kind  sdk.Kind // of the plugin; empty: not known yet
	run   string   // directory for sockets, which have short paths
	dir   string   // for all else
	made  int
}

func (c Check) workshop() (*workshop, error) {
	if _, err := os.Stat(c.Path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the file does not exist", sdk.ErrNotFound)
	}
	run, err := os.MkdirTemp("/tmp", "imgcache-check")
	if err != nil {
		return nil, fmt.Errorf("make a directory for sockets: %w", err)
	}
	dir, err := os.MkdirTemp(c.Dir, "imgcache-check")
	if err == nil {
		dir, err = filepath.Abs(dir) // plugins work elsewhere
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a directory: %w", err), os.Remove(run))
	}
	return &workshop{check: c, run: run, dir: dir}, nil
}

func (w *workshop) clear() {
	_ = os.RemoveAll(w.run)
	_ = os.RemoveAll(w.dir)
}

// instance is the plugin over one store.
type instance struct {
	check    Check
	kind     sdk.Kind
	compiled string // directory of compiled modules
	dir      string // of everything it has but sockets
	run      string
	node     string
	sup      *plugin.Supervisor
	p        *plugin.Plugin
	instance string
}

// mustOpen opens an instance for a case.
func (w *workshop) mustOpen(r *sdktest.Report) *instance {
	i, err := w.open(r.Context())
	if err != nil {
		r.Fatalf("it does not start: %v", err)
	}
	r.Cleanup(func() { _ = i.close() }) // a case has ended by then
	return i
}

func (w *workshop) open(ctx context.Context) (*instance, error) {
	w.made++
	i := &instance{
		check: w.check, kind: w.kind, compiled: filepath.Join(w.dir, "compiled"),
		dir: filepath.Join(w.dir, fmt.Sprint(w.made)), run: filepath.Join(w.run, fmt.Sprint(w.made)),
		node: fmt.Sprintf("check-%d-%d", os.Getpid(), w.made), instance: fmt.Sprintf("%016x", time.Now().UnixNano()),
	}
	if err := os.MkdirAll(filepath.Join(i.cache(), ".imgcache"), 0o750); err != nil {
		return nil, err
	}
	if err := i.start(ctx); err != nil {
		return nil, err
	}
	return i, nil
}

func (i *instance) cache() string { return filepath.Join(i.dir, "images") }

func (i *instance) start(ctx context.Context) (err error) {
	c := plugin.Config{RunDir: i.run, CacheDir: i.compiled, Executable: i.check.Executable, Confinement: plugin.None, Log: i.check.Log}
	if i.sup, err = plugin.New(c); err != nil {
		return err
	}
	spec := plugin.Spec{Name: plugin.NameOf(i.check.Path), Kind: i.kind, Path: i.check.Path}
	i.p, err = i.sup.Start(ctx, spec)
	if err == nil {
		err = i.configure(ctx)
	}
	if err != nil {
		return errors.Join(err, i.sup.Close())
	}
	return nil
}

func (i *instance) configure(ctx context.Context) error {
	options, err := i.check.Options(i.p.Manifest().Options)
	if err != nil {
		return err
	}
	state := filepath.Join(i.dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	return i.p.Configure(ctx, sdk.Settings{
		Options: options, CacheDir: i.cache(), StateDir: state, Node: i.node, URL: "http://" + i.node + ".example", Instance: i.instance,
	})
}

// restart starts the process again on the same store. The supervisor does not
// ask the old one to end but kills it, as a crash would.
func (i *instance) restart(ctx context.Context) error {
	if err := i.sup.Close(); err != nil {
		return err
	}
	return i.start(ctx)
}

func (i *instance) close() error {
	return errors.Join(i.sup.Close(), os.RemoveAll(i.dir))
}
