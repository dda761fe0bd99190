package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/imgcache/imgcache-host/host/client"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/spf13/cobra"
)

// app is one run of the command: its streams and the flags that all verbs
// share.
type app struct {
	stdin          *os.File
	stdout, stderr io.Writer

	configs []string
	socket  string
	output  format
	yes     bool

	begun bool // the command line was right, and its command runs
}

// run executes a command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !a.begun {
		err = usageError{err, cmd.CommandPath()}
	}
	report(a.stderr, err)
	return exitCode(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "imgcache-host",
		Short: "A cache of machine images, with plugins for its records and its eviction",
		Long: "imgcache-host stands in front of a slow or far origin of machine images, streams each image\n" +
			"through once, keeps a verified copy, and serves every later request from it.",
		SilenceErrors:    true, // run reports them
		SilenceUsage:     true, // a wrong word should not scroll the reason away
		PersistentPreRun: func(*cobra.Command, []string) { a.begun = true },
	}
	flags := root.PersistentFlags()
	flags.StringArrayVar(&a.configs, "config", nil, "configuration `file or directory`; may be repeated")
	flags.StringVar(&a.socket, "socket", "", "admin `socket` of the service (default: of the configuration, else $IMGCACHE_SOCKET, else "+defaultSocket()+")")
	flags.Var(&a.output, "output", "`format` of the answer: table or json")
	flags.BoolVar(&a.yes, "yes", false, "do not ask before something is removed")
	root.AddCommand(
		a.serve(), a.status(),
		a.list(), a.show(), a.victims(),
		a.queue(), a.prefetch(), a.fills(),
		a.pin(), a.unpin(),
		a.remove(), a.clear(), a.prune(), a.clean(), a.verify(),
		a.schedules(), a.plugin(), a.config(),
		a.version(), a.wasmRunner(),
	)
	return root
}

func defaultSocket() string {
	return filepath.Join(config.DefaultRunDir(), config.AdminSocket)
}

// load reads the configuration in the files and directories of paths.
func (a *app) load(paths []string) (*config.Config, error) {
	if len(paths) == 0 {
		return nil, configError{fmt.Errorf("no configuration: name a file or directory with --config")}
	}
	c, err := config.Load(paths)
	if err != nil {
		return nil, configError{err}
	}
	return c, nil
}

// loadAloud is load for the commands that are about the configuration: they
// show its warnings.
func (a *app) loadAloud(paths []string) (*config.Config, error) {
	c, err := a.load(paths)
	if err == nil && c.Warnings != nil {
		_ = c.Warnings.Write(a.stderr) // nothing can be done about a closed stderr
	}
	return c, err
}

// service returns a client of the running service.
func (a *app) service() (*client.Client, error) {
	switch {
	case a.socket != "":
		return client.New(a.socket), nil
	case len(a.configs) > 0:
		c, err := a.load(a.configs)
		if err != nil {
			return nil, err
		}
		return client.New(c.AdminSocket()), nil
	case os.Getenv("IMGCACHE_SOCKET") != "":
		return client.New(os.Getenv("IMGCACHE_SOCKET")), nil
	default:
		return client.New(defaultSocket()), nil
	}
}

// call makes the RunE of a command that talks to the service.
func (a *app) call(do func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.service()
		if err != nil {
			return err
		}
		defer c.Close()
		return do(cmd.Context(), c, args)
	}
}
