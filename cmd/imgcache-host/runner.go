package main

import (
	"os"

	"github.com/imgcache/imgcache-host/host/plugin/confine"
	"github.com/imgcache/imgcache-host/host/wasm"
	"github.com/spf13/cobra"
)

// wasmRunner is how the service starts a WebAssembly plugin: in a process of
// its own. It is no command for people.
func (a *app) wasmRunner() *cobra.Command {
	return &cobra.Command{
		Use:                "wasm-runner MODULE",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if code := wasm.RunnerMain(args, a.stderr); code != 0 {
				os.Exit(code)
			}
			return nil
		},
	}
}

// launcher is how the service confines a plugin before it runs: it takes the
// place of the program. It is asked for before anything else, because every
// start of a plugin waits for it.
func launcher(args []string) {
	if len(args) > 1 && args[1] == confine.Command {
		os.Exit(confine.Main(args[2:], os.Stderr))
	}
}
