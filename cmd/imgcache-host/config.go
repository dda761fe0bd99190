package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/dustin/go-humanize/english"
	"github.com/imgcache/imgcache-host/host/config/fromglance"
	"github.com/spf13/cobra"
)

var errNoCommand = errors.New("a command is missing")

func (a *app) config() *cobra.Command {
	group := &cobra.Command{Use: "config", Short: "Work with configuration files", Args: cobra.NoArgs, RunE: needsCommand}
	group.AddCommand(&cobra.Command{
		Use:   "validate [FILE|DIR...]",
		Short: "Check a configuration without starting anything",
		Long: "Check the named configuration files and directories, or those of --config, as serve would.\n" +
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
	group.AddCommand(&cobra.Command{
		Use:   "from-glance FILE...",
		Short: "Write a configuration that takes over the image cache of a Glance",
		Long: "Read the configuration files of Glance, such as /etc/glance/glance-api.conf, as Glance does (later ones win),\n" +
			"and write to standard output a configuration of this service for the same cache, records and images.\n" +
			"Each line names the option that it comes from. Remaining steps go to standard error. Passwords are never written.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error { return a.fromGlance(files) },
	})
	return group
}

func (a *app) fromGlance(files []string) error {
	made, err := fromglance.Translate(files)
	if err != nil {
		return configError{err}
	}
	for _, note := range made.Notes {
		fmt.Fprintf(a.stderr, "imgcache-host: note: %s\n", note)
	}
	_, err = a.stdout.Write(made.HCL)
	return err
}
