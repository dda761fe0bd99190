package main

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/imgcache/imgcache-host/host"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/spf13/cobra"
)

func (a *app) serve() *cobra.Command {
	return &cobra.Command{
		Use:   "serve --config FILE|DIR",
		Short: "Run the service until SIGTERM or Ctrl-C",
		Long: "Run the service. After SIGTERM or Ctrl-C running transfers may end within the drain_timeout\n" +
			"of the configuration; a second signal ends the service at once. Logs go to standard error.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.loadAloud(a.configs)
			if err != nil {
				return err
			}
			return runHost(cmd.Context(), c, newLog(a.stderr, c.Log))
		},
	}
}

// runHost is the service itself. It reads nothing from standard input, which
// plugins would inherit.
func runHost(ctx context.Context, c *config.Config, log *slog.Logger) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	os.Stdin = null
	return host.Run(ctx, c, log, version)
}

func newLog(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // not after config.Load
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
