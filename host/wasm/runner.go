package wasm

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

// The variables by which the host tells the runner how to run a module.
const (
	moduleEnv = "IMGCACHE_WASM_MODULE" // the file that was hashed, from which the module is read; empty: read it at its path
	cacheEnv  = "IMGCACHE_WASM_CACHE"  // directory of compiled modules
	memoryEnv = "IMGCACHE_WASM_MEMORY" // limit in bytes
	stateEnv  = "IMGCACHE_WASM_STATE"  // limit of a driver's keys and values in bytes
	grantsEnv = "IMGCACHE_WASM_GRANTS" // names of grants, with spaces between
)

// RunnerEnv returns the variables that tell the runner to run a module with
// these options; module is the file to read, empty for the module's own path.
func RunnerEnv(module string, o Options) map[string]string {
	grants := make([]string, len(o.Grants))
	for i, g := range o.Grants {
		grants[i] = string(g)
	}
	env := map[string]string{moduleEnv: module, cacheEnv: o.CacheDir, grantsEnv: strings.Join(grants, " ")}
	for name, limit := range map[string]int64{memoryEnv: o.Memory, stateEnv: o.State} {
		if limit > 0 {
			env[name] = strconv.FormatInt(limit, 10)
		}
	}
	return env
}

// RunnerMain loads the module that its only argument names and serves it as a
// process plugin until the host goes away, which ends the process. It returns
// only when it cannot start: it writes a line to stderr and returns the exit
// code.
func RunnerMain(args []string, stderr io.Writer) int {
	if len(args) != 1 {
		fmt.Fprintln(stderr, "wasm-runner: expected the path of one module")
		return 2
	}
	stop := boundMemory(maxLoading, func() {
		fmt.Fprintf(stderr, "load %s: compiling it takes more than %d MiB of memory\n", args[0], maxLoading>>20)
		os.Exit(1)
	})
	m, err := loadFile(context.Background(), args[0])
	stop()
	if err != nil {
		fmt.Fprintf(stderr, "load %s: %v\n", args[0], err)
		return 1
	}
	serve.Main(m.Manifest(), m.Plugin())
	return 0
}

func loadFile(ctx context.Context, path string) (*Module, error) {
	o := Options{CacheDir: os.Getenv(cacheEnv), Log: serve.Logger(), OnLostState: exitSoon}
	for name, limit := range map[string]*int64{memoryEnv: &o.Memory, stateEnv: &o.State} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 63)
			if err != nil {
				return nil, fmt.Errorf("%w: %s: %w", sdk.ErrInvalid, name, err)
			}
			*limit = int64(n)
		}
	}
	for _, g := range strings.Fields(os.Getenv(grantsEnv)) {
		o.Grants = append(o.Grants, sdk.Grant(g))
	}
	code, err := readModule(cmp.Or(os.Getenv(moduleEnv), path))
	if err != nil {
		return nil, err
	}
	return Load(ctx, code, o)
}

// readModule reads at most one byte more than a module may have: [Load] refuses
// that.
func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxModule+1))
}

// exitSoon ends the runner after a stateful policy has lost its state, so that
// the supervisor starts a new one and rebuilds the policy. It waits until the
// answer with the error has been sent.
func exitSoon() {
	const onItsWay = 100 * time.Millisecond
	time.AfterFunc(onItsWay, func() { os.Exit(1) })
}
