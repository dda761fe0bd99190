package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/imgcache/imgcache-host/host/client"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/spf13/cobra"
)

// app is one run of the command: its streams and the flags that all commands
// share.
type app struct {
	stdin          *os.File
	stdout, stderr io.Writer

	configs []string
	socket  string
	output  format
	yes     bool

	args  []string // of the process, to run it again; none: it is not
	begun bool     // the command line was right, and its command runs
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
		Short: "A cache for machine images, with plugins for its records and its eviction",
		Long: "imgcache-host stands in front of a slow or far origin of machine images, streams each image\n" +
			"through once, keeps a verified copy, and serves every later request from it.\n\n" +
			"Commands take images by NAME: the name as it stands in a URL behind /images/, such as noble/current/x.img,\n" +
			"with several origins ORIGIN/NAME; or the whole path of the URL; or the id that list shows.",
		SilenceErrors: true, // run reports them
		SilenceUsage:  true, // the usage would scroll the error away
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if a.output.svg && cmd.Annotations[draws] == "" {
				return fmt.Errorf(`--output: expected table or json, got "svg"`)
			}
			a.begun = true
			return nil
		},
	}
	flags := root.PersistentFlags()
	flags.StringArrayVar(&a.configs, "config", nil, "configuration `file or directory`; may be repeated")
	flags.StringVar(&a.socket, "socket", "", "admin `socket` of the service (default: from the configuration, else $IMGCACHE_SOCKET, else from "+defaultConfig+", else "+defaultSocket()+")")
	flags.Var(&a.output, "output", "`format` of the answer: table or json")
	flags.BoolVar(&a.yes, "yes", false, "do not ask before something is removed or replaced")
	root.AddCommand(
		a.serve(), a.status(),
		a.list(), a.show(), a.nodes(), a.victims(),
		a.queue(), a.prefetch(), a.refresh(), a.fills(),
		a.pin(), a.unpin(),
		a.remove(), a.clear(), a.prune(), a.clean(), a.verify(),
		a.schedules(), a.driver(), a.plugin(), a.policy(), a.config(),
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
		return nil, configError{fmt.Errorf("no configuration; name a file or directory with --config")}
	}
	c, err := config.Load(paths)
	if err != nil {
		return nil, configError{err}
	}
	return c, nil
}

// loadAloud is load for commands about the configuration, which show its
// warnings.
func (a *app) loadAloud(paths []string) (*config.Config, error) {
	c, err := a.load(paths)
	if err == nil && c.Warnings != nil {
		_ = c.Warnings.Write(a.stderr) // nothing can be done about a closed stderr
	}
	return c, err
}

// service returns a client of the service, and the configuration by which the
// cache directory can be worked on when that does not run; nil: there is none,
// as when a socket is named.
func (a *app) service() (*client.Client, *config.Config, error) {
	switch {
	case a.socket != "":
		return client.New(a.socket), nil, nil
	case len(a.configs) > 0:
		c, err := a.load(a.configs)
		if err != nil {
			return nil, nil, err
		}
		return client.New(c.AdminSocket()), c, nil
	case os.Getenv("IMGCACHE_SOCKET") != "":
		return client.New(os.Getenv("IMGCACHE_SOCKET")), nil, nil
	}
	if c, err := config.Load([]string{defaultConfig}); err == nil {
		return client.New(c.AdminSocket()), c, nil
	}
	return client.New(defaultSocket()), nil, nil // there is no such file, or it is not ours to read
}

// defaultConfig is the configuration of the service's systemd unit.
const defaultConfig = "/etc/imgcache"

// order is the work of a command, done through the native API.
type order func(ctx context.Context, c *client.Client, args []string) error

// call makes the RunE of a command that talks to the service, or works on the
// cache directory itself when that does not run.
func (a *app) call(do order) func(*cobra.Command, []string) error {
	return a.callAs(func(cfg *config.Config) (*config.Config, error) { return cfg, nil }, do)
}

// callAs is call for a command that changes the configuration with which it
// opens the cache directory.
func (a *app) callAs(adapt func(*config.Config) (*config.Config, error), do order) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, cfg, err := a.service()
		if err != nil {
			return err
		}
		defer c.Close()
		if cfg != nil {
			if away := c.Ping(cmd.Context()); errors.Is(away, client.ErrUnreachable) {
				own, err := adapt(cfg)
				if err != nil {
					return err
				}
				return a.offline(cmd, own, away, do, args)
			}
		}
		return do(cmd.Context(), c, args)
	}
}

// callRunning is call for a command that makes sense only while the service
// runs.
func (a *app) callRunning(do order) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, _, err := a.service()
		if err != nil {
			return err
		}
		defer c.Close()
		return do(cmd.Context(), c, args)
	}
}
