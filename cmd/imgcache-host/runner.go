package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// wasmRunner is how the service starts a WebAssembly plugin: in a process of
// its own. It is no command for people.
func (a *app) wasmRunner() *cobra.Command {
	return &cobra.Command{
		Use:                "wasm-runner MODULE",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("the runner is not part of this build yet")
		},
	}
}
