package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/conformance"
	"github.com/imgcache/imgcache-host/sdk"
)

func (a *app) pluginCheck() *cobra.Command {
	var junit string
	var loud bool
	var c conformance.Check
	cmd := &cobra.Command{
		Use:   "check PATH",
		Short: "Check a plugin against every sentence of its contract",
		Long: "Starts the plugin in the file, a driver or a policy, many times, each time with an empty cache directory,\n" +
			"and shows for every sentence of the contract whether the plugin keeps it. The exit code is 1 if it breaks one.\n\n" +
			"--config names a file with the content of the plugin's config block. The plugin writes to the store in it, so\n" +
			"use one that exists only for the check.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.locate(&c, args[0]); err != nil {
				return err
			}
			if loud {
				c.Log = newLog(a.stderr, config.Log{Level: "debug", Format: "text"})
			}
			r := checkReport{path: args[0]}
			err := c.Run(cmd.Context(), func(c conformance.Case) {
				r.add(c)
				if !a.output.json {
					r.print(a.stdout, c)
				}
			})
			if err != nil {
				return fmt.Errorf("check %s: %w", args[0], err)
			}
			if junit != "" {
				if err := r.writeJUnit(junit); err != nil {
					return err
				}
			}
			if a.output.json {
				if err := a.answer(map[string]any{"cases": r.cases, "failed": r.failed}, nil); err != nil {
					return err
				}
			}
			return r.verdict()
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&loud, "log", false, "show on standard error what the plugin writes")
	flags.StringVar(&c.Only, "only", "", "run only the cases whose name contains this `text`")
	flags.StringVar(&c.Dir, "dir", "", "`directory` in which cache directories are created (default: that for temporary files)")
	flags.IntVar(&c.Entries, "entries", 100_000, "`number` of records in the largest case of a driver")
	flags.DurationVar(&c.Budget, "budget", conformance.Budget, "how long a policy may take for the largest batch")
	flags.DurationVar(&c.Timeout, "timeout", conformance.Timeout, "how long a case may take")
	flags.StringVar(&junit, "junit", "", "write the result to a `file` too, in the XML of JUnit")
	return cmd
}

// pluginOptions returns how the options that a plugin declares are read from
// the file of --config.
func (a *app) pluginOptions() (func([]sdk.Option) (sdk.Config, error), error) {
	var c config.PluginConfig
	switch len(a.configs) {
	case 0:
	case 1:
		var err error
		if c, err = config.PluginFile(a.configs[0]); err != nil {
			return nil, configError{err}
		}
	default:
		return nil, fmt.Errorf("--config takes one file here")
	}
	return c.Decode, nil
}

// checkReport is the result of a check.
type checkReport struct {
	path   string
	cases  []conformance.Case
	failed int
}

func (r *checkReport) add(c conformance.Case) {
	r.cases = append(r.cases, c)
	if len(c.Failures) > 0 {
		r.failed++
	}
}

// print writes a line for a case, and where the plugin fails the sentence of
// the contract with what was seen.
func (r *checkReport) print(w io.Writer, c conformance.Case) {
	word := "ok    "
	if len(c.Failures) > 0 {
		word = "BROKEN"
	}
	fmt.Fprintf(w, "%s  %s  (%v)\n", word, c.Name, c.Took.Round(time.Millisecond))
	if len(c.Failures) > 0 {
		fmt.Fprintf(w, "        contract: %s\n", c.Sentence)
	}
	for _, f := range c.Failures {
		fmt.Fprintf(w, "        seen: %s\n", visibleText(f))
	}
}

func (r *checkReport) verdict() error {
	if len(r.cases) == 0 {
		return errors.New("no case has a name that contains the text of --only")
	}
	if r.failed > 0 {
		return fmt.Errorf("%s breaks the contract: %d of %s failed", r.path, r.failed, english.Plural(len(r.cases), "case", ""))
	}
	return nil
}

func (r *checkReport) writeJUnit(path string) error {
	var text bytes.Buffer
	err := conformance.WriteJUnit(&text, r.path, r.cases)
	if err == nil {
		err = os.WriteFile(path, text.Bytes(), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
