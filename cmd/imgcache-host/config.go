package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"
)

var errNoCommand = errors.New("this needs one more word")

func (a *app) config() *cobra.Command {
	group := &cobra.Command{Use: "config", Short: "Work with configuration files", Args: cobra.NoArgs, RunE: needsCommand}
	group.AddCommand(&cobra.Command{
		Use:   "validate [FILE|DIR...]",
		Short: "Check a configuration without starting anything",
		Long: "Check the configuration files and directories that are named, or those of --config, as serve would.\n" +
			"The options of plugins are checked when the service starts, because the plugins declare them.",
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := a.loadAloud(append(args, a.configs...))
			if err != nil {
				return err
			}
			return a.answer(map[string]any{"valid": true}, func(w io.Writer) {
				row(w, fmt.Sprintf("The configuration is valid: %s, cache in %s, %s.",
					english.Plural(len(c.Listeners), "listener", ""), c.Cache.Dir, english.Plural(len(c.Origins), "origin", "")))
			})
		},
	})
	return group
}
