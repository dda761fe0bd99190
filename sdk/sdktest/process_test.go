package sdktest_test

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// sqliteBinary returns the executable of the driver sqlite: that below
// IMGCACHE_BIN, or one that is built now.
func sqliteBinary(t *testing.T) string {
	t.Helper()
	const name = "imgcache-driver-sqlite"
	if dir := os.Getenv("IMGCACHE_BIN"); dir != "" {
		return filepath.Join(dir, "plugins", name)
	}
	path := filepath.Join(t.TempDir(), name)
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path,
		"github.com/imgcache/imgcache-host/plugins/builtin/sqlite/"+name).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// startDriver runs the driver as a process over the records in dir, until
// stop.
func startDriver(t *testing.T, path, dir string) (_ sdk.Driver, pid int, stop func()) {
	t.Helper()
	run, err := os.MkdirTemp("/tmp", "ic") // t.TempDir() may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	sup, err := plugin.New(plugin.Config{RunDir: run, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	stop = func() {
		if err := errors.Join(sup.Close(), os.RemoveAll(run)); err != nil {
			t.Error(err)
		}
	}
	p, err := sup.Start(t.Context(), plugin.Spec{Name: "sqlite", Kind: sdk.KindDriver, Path: path})
	if err == nil {
		err = p.Configure(t.Context(), sdk.Settings{CacheDir: dir})
	}
	if err != nil {
		stop()
		t.Fatal(err)
	}
	return p.Driver(), p.Status().PID, stop
}

// TestDriverThroughProcess holds the driver sqlite to the contract as the
// host has it: a process behind gRPC, which is killed where the contract
// speaks of a restart.
func TestDriverThroughProcess(t *testing.T) {
	path := sqliteBinary(t)
	sdktest.Driver(t, func(t *testing.T) sdk.Driver {
		d, _, stop := startDriver(t, path, t.TempDir())
		t.Cleanup(stop)
		return d
	})
	sdktest.Durable(t, func(t *testing.T) func() sdk.Driver {
		dir := t.TempDir()
		end := func() {}
		t.Cleanup(func() { end() })
		return func() sdk.Driver {
			end()
			end = func() {}
			d, pid, stop := startDriver(t, path, dir)
			end = func() {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
				stop()
			}
			return d
		}
	})
}
