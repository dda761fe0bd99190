package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

// mortalCommand is the name under which the test program is a driver that dies
// when it is told to.
const mortalCommand = "mortal-driver"

// The moments of a call at which a driver can die.
var moments = []string{
	"before", // it was asked
	"during", // it works
	"after",  // it has answered, and the answer is lost
}

// mortal runs a driver as a child and passes on what the service asks of it,
// until a file tells what becomes of a call: "Apply during" kills both while
// they work, "Apply away" refuses such calls as long as the file is there, and
// "Apply held" lets one wait for the end of another file.
type mortal struct {
	child *plugin.Plugin
	plan  string
	once  sync.Mutex // held while a call does what the plan says
}

// mortalMain is the program: its arguments are the real driver, the file and a
// directory for sockets.
func mortalMain() {
	program, plan, run := os.Args[1], os.Args[2], os.Args[3]
	run = filepath.Join(run, fmt.Sprint(os.Getpid()))
	sup, err := plugin.New(plugin.Config{RunDir: run, Executable: program, Confinement: plugin.None})
	if err == nil {
		var child *plugin.Plugin
		spec := plugin.Spec{Name: "mortal", Kind: sdk.KindDriver, Path: program, Env: map[string]string{"GORACE": quietRaceOptions}}
		if child, err = sup.Start(context.Background(), spec); err == nil {
			m := &mortal{child: child, plan: plan}
			serve.Main(child.Manifest(), m.driver())
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// driver has the abilities that the child declares.
func (m *mortal) driver() sdk.Driver {
	d := m.child.Driver()
	nodes, lists := d.(sdk.NodeLister)
	beats, beating := d.(sdk.Heartbeater)
	switch {
	case lists && beating:
		return struct {
			mortalDriver
			mortalNodes
			mortalHeart
		}{mortalDriver{m, d}, mortalNodes{m, nodes}, mortalHeart{m, beats}}
	case lists:
		return struct {
			mortalDriver
			mortalNodes
		}{mortalDriver{m, d}, mortalNodes{m, nodes}}
	case beating:
		return struct {
			mortalDriver
			mortalHeart
		}{mortalDriver{m, d}, mortalHeart{m, beats}}
	}
	return mortalDriver{m, d}
}

// call makes a call, or what the plan says.
func (m *mortal) call(name string, call func() error) error {
	switch m.fate(name) {
	case "":
		return call()
	case "away":
		m.once.Unlock()
		return fmt.Errorf("%w: the database is away", sdk.ErrUnavailable)
	case "held":
		_ = os.Rename(m.plan, m.plan+heldSuffix)
		m.once.Unlock()
		for exists(m.plan + heldSuffix) {
			time.Sleep(time.Millisecond)
		}
		return call()
	case "during":
		go func() { _ = call() }()
		time.Sleep(rand.N(3 * time.Millisecond)) // wherever the driver is by then
	case "after":
		_ = call()
	}
	_ = syscall.Kill(m.child.Status().PID, syscall.SIGKILL)
	_ = os.Remove(m.plan)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal is there
}

// heldSuffix is what the name of a plan gains while its call is held.
const heldSuffix = ".held"

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fate returns what is to become of this call, with the plan locked; "":
// nothing, and it is not.
func (m *mortal) fate(name string) string {
	m.once.Lock()
	plan, err := os.ReadFile(m.plan)
	moment, meant := strings.CutPrefix(string(plan), name+" ")
	if err == nil && meant {
		return moment
	}
	m.once.Unlock()
	return ""
}

type mortalDriver struct {
	m *mortal
	d sdk.Driver
}

// Configure implements [sdk.Configurer].
func (d mortalDriver) Configure(ctx context.Context, s sdk.Settings) error {
	err := d.m.child.Configure(ctx, s)
	if err == nil {
		go d.m.hurry()
	}
	return err
}

// hurry makes the calls for which the service takes its time, when they are
// planned.
func (m *mortal) hurry() {
	d := m.driver()
	for {
		plan, _ := os.ReadFile(m.plan)
		switch name, _, _ := strings.Cut(string(plan), " "); name {
		case "Heartbeat":
			_ = d.(sdk.Heartbeater).Heartbeat(context.Background())
		case "Nodes":
			_, _ = d.(sdk.NodeLister).Nodes(context.Background(), "steady")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// List implements [sdk.Driver].
func (d mortalDriver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	return d.m.call("List", func() error { return d.d.List(ctx, yield) })
}

// Apply implements [sdk.Driver].
func (d mortalDriver) Apply(ctx context.Context, b sdk.Batch) error {
	return d.m.call("Apply", func() error { return d.d.Apply(ctx, b) })
}

type mortalNodes struct {
	m *mortal
	d sdk.NodeLister
}

// Nodes implements [sdk.NodeLister].
func (d mortalNodes) Nodes(ctx context.Context, id string) (nodes []sdk.Node, err error) {
	err = d.m.call("Nodes", func() error {
		nodes, err = d.d.Nodes(ctx, id)
		return err
	})
	return nodes, err
}

type mortalHeart struct {
	m *mortal
	d sdk.Heartbeater
}

// Heartbeat implements [sdk.Heartbeater].
func (d mortalHeart) Heartbeat(ctx context.Context) error {
	return d.m.call("Heartbeat", func() error { return d.d.Heartbeat(ctx) })
}

// fate is a plan for the driver of a daemon.
type fate struct{ plan string }

// mortalBlock is the plugin block, with more lines in it, of a driver with which
// a test can do this.
func mortalBlock(t *testing.T, driver, more string) (block string, f fate) {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run, err := os.MkdirTemp("/tmp", "im") // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	command := filepath.Join(run, mortalCommand)
	if err := os.Symlink(self, command); err != nil {
		t.Fatal(err)
	}
	f = fate{filepath.Join(run, "plan")}
	return fmt.Sprintf(`
plugin %q {
  kind    = "driver"
  command = %q
  args    = [%q, %q, %q]
  env     = { GORACE = %q }
  read    = [%q, %q]
  write   = [%q]
  %s
}
`, driver, command, filepath.Join(bin, "plugins", "imgcache-driver-"+driver), f.plan, run, quietRaceOptions, bin, filepath.Dir(self), run, more), f
}

// at plans what becomes of the next call of a name.
func (f fate) at(t *testing.T, call, moment string) {
	t.Helper()
	next := f.plan + ".next"
	writeFile(t, next, call+" "+moment)
	if err := os.Rename(next, f.plan); err != nil {
		t.Fatal(err)
	}
}

// met reports whether that call was made.
func (f fate) met() bool { return !exists(f.plan) }

// end ends what is not at its end by itself.
func (f fate) end() {
	_ = os.Remove(f.plan)
	_ = os.Remove(f.plan + heldSuffix)
}
