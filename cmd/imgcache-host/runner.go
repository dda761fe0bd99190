package main

import "github.com/spf13/cobra"

// wasmRunner is how the service starts a WebAssembly plugin: in a process of
// its own. It is no command for people.
func (a *app) wasmRunner() *cobra.Command {
	return &cobra.Command{
		Use:                "wasm-runner MODULE",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			panic("not wired yet")
		},
	}
}
