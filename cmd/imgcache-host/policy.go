package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/imgcache/imgcache-host/host/simulate"
	"github.com/imgcache/imgcache-host/host/trace"
)

func (a *app) policy() *cobra.Command {
	group := &cobra.Command{Use: "policy", Short: "Compare eviction policies", Args: cobra.NoArgs, RunE: needsCommand}
	group.AddCommand(a.policySimulate(), a.policyShadow())
	return group
}

// draws marks the commands that can answer with a picture.
const draws = "draws"

// simulation holds the arguments of `policy simulate`.
type simulation struct {
	trace    string
	format   string
	columns  trace.Columns
	policies []string
	sizes    []string
	timeout  time.Duration // of a request
}

func (a *app) policySimulate() *cobra.Command {
	s := simulation{columns: trace.Columns{Time: 1, ID: 2, Size: 3}}
	cmd := &cobra.Command{
		Use:   "simulate --trace FILE --policy NAME|FILE.wasm[?OPTION=VALUE&...] ... --size SIZE[,SIZE...] ...",
		Short: "Replay a trace of requests through policies, and compare their misses",
		Long: "Replays a trace through each policy, with each size of the cache, and through Belady's rule as a reference. That\n" +
			"rule knows the future, and nothing beats it where all objects have the same size. A miss admits the object, and\n" +
			"others leave only to make room for it. An object larger than the cache is not admitted.\n\n" +
			"A trace is one that the service records, a CSV file (see --columns; times in seconds, sizes in bytes), or\n" +
			"libCacheSim's oracleGeneral; each may be compressed with zstd. A policy is a module that ships with this\n" +
			"program, a module in the plugin_dir of --config, or the path of a module. Sizes in its options are in bytes.",
		Example: "  imgcache-host policy simulate --trace requests.csv --columns time=2,id=5,size=4 \\\n" +
			"    --policy lru --policy sieve --policy ./mine.wasm --size 10GiB,20GiB,40GiB",
		Args:        cobra.NoArgs,
		Annotations: map[string]string{draws: "svg"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			alive, watched := simulate.Watched(s.timeout)
			if !watched && len(a.args) > 0 {
				return watch(cmd.Context(), a.args, s.timeout)
			}
			return a.simulate(cmd.Context(), s, cmd.CommandPath(), alive)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&s.trace, "trace", "", "`file` with the requests")
	flags.StringVar(&s.format, "format", "", "`format` of the trace: own, csv or oraclegeneral (default: found out from its first bytes and its name)")
	flags.Var(&s.columns, "columns", "columns of the fields in a CSV file")
	flags.StringArrayVar(&s.policies, "policy", nil, "`policy` to try; may be repeated")
	flags.StringSliceVar(&s.sizes, "size", nil, "`size` of the cache, such as 10GiB; may be repeated")
	flags.DurationVar(&s.timeout, "timeout", time.Minute, "how long a policy may take for one request, and to be loaded")
	return cmd
}

// watch runs the command line in a child, and ends with its exit code.
func watch(ctx context.Context, args []string, limit time.Duration) error {
	err := simulate.Watch(ctx, args, limit)
	var exited simulate.Exited
	if errors.As(err, &exited) {
		os.Exit(int(exited))
	}
	return err
}

func (a *app) simulate(ctx context.Context, s simulation, command string, alive func()) error {
	if s.timeout <= 0 {
		return usageError{errors.New("--timeout: expected a duration above zero, such as 1m"), command}
	}
	if s.trace == "" || len(s.policies) == 0 || len(s.sizes) == 0 {
		return usageError{errors.New("--trace, --policy and --size are required"), command}
	}
	format := trace.Format(strings.ToLower(s.format))
	if format != "" && !slices.Contains(trace.Formats, format) {
		return usageError{fmt.Errorf("--format: expected own, csv or oraclegeneral, got %q", s.format), command}
	}
	var sizes []uint64
	for _, text := range s.sizes {
		n, err := parseBytes(text)
		if err != nil || n <= 0 {
			return usageError{fmt.Errorf("--size: expected a size such as 10GiB, got %q", text), command}
		}
		sizes = append(sizes, uint64(n))
	}
	dirs, err := a.moduleDirs()
	if err != nil {
		return err
	}
	compiled, err := os.MkdirTemp("", "imgcache-simulate") // each module is compiled once
	if err != nil {
		return fmt.Errorf("make a directory for compiled modules: %w", err)
	}
	defer os.RemoveAll(compiled)
	var policies []simulate.Policy
	for _, text := range s.policies {
		p, err := simulate.Module(text, dirs, compiled)
		if err != nil {
			return err
		}
		policies = append(policies, p)
	}
	requests, err := trace.ReadFile(s.trace, format, s.columns)
	if err != nil {
		return err
	}
	alive()
	results, err := simulate.Run(ctx, requests, policies, sizes, alive)
	if err != nil {
		return err
	}
	if a.output.svg {
		title := fmt.Sprintf("%s: %s", filepath.Base(s.trace), english.Plural(len(requests), "request", ""))
		return simulate.Chart(a.stdout, title, results)
	}
	return a.answer(map[string]any{"trace": s.trace, "results": results}, func(w io.Writer) {
		row(w, "POLICY", "SIZE", "REQUESTS", "MISSES", "MISS RATIO", "BYTE MISS RATIO")
		for _, r := range results {
			row(w, r.Policy, humanize.IBytes(r.Size), r.Requests, r.Misses, fmt.Sprintf("%.4f", r.MissRatio), fmt.Sprintf("%.4f", r.ByteMissRatio))
		}
	})
}

// moduleDirs returns the directories in which a service finds modules.
func (a *app) moduleDirs() ([]string, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	dirs := []string{filepath.Join(filepath.Dir(executable), "plugins")}
	if len(a.configs) > 0 {
		c, err := a.load(a.configs)
		if err != nil {
			return nil, err
		}
		if c.PluginDir != "" {
			dirs = append(dirs, c.PluginDir)
		}
	}
	return dirs, nil
}
