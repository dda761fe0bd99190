package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/imgcache/imgcache-host/host"
	"github.com/imgcache/imgcache-host/host/lock"
)

func (a *app) pluginLock() *cobra.Command {
	var keys []string
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "Write the lock file: the checksums of the plugins that may run",
		Long: "Writes the lock file with name, kind, version and SHA-256 of each plugin that the configuration names, as it is now.\n" +
			"From then on only these files are started. The lock file is plugin_lock of the configuration, else plugins.lock.json\n" +
			"beside it. The plugins are started for a moment, without any settings, to ask for their versions.\n\n" +
			"With trusted_keys in the configuration, or --key, only plugins signed with one of these keys are locked.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			configs := a.configs
			if len(configs) == 0 {
				configs = []string{defaultConfig}
			}
			cfg, err := a.load(configs)
			if err != nil {
				return err
			}
			old, err := lock.Read(cfg.PluginLock)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			cfg.Locked, cfg.TrustedKeys = false, append(cfg.TrustedKeys, keys...)
			c, err := host.OpenCatalog(cfg, slog.New(slog.DiscardHandler), lock.Guard.Admit)
			if err != nil {
				return err
			}
			defer c.Close()
			made, err := c.Lock(cmd.Context())
			if err != nil {
				return fmt.Errorf("the lock file was not changed: %w", err)
			}
			if err := made.Write(cfg.PluginLock); err != nil {
				return err
			}
			changes := made.Since(old)
			return a.answer(map[string]any{"lock": cfg.PluginLock, "plugins": changes}, func(w io.Writer) {
				row(w, "CHANGE", "KIND", "NAME", "VERSION", "SHA256", "SIGNATURE")
				for _, p := range changes {
					row(w, p.Change, p.Kind, p.Name, p.Version, p.SHA256, p.Signature)
				}
			})
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "`file` with a trusted public key; each plugin must be signed with one of them; may be repeated")
	return cmd
}
