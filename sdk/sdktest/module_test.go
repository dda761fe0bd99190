package sdktest_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgcache/imgcache-host/host/wasm"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// TestDriverModule holds a driver that is a module to the contract in this
// process, as TestDriverThroughProcess does behind gRPC.
func TestDriverModule(t *testing.T) {
	t.Parallel()
	path := driverBinary(t, cabinet)
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	options := wasm.Options{CacheDir: filepath.Join(filepath.Dir(path), "compiled")}
	open := func(t *testing.T, state string) (sdktest.Subject, func()) {
		m, err := wasm.Load(t.Context(), code, options)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Configure(t.Context(), sdk.Settings{StateDir: state}); err != nil {
			t.Fatal(err)
		}
		return sdktest.Subject{Driver: m.Plugin().(sdk.Driver), Entries: entries()}, func() {
			if err := m.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		}
	}
	sdktest.Driver(t, func(t *testing.T) sdktest.Subject {
		s, end := open(t, cacheDir(t))
		t.Cleanup(end)
		return s
	})
	sdktest.Durable(t, func(t *testing.T) func() sdktest.Subject {
		dir, end := cacheDir(t), func() {}
		t.Cleanup(func() { end() })
		return func() (s sdktest.Subject) {
			end() // the file is locked by who has it open
			s, end = open(t, dir)
			return s
		}
	})
}
