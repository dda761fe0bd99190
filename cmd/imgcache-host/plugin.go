package main

import (
	"context"
	"io"

	"github.com/imgcache/imgcache-host/host/client"
	"github.com/spf13/cobra"
)

func (a *app) plugin() *cobra.Command {
	group := &cobra.Command{Use: "plugin", Short: "Look at the plugins", Args: cobra.NoArgs, RunE: needsCommand}
	group.AddCommand(&cobra.Command{
		Use:         "list",
		Annotations: asksPolicy,
		Short:       "List the plugins that run, and how they do",
		Args:        cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			plugins, err := c.Plugins(ctx)
			if err != nil {
				return err
			}
			return a.answer(map[string]any{"plugins": plugins}, func(w io.Writer) {
				row(w, "NAME", "KIND", "RUNTIME", "VERSION", "STATE", "PID", "RESTARTS", "CALLS", "ERRORS", "LAST ERROR")
				for _, p := range plugins {
					row(w, p.Name, p.Kind, p.Runtime, p.Version, p.State, p.PID, p.Restarts, p.Calls, p.Errors, p.LastError)
				}
			})
		}),
	})
	group.AddCommand(a.pluginCheck())
	return group
}

// needsCommand is the RunE of a command that only groups others.
func needsCommand(cmd *cobra.Command, _ []string) error {
	return usageError{errNoCommand, cmd.CommandPath()}
}
