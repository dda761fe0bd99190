package main

import (
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X main.version=...".
var version = "dev"

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			platform := runtime.GOOS + "/" + runtime.GOARCH
			return a.answer(map[string]string{"version": version, "go": runtime.Version(), "platform": platform}, func(w io.Writer) {
				row(w, "imgcache-host "+version+" ("+runtime.Version()+", "+platform+")")
			})
		},
	}
}
