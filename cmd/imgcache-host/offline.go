package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"github.com/imgcache/imgcache-host/host"
	"github.com/imgcache/imgcache-host/host/client"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/spf13/cobra"
)

// asksPolicy marks the commands that need the policy plugin.
var asksPolicy = map[string]string{"asks": "policy"}

// offline executes a command on the cache directory of a configuration whose
// service does not run; away says how that was noticed.
func (a *app) offline(cmd *cobra.Command, cfg *config.Config, away error, do order, args []string) (err error) {
	if err := becomeOwner(cfg.Cache.Dir); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o, err := host.OpenOffline(cmd.Context(), cfg, log, version, cmd.Annotations["asks"] == asksPolicy["asks"])
	var locked *host.LockedError
	switch {
	case errors.As(err, &locked), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; %w", away, err) // another process uses the directory and does not answer, or there is no directory
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the service does not run, and %w", client.ErrDenied, err)
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	c := client.Over(cfg.Cache.Dir, o.Dial)
	defer c.Close()
	return do(cmd.Context(), c, args)
}

// becomeOwner changes from root to the owner of the cache directory, so that the
// service can use the files that the command creates in it.
func becomeOwner(dir string) error {
	var st syscall.Stat_t
	if os.Geteuid() != 0 || syscall.Stat(dir, &st) != nil || st.Uid == 0 {
		return nil
	}
	err := syscall.Setgroups([]int{int(st.Gid)})
	if err == nil {
		err = syscall.Setgid(int(st.Gid))
	}
	if err == nil {
		err = syscall.Setuid(int(st.Uid))
	}
	if err != nil {
		return fmt.Errorf("become the owner of %s: %w", dir, err)
	}
	return nil
}
