package sdktest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := shared(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// shared is a directory for what tests build and compile, each once.
var shared = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "imgcache-sdktest") })

// shipped are the drivers that come with the service, each over every store
// that it knows, and the example of one that is a module.
var shipped = []struct {
	store  string
	driver string
	server func(testing.TB) *dbtest.Server // that each store is a database of; nil: it needs none
}{
	{store: "sqlite", driver: "sqlite"},
	{store: "xattr", driver: "xattr"},
	{store: "PostgreSQL", driver: "centraldb", server: dbtest.PostgreSQL},
	{store: "MariaDB", driver: "centraldb", server: dbtest.MariaDB},
	{store: "keys and values", driver: cabinet},
}

// cabinet is the driver that is a module.
const cabinet = "cabinet"

// buildCabinet returns the path of its module. What it is compiled to lies beside
// it, in the directory compiled, so that this too is done once.
var buildCabinet = sync.OnceValues(func() (string, error) {
	dir, err := shared()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "imgcache-driver-"+cabinet+".wasm")
	return path, goBuild(path, "examples/go-wasm-driver")
})

// runner returns the path of the service, which runs modules. It is built without
// the race detector, whose reports nobody would read in a process that is killed.
// TestDriverModule runs the same code under it.
var runner = sync.OnceValues(func() (string, error) {
	dir, err := shared()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "imgcache-host")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, "github.com/imgcache/imgcache-host/cmd/imgcache-host")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the service: %w\n%s", err, out)
	}
	return path, nil
})

// entries is how many records the largest case of the module has; 0: as many as
// with any driver.
func entries() int {
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		return 0
	}
	return 2000 // which a module lists as slowly as others 10000
}

// driverBinary returns the executable of a driver: that below IMGCACHE_BIN, or
// one that is built now.
func driverBinary(t *testing.T, driver string) string {
	t.Helper()
	if driver == cabinet {
		path, err := buildCabinet()
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	name := "imgcache-driver-" + driver
	if dir := os.Getenv("IMGCACHE_BIN"); dir != "" {
		return filepath.Join(dir, "plugins", name)
	}
	path := filepath.Join(t.TempDir(), name)
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path,
		"github.com/imgcache/imgcache-host/plugins/builtin/"+driver+"/"+name).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// cacheDir returns a directory on a file system that keeps user attributes: in
// memory, where 10000 files take no time, if that one does.
func cacheDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ic")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if unix.Setxattr(dir, "user.probe", []byte("x"), 0) != nil {
		return t.TempDir()
	}
	return dir
}

// process is a driver that runs as a process.
type process struct {
	sdktest.Subject
	pid  int
	stop func()
}

// startDriver runs a driver as a process, for a cache in dir, until stop.
func startDriver(t *testing.T, name, path, dir string, options sdk.Config) process {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, ".imgcache"), 0o750); err != nil {
		t.Fatal(err)
	}
	run, err := os.MkdirTemp("/tmp", "ic") // t.TempDir() may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	config := plugin.Config{RunDir: run, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Confinement: plugin.None}
	if strings.HasSuffix(path, ".wasm") {
		config.CacheDir = filepath.Join(filepath.Dir(path), "compiled")
		if config.Executable, err = runner(); err != nil {
			t.Fatal(err)
		}
	}
	sup, err := plugin.New(config)
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		if err := errors.Join(sup.Close(), os.RemoveAll(run)); err != nil {
			t.Error(err)
		}
	}
	p, err := sup.Start(t.Context(), plugin.Spec{Name: name, Kind: sdk.KindDriver, Path: path})
	if err == nil {
		err = p.Configure(t.Context(), sdk.Settings{
			CacheDir: dir, StateDir: filepath.Join(dir, ".imgcache"), Node: "node", Instance: "0123456789abcdef", Options: options,
		})
	}
	if err != nil {
		stop()
		t.Fatal(err)
	}
	subject := inDir(t, p.Driver(), dir)
	if name == cabinet {
		subject.Entries = entries()
	}
	return process{subject, p.Status().PID, stop}
}

// inDir makes the files of a driver's images in a directory.
func inDir(t *testing.T, d sdk.Driver, dir string) sdktest.Subject {
	check := func(err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	return sdktest.Subject{
		Driver: d,
		Create: func(id string) {
			f, err := os.OpenFile(filepath.Join(dir, id), os.O_CREATE|os.O_EXCL, 0o640)
			if err == nil {
				err = f.Close()
			}
			check(err)
		},
		Remove: func(id string) { check(os.Remove(filepath.Join(dir, id))) },
	}
}

// TestDriverThroughProcess holds the drivers to the contract as the host has
// them: processes behind gRPC, which are killed where the contract speaks of a
// restart.
func TestDriverThroughProcess(t *testing.T) {
	t.Parallel()
	for _, s := range shipped {
		t.Run(s.store, func(t *testing.T) {
			t.Parallel()
			path := driverBinary(t, s.driver)
			options := func(*testing.T) sdk.Config { return nil }
			if s.server != nil {
				server := s.server(t)
				options = func(t *testing.T) sdk.Config { return sdk.Config{"dsn": server.Database(t)} }
			}
			sdktest.Driver(t, func(t *testing.T) sdktest.Subject {
				p := startDriver(t, s.driver, path, cacheDir(t), options(t))
				t.Cleanup(p.stop)
				return p.Subject
			})
			sdktest.Durable(t, func(t *testing.T) func() sdktest.Subject {
				dir, same := cacheDir(t), options(t)
				end := func() {}
				t.Cleanup(func() { end() })
				return func() sdktest.Subject {
					end()
					end = func() {}
					p := startDriver(t, s.driver, path, dir, same)
					end = func() {
						if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
							t.Error(err)
						}
						p.stop()
					}
					return p.Subject
				}
			})
		})
	}
}
