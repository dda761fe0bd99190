package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/imgcache/imgcache-host/host/client"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/spf13/cobra"
)

func (a *app) plugin() *cobra.Command {
	group := &cobra.Command{Use: "plugin", Short: "List, inspect, check or write plugins", Args: cobra.NoArgs, RunE: needsCommand}
	group.AddCommand(&cobra.Command{
		Use:         "list",
		Annotations: asksPolicy,
		Short:       "List the running plugins and how they are doing",
		Args:        cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			plugins, err := c.Plugins(ctx)
			if err != nil {
				return err
			}
			return a.answer(map[string]any{"plugins": plugins}, func(w io.Writer) {
				row(w, "NAME", "KIND", "RUNTIME", "VERSION", "STATE", "PID", "RESTARTS", "BREAKER", "CALLS", "ERRORS", "P99", "MEMORY", "CPU", "WALLS", "LAST ERROR")
				for _, p := range plugins {
					row(w, p.Name, p.Kind, runtimeOf(p), p.Version, p.State, p.PID, p.Restarts, p.Breaker, p.Calls, p.Errors,
						seconds(p.P99), humanBytes(int64(p.Memory)), seconds(p.CPU), wallsOf(p), p.LastError)
				}
			})
		}),
	})
	group.AddCommand(a.pluginReload(), a.pluginInfo(), a.pluginLock(), a.pluginNew(), a.pluginCheck(), a.pluginBench())
	return group
}

func runtimeOf(p plugin.Status) string {
	if p.Reattached {
		return p.Runtime + ", reattached"
	}
	return p.Runtime
}

// wallsOf says how many of the walls around a plugin are in force.
func wallsOf(p plugin.Status) string {
	if len(p.Walls) == 0 {
		return "none"
	}
	hold := 0
	for _, w := range p.Walls {
		if w.Holds {
			hold++
		}
	}
	return fmt.Sprintf("%d of %d", hold, len(p.Walls))
}

// seconds writes a time for people.
func seconds(s float64) string { return time.Duration(s * float64(time.Second)).String() }

func (a *app) pluginReload() *cobra.Command {
	return &cobra.Command{
		Use:   "reload NAME",
		Short: "Restart a plugin from its file, without a failed request",
		Long: "Restart a plugin from its current file, without a failed request. A policy hands on its state;\n" +
			"calls of a driver wait during the exchange. If the new plugin does not start, refuses its\n" +
			"configuration or fails when it is tried, the old one keeps running, and the error says why.",
		Args: cobra.ExactArgs(1),
		RunE: a.call(func(ctx context.Context, c *client.Client, names []string) error {
			p, err := c.Reload(ctx, names[0])
			if err != nil {
				return fmt.Errorf("reload %s: %w", names[0], err)
			}
			return a.answer(p, func(w io.Writer) { row(w, "reloaded", p.Name, "version", p.Version, "pid", p.PID) })
		}),
	}
}

// needsCommand is the RunE of a command that only groups other commands.
func needsCommand(cmd *cobra.Command, _ []string) error {
	return usageError{errNoCommand, cmd.CommandPath()}
}
