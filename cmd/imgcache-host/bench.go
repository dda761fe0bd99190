package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/imgcache/imgcache-host/host/conformance"
)

func (a *app) pluginBench() *cobra.Command {
	var c conformance.Check
	cmd := &cobra.Command{
		Use:   "bench PATH",
		Short: "Measure how fast a plugin answers",
		Long: "Starts the plugin in the file as the service would, and measures its calls as the service sees them.\n\n" +
			"--config names a file with the content of the plugin's config block. The plugin writes to the store in it.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.locate(&c, args[0]); err != nil {
				return err
			}
			var measures []conformance.Measure
			if err := c.Bench(cmd.Context(), func(m conformance.Measure) { measures = append(measures, m) }); err != nil {
				return fmt.Errorf("bench %s: %w", args[0], err)
			}
			return a.answer(map[string]any{"measures": measures}, func(w io.Writer) {
				row(w, "WHAT", "CALLS", "MEDIAN", "P99", "PER SECOND")
				for _, m := range measures {
					row(w, m.Name, m.Calls, rounded(m.Median), rounded(m.P99), humanize.SIWithDigits(m.PerSecond(), 1, ""))
				}
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Dir, "dir", "", "`directory` in which the plugin's store is created (default: that for temporary files)")
	flags.IntVar(&c.Entries, "entries", 100_000, "`number` of records of a driver")
	flags.DurationVar(&c.Timeout, "time", time.Second, "how long each measurement takes")
	return cmd
}

// rounded leaves three digits of a duration.
func rounded(d time.Duration) time.Duration {
	unit := time.Nanosecond
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

// locate says which plugin is checked, and with which program.
func (a *app) locate(c *conformance.Check, path string) (err error) {
	if c.Options, err = a.pluginOptions(); err != nil {
		return err
	}
	if c.Path, err = filepath.Abs(path); err != nil {
		return err
	}
	if c.Executable, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return nil
}
