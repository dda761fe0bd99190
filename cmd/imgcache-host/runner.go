package main

import (
	"os"

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
