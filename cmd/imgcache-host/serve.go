package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/imgcache/imgcache-host/host"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/spf13/cobra"
)

func (a *app) serve() *cobra.Command {
	return &cobra.Command{
		Use:   "serve --config FILE|DIR",
		Short: "Run the service until SIGTERM or Ctrl-C",
		Long: "Run the service. After SIGTERM or Ctrl-C running transfers may end within the drain_timeout\n" +
			"of the configuration; a second signal ends the service at once. SIGHUP has no effect.\n" +
			"Logs go to standard error.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hangups := make(chan os.Signal, 1)
			signal.Notify(hangups, syscall.SIGHUP)
			defer signal.Stop(hangups)
			c, err := a.loadAloud(a.configs)
			if err != nil {
				return err
			}
			log := newLog(a.stderr, c.Log)
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			go ignoreHangups(ctx, hangups, log)
			return runHost(ctx, c, log)
		},
	}
}

// ignoreHangups says of each SIGHUP that it has no effect: it comes from a closed
// terminal, or from whoever hopes for a reload, and is meant to end nothing.
func ignoreHangups(ctx context.Context, hangups <-chan os.Signal, log *slog.Logger) {
	for {
		select {
		case <-hangups:
			log.Warn("SIGHUP is ignored: the configuration is read at the start alone, and logs go to standard error")
		case <-ctx.Done():
			return
		}
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
