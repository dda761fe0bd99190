package wasm

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/imgcache/imgcache-host/sdk/serve"
)

// The variables by which the host tells the runner how to run a module.
const (
	cacheEnv  = "IMGCACHE_WASM_CACHE"  // directory of compiled modules
	memoryEnv = "IMGCACHE_WASM_MEMORY" // limit in bytes
)

// RunnerMain loads the module that the only argument names and serves it as a
// process plugin until the host goes away. It returns the exit code of a
// start that failed, having said why on stderr.
func RunnerMain(args []string, stderr io.Writer) int {
	if len(args) != 1 {
		fmt.Fprintln(stderr, "wasm-runner: want the path of one module")
		return 2
	}
	m, err := loadFile(args[0])
	if err != nil {
		fmt.Fprintf(stderr, "load %s: %v\n", args[0], err)
		return 1
	}
	serve.Main(m.Manifest(), m.Policy())
	return 0
}

func loadFile(path string) (*Module, error) {
	code, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	o := Options{CacheDir: os.Getenv(cacheEnv), Log: serve.Logger(), OnLostState: exitSoon}
	if text := os.Getenv(memoryEnv); text != "" {
		if o.Memory, err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", memoryEnv, err)
		}
	}
	return Load(context.Background(), code, o)
}

// exitSoon ends the runner, so that the supervisor starts a new one and the
// policy is rebuilt. The answer that carries the error goes out first.
func exitSoon() {
	time.AfterFunc(100*time.Millisecond, func() { os.Exit(1) })
}
