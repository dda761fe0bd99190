// Package conformance holds the plugin in a file to the contract, as a process
// behind the supervisor: what an author wants to know before an operator does.
package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// Check says what to check.
type Check struct {
	Path string // of the plugin, an executable

	// Options returns the values of the options that the plugin declares.
	Options func([]sdk.Option) (sdk.Config, error)

	Only    string        // run the cases alone whose names contain it
	Dir     string        // where cache directories are made; empty: where temporary files are
	Timeout time.Duration // of a case; 0: [Timeout]
	Entries int           // records of the largest case; 0: see [sdktest.Subject]
	Log     *slog.Logger  // what the plugin writes; nil: nobody reads it
}

// Case is one thing that a driver has to do, and what came of it.
type Case struct {
	Name     string        `json:"name"`
	Sentence string        `json:"sentence"`           // of the contract, that asks for it
	Failures []string      `json:"failures,omitempty"` // what was seen instead; none: it holds
	Took     time.Duration `json:"took_ns"`
}

// Timeout bounds a case, so that a driver that hangs fails one and the check
// goes on. The longest takes seconds, and a minute over a slow network.
const Timeout = 2 * time.Minute

// Driver holds a driver to every sentence of its contract, and calls tell after
// each. A driver gets a cache directory, a name of its node and an instance of
// its own for each case, so its store must be told apart by one of these. The
// error says why it could not be checked: it does not start, or is no driver.
func (c Check) Driver(ctx context.Context, tell func(Case)) error {
	if _, err := os.Stat(c.Path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no such file", sdk.ErrNotFound)
	}
	if strings.HasSuffix(c.Path, ".wasm") {
		return fmt.Errorf("%w: modules are policies, and only drivers can be checked", sdk.ErrUnsupported)
	}
	w, err := newWorkshop(c)
	if err != nil {
		return fmt.Errorf("make a directory for the check: %w", err)
	}
	defer w.clear()
	first, err := w.open(ctx) // whatever is wrong with all cases is told once
	if err != nil {
		return err
	}
	if err := first.close(); err != nil {
		return err
	}
	begun := time.Now()
	report := &sdktest.Report{
		Observe: func(name string, failures []string) {
			tell(Case{Name: name, Sentence: sdktest.Sentence(name), Failures: withoutName(name, failures), Took: time.Since(begun)})
			begun = time.Now()
		},
		Only:   func(name string) bool { return strings.Contains(name, c.Only) },
		Parent: ctx, Timeout: cmp.Or(c.Timeout, Timeout),
	}
	sdktest.Driver(report, func(r *sdktest.Report) sdktest.Subject {
		d := w.mustOpen(r)
		r.Cleanup(func() { _ = d.close() }) // a case has ended by then
		return d.subject()
	})
	sdktest.Durable(report, func(r *sdktest.Report) func() sdktest.Subject {
		var d *driver
		r.Cleanup(func() {
			if d != nil {
				_ = d.close()
			}
		})
		return func() sdktest.Subject {
			if d == nil {
				d = w.mustOpen(r)
			} else if err := d.restart(r.Context()); err != nil {
				r.Fatalf("it does not start again after it was killed: %v", err)
			}
			return d.subject()
		}
	})
	return context.Cause(ctx)
}

// withoutName takes the name of its case from each failure.
func withoutName(name string, failures []string) []string {
	for i, f := range failures {
		failures[i] = strings.TrimPrefix(f, name+": ")
	}
	return failures
}

// workshop makes drivers, each over a store of its own.
type workshop struct {
	check Check
	run   string // directory for sockets, which have short paths
	dir   string // for all else
	made  int
}

func newWorkshop(c Check) (*workshop, error) {
	run, err := os.MkdirTemp("/tmp", "imgcache-check")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(c.Dir, "imgcache-check")
	if err != nil {
		return nil, errors.Join(err, os.Remove(run))
	}
	return &workshop{check: c, run: run, dir: dir}, nil
}

func (w *workshop) clear() {
	_ = os.RemoveAll(w.run)
	_ = os.RemoveAll(w.dir)
}

// driver is the plugin over one store.
type driver struct {
	check    Check
	dir      string // of everything it has but sockets
	run      string
	node     string
	sup      *plugin.Supervisor
	p        *plugin.Plugin
	instance string
}

func (w *workshop) mustOpen(r *sdktest.Report) *driver {
	d, err := w.open(r.Context())
	if err != nil {
		r.Fatalf("it does not start: %v", err)
	}
	empty := true
	err = d.p.Driver().List(r.Context(), func(entries []sdk.Entry) error {
		empty = empty && len(entries) == 0
		return nil
	})
	if err == nil && !empty {
		_ = d.close()
		r.Fatalf("its store is not empty: it must be told apart by the cache directory, the node or the instance")
	}
	return d
}

func (w *workshop) open(ctx context.Context) (*driver, error) {
	w.made++
	d := &driver{
		check: w.check, dir: filepath.Join(w.dir, fmt.Sprint(w.made)), run: filepath.Join(w.run, fmt.Sprint(w.made)),
		node: fmt.Sprintf("check-%d-%d", os.Getpid(), w.made), instance: fmt.Sprintf("%016x", time.Now().UnixNano()),
	}
	if err := os.MkdirAll(filepath.Join(d.cache(), ".imgcache"), 0o750); err != nil {
		return nil, err
	}
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *driver) cache() string { return filepath.Join(d.dir, "images") }

func (d *driver) start(ctx context.Context) (err error) {
	if d.sup, err = plugin.New(plugin.Config{RunDir: d.run, Log: d.check.Log}); err != nil {
		return err
	}
	spec := plugin.Spec{Name: pluginName(d.check.Path), Kind: sdk.KindDriver, Path: d.check.Path}
	d.p, err = d.sup.Start(ctx, spec)
	if err == nil {
		err = d.configure(ctx)
	}
	if err != nil {
		return errors.Join(err, d.sup.Close())
	}
	return nil
}

func (d *driver) configure(ctx context.Context) error {
	options, err := d.check.Options(d.p.Manifest().Options)
	if err != nil {
		return err
	}
	state := filepath.Join(d.dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	return d.p.Configure(ctx, sdk.Settings{
		Options: options, CacheDir: d.cache(), StateDir: state, Node: d.node, URL: "http://" + d.node + ".example", Instance: d.instance,
	})
}

// restart starts the process again on the same store. The supervisor does not
// ask it to end: it kills it, as a crash would.
func (d *driver) restart(ctx context.Context) error {
	if err := d.sup.Close(); err != nil {
		return err
	}
	return d.start(ctx)
}

func (d *driver) close() error {
	return errors.Join(d.sup.Close(), os.RemoveAll(d.dir))
}

func (d *driver) subject() sdktest.Subject {
	return sdktest.Subject{
		Driver: d.p.Driver(), Entries: d.check.Entries,
		Create: func(id string) {
			if f, err := os.OpenFile(filepath.Join(d.cache(), id), os.O_CREATE, 0o640); err == nil {
				_ = f.Close() // an id that names no file has no record either
			}
		},
		Remove: func(id string) { _ = os.Remove(filepath.Join(d.cache(), id)) },
	}
}

// pluginName is what the plugin in a file is called in messages.
func pluginName(path string) string {
	name := strings.TrimPrefix(filepath.Base(path), "imgcache-driver-")
	if sdk.ValidName(name) {
		return name
	}
	return "plugin"
}
