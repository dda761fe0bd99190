package xattr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// dying are attributes of a process that dies at its nth change of one: that
// change is made or not, and nothing works afterwards.
type dying struct {
	attributes
	left int
	made bool
}

var errDead = errors.New("the process is dead")

func (d *dying) change(do func() error) error {
	d.left--
	if d.left > 0 || d.left == 0 && d.made {
		if err := do(); err != nil || d.left > 0 {
			return err
		}
	}
	return errDead
}

func (d *dying) get(f *os.File, name string) ([]byte, error) {
	if d.left <= 0 {
		return nil, errDead
	}
	return d.attributes.get(f, name)
}

func (d *dying) set(f *os.File, name string, value []byte) error {
	return d.change(func() error { return d.attributes.set(f, name, value) })
}

func (d *dying) remove(f *os.File, name string) error {
	return d.change(func() error { return d.attributes.remove(f, name) })
}

// unharmed is more changes than a test makes.
const unharmed = 1 << 30

// dieAtEach runs a test with a driver that dies at each of its changes in turn,
// until it gets through. apply carries out a batch as long as the driver
// lives, and revive returns one that is in order.
func dieAtEach(t *testing.T, test func(t *testing.T, dir string, apply func(sdk.Batch), revive func() *Driver)) {
	for _, made := range []bool{false, true} {
		for n, died := 1, true; died; n++ {
			t.Run(fmt.Sprintf("change %d, made %v", n, made), func(t *testing.T) {
				dir := cacheDir(t)
				attrs := &dying{fileAttributes{}, unharmed, made}
				d, _ := openWith(t, dir, nil, attrs)
				attrs.left, died = n, false
				test(t, dir, func(b sdk.Batch) {
					err := d.Apply(t.Context(), b)
					if err != nil && !errors.Is(err, errDead) {
						t.Fatal(err)
					}
					died = died || err != nil
				}, func() *Driver {
					d, _ := open(t, dir, nil)
					return d
				})
			})
			if n > 1000 {
				t.Fatal("the batches have no end")
			}
		}
	}
}

// model returns what batches leave when each is applied once.
func model(t *testing.T, batches ...sdk.Batch) []sdk.Entry {
	t.Helper()
	var m sdktest.Memory
	for _, b := range batches {
		if err := m.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	return m.Entries()
}

// TestDeathInBatch kills the plugin at each change of an attribute. The batch
// is sent again, as the host does, and has its effect once.
func TestDeathInBatch(t *testing.T) {
	batch := next(logA)
	long := entry("longer", 5)
	long.Version = strings.Repeat("long", 1000)
	longer := long
	longer.Version, longer.Hits = strings.Repeat("longer", 600), 0
	replaced, gone := entry("replaced", 1), entry("gone", 9)
	replaced.Version = `"v2"`
	first := batch(sdk.Put(entry("touched", 7)), sdk.Put(entry("same", 3)), sdk.Put(entry("replaced", 8)),
		sdk.Put(gone), sdk.Put(entry("removed", 2)), sdk.Put(entry("anew", 6)), sdk.Put(long), sdk.Put(entry("shorter", 1)))
	second := batch(
		sdk.Touch("touched", 2, moment.Add(time.Second)), sdk.Touch("touched", 1, moment),
		sdk.Put(entry("same", 0)), sdk.Touch("same", 1, moment),
		sdk.Put(replaced), sdk.Touch("replaced", 1, moment),
		sdk.Delete("gone"), sdk.Delete("removed"),
		sdk.Delete("anew"), sdk.Put(entry("anew", 0)), sdk.Touch("anew", 1, moment),
		sdk.Put(longer), sdk.Touch("longer", 4, moment),
		sdk.Put(long), sdk.Delete(long.ID), sdk.Put(longer), sdk.Touch("longer", 2, moment),
		sdk.Put(entry("new", 1)), sdk.Touch("new", 1, moment),
		sdk.Touch("absent", 1, moment), sdk.Put(entry("passing", 1)), sdk.Delete("passing"),
	)
	third := batch(sdk.Touch("touched", 10, moment), sdk.Touch("new", 10, moment), sdk.Touch("longer", 10, moment))
	dieAtEach(t, func(t *testing.T, dir string, do func(sdk.Batch), revive func() *Driver) {
		writeFile(t, dir, "touched", "same", "replaced", "gone", "removed", "anew", "longer", "shorter")
		apply(t, revive(), first)
		if err := os.Remove(filepath.Join(dir, "gone")); err != nil { // the file of the other is still there
			t.Fatal(err)
		}
		writeFile(t, dir, "new")
		do(second)

		d := revive()
		if err := d.Apply(t.Context(), third); err != nil && !errors.Is(err, sdk.ErrInvalid) {
			t.Fatal(err)
		} else if err != nil { // the second was cut short, and must come first
			apply(t, d, second)
			apply(t, d, third)
		}
		apply(t, d, third)
		want(t, d, model(t, first, second, third)...)
		for id, e := range list(t, d) {
			if hits := attribute(t, filepath.Join(dir, id), hitsName); hits != fmt.Sprint(e.Hits) {
				t.Errorf("Glance sees %s hits of %s, want %d", hits, id, e.Hits)
			}
		}
		for _, name := range []string{recordName, hitsName} {
			if got := attribute(t, filepath.Join(dir, "removed"), name); got != "-" {
				t.Errorf("the record that was deleted has left %s", got)
			}
		}
		if left := versions(t, dir); len(left) != 1 {
			t.Errorf("versions in files of their own: %v, want that of one image", left)
		}
	})
}

// versions returns the names of the files that hold long versions.
func versions(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(dir, ".imgcache", "xattr", versionsDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// TestDeathBetweenSources cuts a batch short, lets other sources write to the
// same files, and sends the first one again.
func TestDeathBetweenSources(t *testing.T) {
	a, b, c := next(logA), next(logB), next("another")
	start := a(sdk.Put(entry("x", 0)), sdk.Put(entry("y", 0)), sdk.Put(entry("z", 0)))
	cut := a(sdk.Touch("x", 1, moment), sdk.Touch("y", 1, moment), sdk.Touch("z", 1, moment))
	others := []sdk.Batch{
		b(sdk.Touch("x", 10, moment), sdk.Touch("z", 10, moment)),
		c(sdk.Touch("y", 100, moment), sdk.Touch("x", 100, moment)),
		b(sdk.Touch("y", 10, moment), sdk.Touch("x", 10, moment)),
	}
	dieAtEach(t, func(t *testing.T, dir string, do func(sdk.Batch), revive func() *Driver) {
		writeFile(t, dir, "x", "y", "z")
		apply(t, revive(), start)
		do(cut)
		d := revive()
		for _, o := range others {
			apply(t, d, o)
		}
		list(t, d) // changes nothing
		apply(t, d, cut)
		apply(t, d, cut)
		want(t, d, model(t, append([]sdk.Batch{start, cut}, others...)...)...)
	})
}

// TestDeathInAdoption kills the plugin while it takes over what Glance counted.
func TestDeathInAdoption(t *testing.T) {
	dieAtEach(t, func(t *testing.T, dir string, do func(sdk.Batch), revive func() *Driver) {
		writeFile(t, dir, "listed", "touched", "put")
		for _, id := range []string{"listed", "touched", "put"} {
			setAttribute(t, filepath.Join(dir, id), hitsName, "7")
		}
		batch := next(logA)(sdk.Touch("touched", 1, moment), sdk.Put(entry("put", 2)), sdk.Touch("put", 2, moment))
		do(batch)
		d := revive()
		list(t, d)
		apply(t, d, batch)
		all := list(t, d)
		if got := fmt.Sprint(all["listed"].Hits, all["touched"].Hits, all["put"].Hits); got != "7 8 4" {
			t.Errorf("hits %s, want 7 8 4", got)
		}
	})
}

// failing are attributes of which some cannot be set.
type failing struct {
	attributes
	err func(f *os.File, name string) error
}

func (a failing) set(f *os.File, name string, value []byte) error {
	if err := a.err(f, name); err != nil {
		return err
	}
	return a.attributes.set(f, name, value)
}

// TestFailureKeepsTheBatch: what the disk refuses is sent again, and nothing
// counts twice.
func TestFailureKeepsTheBatch(t *testing.T) {
	dir, broken := cacheDir(t), true
	attrs := failing{fileAttributes{}, func(f *os.File, _ string) error {
		if broken && filepath.Base(f.Name()) == "b" {
			return syscall.EIO
		}
		return nil
	}}
	d, _ := openWith(t, dir, nil, attrs)
	writeFile(t, dir, "a", "b", "c")
	batch := next(logA)(sdk.Put(entry("a", 0)), sdk.Touch("a", 1, moment), sdk.Put(entry("b", 1)), sdk.Put(entry("c", 1)))
	for range 3 {
		if err := d.Apply(t.Context(), batch); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "record of b") {
			t.Fatalf("Apply() = %v, want %v of b", err, syscall.EIO)
		}
	}
	broken = false
	apply(t, d, batch)
	want(t, d, entry("a", 1), entry("b", 1), entry("c", 1))
}

// TestNoLostUpdate has several processes and goroutines count hits of one image
// at once. Glance's driver reads, adds and writes, and loses some.
func TestNoLostUpdate(t *testing.T) {
	const writers, batches = 6, 40
	dir := cacheDir(t)
	writeFile(t, dir, "a")
	var drivers []*Driver
	for range 3 { // each as another process: their locks are their own
		d, _ := open(t, dir, nil)
		drivers = append(drivers, d)
	}
	apply(t, drivers[0], next(logA)(sdk.Put(entry("a", 0))))
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			batch := next(fmt.Sprint("writer ", w))
			for range batches {
				if err := drivers[w%len(drivers)].Apply(t.Context(), batch(sdk.Touch("a", 1, moment))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want(t, drivers[0], entry("a", writers*batches))
}

// TestLockedByAnotherProcess: a batch waits for the process that writes, as long
// as its context allows.
func TestLockedByAnotherProcess(t *testing.T) {
	dir := cacheDir(t)
	writeFile(t, dir, "a")
	d, _ := open(t, dir, nil)
	other, _ := open(t, dir, nil)
	release, err := other.dir.exclude(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	batch := next(logA)(sdk.Put(entry("a", 1)))
	if err := d.Apply(ctx, batch); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply() = %v, want %v", err, context.Canceled)
	}
	done := make(chan error)
	go func() { done <- d.Apply(t.Context(), batch) }()
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want(t, d, entry("a", 1))
}

// TestCancelled: a batch that has begun is carried through, one that has not
// leaves no trace.
func TestCancelled(t *testing.T) {
	dir := cacheDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	attrs := failing{fileAttributes{}, func(*os.File, string) error { cancel(); return nil }}
	d, _ := open(t, dir, nil)
	d.dir.attrs = attrs
	writeFile(t, dir, "a", "b")
	batch := next(logA)
	if err := d.Apply(ctx, batch(sdk.Put(entry("a", 1)), sdk.Put(entry("b", 1)))); err != nil || ctx.Err() == nil {
		t.Fatalf("Apply() = %v, context %v", err, ctx.Err())
	}
	want(t, d, entry("a", 1), entry("b", 1))
	before := attribute(t, filepath.Join(dir, "a"), recordName)
	if err := d.Apply(ctx, batch(sdk.Touch("a", 1, moment))); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply() = %v, want %v", err, context.Canceled)
	}
	if diff := cmp.Diff(before, attribute(t, filepath.Join(dir, "a"), recordName)); diff != "" {
		t.Errorf("the record has changed:\n%s", diff)
	}
}
