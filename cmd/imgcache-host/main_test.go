package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/client"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	launcher(os.Args)
	testscript.Main(tidy{m}, map[string]func(){"imgcache-host": main, mortalCommand: mortalMain})
}

// TestScripts runs the command as users do. What starts plugins is run
// from BIN; MODULES are small ones.
func TestScripts(t *testing.T) {
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Setup: func(e *testscript.Env) error {
			e.Setenv("BIN", bin)
			modules, err := filepath.Abs(filepath.Join("..", "..", "testdata", "wasm"))
			e.Setenv("MODULES", modules)
			return err
		},
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exitcode": execCode},
	})
}

func TestExitCodes(t *testing.T) {
	for err, want := range map[error]int{
		errors.New("disk on fire"):    exitError,
		usageError{errNoCommand, "x"}: exitUsage,
		configError{os.ErrNotExist}:   exitUsage,
		&client.Error{Status: 404}:    exitNotFound,
		&client.Error{Status: 403}:    exitDenied,
		&client.Error{Status: 409}:    exitError,
		client.ErrUnreachable:         exitUnreachable,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}

func TestPrefetchShowsNewsOnly(t *testing.T) {
	var out bytes.Buffer
	m := prefetchMeter{to: &out, shown: map[string]string{}}
	for _, seen := range []struct {
		cache.ImageInfo
		last bool
	}{
		{cache.ImageInfo{ID: "a", State: cache.StateQueued, Error: "evicted"}, false},
		{cache.ImageInfo{ID: "a", State: cache.StateQueued, Error: "evicted"}, false},
		{cache.ImageInfo{ID: "a", State: cache.StateFilling, Size: 1000, Written: 10}, false},
		{cache.ImageInfo{ID: "a", State: cache.StateFilling, Size: 1000, Written: 20}, false},
		{cache.ImageInfo{ID: "a", State: cache.StateFilling, Size: 1000, Written: 550}, false},
		{cache.ImageInfo{ID: "a", State: cache.StateCached, Size: 1000}, true},
		{cache.ImageInfo{ID: "b", State: cache.StateQueued, Error: "gone"}, false},
		{cache.ImageInfo{ID: "b", State: cache.StateQueued, Error: "origin: image not found"}, true},
		{cache.ImageInfo{ID: "c", State: cache.StateAbsent}, true},
	} {
		m.show(seen.ImageInfo, seen.last)
	}
	want := `a  queued
a  filling 0% of 1000 B
a  filling 50% of 1000 B
a  cached
b  queued
b  failed: origin: image not found
c  failed
`
	if out.String() != want {
		t.Errorf("got:\n%swant:\n%s", &out, want)
	}
}
