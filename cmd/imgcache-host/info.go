package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imgcache/imgcache-host/host"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/lock"
	"github.com/imgcache/imgcache-host/host/plugin"
)

func (a *app) pluginInfo() *cobra.Command {
	var keys []string
	cmd := &cobra.Command{
		Use:   "info PATH|NAME",
		Short: "Show a plugin's manifest, checksum and signature",
		Long: "Shows the manifest of a plugin, and the SHA-256 and signature of its file. Name it by the path of its file\n" +
			"or by its name in the configuration. A module that has its manifest in a custom section is not run; any other\n" +
			"plugin is started for the moment that the answer takes, without any settings.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.perhapsLoad()
			if err != nil {
				return err
			}
			cfg.TrustedKeys = append(cfg.TrustedKeys, keys...)
			c, err := host.OpenCatalog(cfg, slog.New(slog.DiscardHandler), lock.Guard.Look)
			if err != nil {
				return err
			}
			defer c.Close()
			info, err := c.Info(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.answer(info, func(w io.Writer) { showInfo(w, info) })
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "`file` with a public key that is trusted too; may be repeated")
	return cmd
}

// perhapsLoad reads the configuration for a command that also works without.
func (a *app) perhapsLoad() (*config.Config, error) {
	if len(a.configs) > 0 {
		return a.load(a.configs)
	}
	if cfg, err := config.Load([]string{defaultConfig}); err == nil {
		return cfg, nil
	}
	return &config.Config{}, nil // there is none, or it is not ours to read
}

func showInfo(w io.Writer, i plugin.Info) {
	m := i.Manifest
	protocol, last := m.Protocols()
	row(w, "NAME", m.Name)
	row(w, "VERSION", m.Version)
	row(w, "KIND", m.Kind)
	row(w, "RUNTIME", i.Runtime)
	if last > protocol {
		row(w, "PROTOCOL", fmt.Sprintf("%d to %d", protocol, last))
	} else {
		row(w, "PROTOCOL", protocol)
	}
	row(w, "CAPABILITIES", words(m.Capabilities))
	row(w, "REQUESTS", words(m.Requests))
	row(w, "FILE", i.Path)
	row(w, "SHA256", i.SHA256)
	row(w, "SIGNATURE", i.Signature)
	if len(m.Options) == 0 {
		return
	}
	row(w)
	row(w, "OPTION", "TYPE", "DEFAULT", "DESCRIPTION")
	for _, o := range m.Options {
		value := o.Default
		if o.Required {
			value = "required"
		}
		row(w, o.Name, o.Type, value, o.Description)
	}
}

// words joins names to a list.
func words[T ~string](names []T) string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = string(n)
	}
	return strings.Join(list, ", ")
}
