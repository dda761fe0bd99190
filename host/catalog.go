package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/lock"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/sdk"
)

// Catalog looks at the plugins of a configuration for one command, whether the
// service runs or not.
type Catalog struct{ host *Host }

// OpenCatalog opens the plugins of a configuration; an empty configuration has
// the plugins that ship. A plugin is started only to read its manifest, and only
// if admit allows it.
func OpenCatalog(cfg *config.Config, log *slog.Logger, admit func(lock.Guard, plugin.Candidate) (string, error)) (*Catalog, error) {
	h := &Host{log: log, admit: admit}
	own, err := h.apart(cfg)
	if err != nil {
		return nil, err
	}
	own.Node.DataDir = own.Node.RunDir // the service must not trust modules that another user compiled
	h.cfg = own
	if err := h.openPlugins(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return &Catalog{h}, nil
}

// Close stops what runs.
func (c *Catalog) Close() error { return c.host.Close() }

// Info returns the manifest of a plugin. The plugin is named by the path of its
// file, or by its name in the configuration.
func (c *Catalog) Info(ctx context.Context, target string) (plugin.Info, error) {
	spec, err := c.spec(target)
	if err != nil {
		return plugin.Info{}, err
	}
	return c.host.plugins.Inspect(ctx, spec)
}

func (c *Catalog) spec(target string) (plugin.Spec, error) {
	if _, err := os.Stat(target); err == nil || strings.Contains(target, "/") {
		path, err := filepath.Abs(target)
		return plugin.Spec{Name: plugin.NameOf(target), Path: path}, err
	}
	for _, block := range c.host.cfg.Plugins {
		if block.Name == target {
			return c.host.spec(config.PluginConfig{Kind: block.Kind, Plugin: target})
		}
	}
	driver, noDriver := c.host.plugins.Find(sdk.KindDriver, target)
	policy, noPolicy := c.host.plugins.Find(sdk.KindPolicy, target)
	switch {
	case noDriver == nil && noPolicy == nil:
		return plugin.Spec{}, fmt.Errorf("%s is a driver and also a policy; give the path: %s or %s", target, driver.Path, policy.Path)
	case noDriver == nil:
		return driver, nil
	case noPolicy == nil:
		return policy, nil
	}
	return plugin.Spec{}, fmt.Errorf("there is no file %s and no plugin of that name: %w; %w", target, noDriver, noPolicy)
}

// Lock returns a lock that lets the plugins run that the configuration names, as
// they are now.
func (c *Catalog) Lock(ctx context.Context) (lock.Lock, error) {
	var l lock.Lock
	for _, p := range c.named() {
		if _, twice := l.Find(p.Kind, p.Plugin); twice {
			continue
		}
		spec, err := c.host.spec(p)
		if err != nil {
			return l, err
		}
		info, err := c.host.plugins.Inspect(ctx, spec)
		if err != nil {
			return l, err
		}
		l.Plugins = append(l.Plugins, lock.Plugin{
			Name: spec.Name, Kind: spec.Kind, Version: info.Manifest.Version, SHA256: info.SHA256, Signature: info.Signature,
		})
	}
	return l, nil
}

// named returns the plugins that the configuration names; it may list a plugin
// several times.
func (c *Catalog) named() []config.PluginConfig {
	cfg := c.host.cfg
	list := append([]config.PluginConfig{cfg.Cache.Driver, cfg.Cache.Policy}, cfg.Drivers...)
	list = append(list, cfg.Cache.Shadow...)
	for _, block := range cfg.Plugins {
		list = append(list, config.PluginConfig{Kind: block.Kind, Plugin: block.Name})
	}
	return list
}
