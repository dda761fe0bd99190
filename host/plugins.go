package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/lock"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

// firstStartPatience is how long New waits for the first starts of the plugins
// before it opens the listeners, so that a misspelt option stops the service at
// once. A driver is up after some 50 ms, a compiled module after 100 ms; a
// plugin that hangs delays the start by this time and no more.
const firstStartPatience = 500 * time.Millisecond

// openPlugins prepares what plugins need, and starts no plugin.
func (h *Host) openPlugins() error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	shipped := filepath.Join(filepath.Dir(executable), "plugins")
	dirs := []string{shipped}
	if h.cfg.PluginDir != "" {
		dirs = append(dirs, h.cfg.PluginDir)
	}
	if h.debugged, err = h.reattach(os.Getenv(plugin.ReattachEnv)); err != nil {
		return err
	}
	if h.admit == nil {
		h.admit = lock.Guard.Admit
	}
	guard := lock.Guard{Keys: h.cfg.TrustedKeys, Shipped: shipped}
	if h.cfg.Locked {
		guard.Lock = h.cfg.PluginLock
	}
	h.plugins, err = plugin.New(plugin.Config{
		Dirs: dirs, RunDir: h.cfg.Node.RunDir, Executable: executable, Log: h.log,
		CacheDir:    filepath.Join(h.cfg.Node.DataDir, "wasm"),
		Confinement: plugin.Confinement(h.cfg.Confinement),
		Admit:       func(c plugin.Candidate) (string, error) { return h.admit(guard, c) },
	})
	if err != nil {
		return err
	}
	h.closers = append(h.closers, h.plugins.Close)
	return nil
}

// reattach returns the plugins that run already because somebody debugs them. It
// is an error if the configuration does not use one of them, or promises
// something that cannot be kept for them.
func (h *Host) reattach(text string) (map[string]serve.Reattach, error) {
	list, err := plugin.ParseReattach(text)
	if len(list) == 0 || err != nil {
		return nil, err
	}
	promised := ""
	switch {
	case h.cfg.Locked:
		promised = "the lock file " + h.cfg.PluginLock + " allows only the plugins in it"
	case len(h.cfg.TrustedKeys) > 0:
		promised = "trusted_keys allow only signed plugins"
	case plugin.Confinement(h.cfg.Confinement) == plugin.Required:
		promised = `confinement = "required" allows no plugin without walls`
	}
	if promised != "" {
		return nil, fmt.Errorf("%w: %s is set, and %s: unset it, or debug with another configuration", sdk.ErrInvalid, plugin.ReattachEnv, promised)
	}
	for name, r := range list {
		if name != h.cfg.Cache.Driver.Plugin && name != h.cfg.Cache.Policy.Plugin {
			return nil, fmt.Errorf("%w: %s names %q, but this configuration uses the driver %s and the policy %s",
				sdk.ErrInvalid, plugin.ReattachEnv, name, h.cfg.Cache.Driver.Plugin, h.cfg.Cache.Policy.Plugin)
		}
		h.log.Warn("the plugin was started for debugging: it has no checksums, no walls and no deadlines", "plugin", name, "pid", r.Pid)
	}
	return list, nil
}

// findPlugins finds the driver and the policy that the configuration names. If
// there is no such plugin, the error has the place in the configuration.
func (h *Host) findPlugins() error {
	driver, err := h.newDriver(h.cfg.Cache.Driver)
	if err != nil {
		return err
	}
	h.driver.Store(driver)
	policy, err := h.spec(h.cfg.Cache.Policy)
	if err != nil {
		return err
	}
	h.policy = h.plugins.Plugin(policy, h.setup(h.cfg.Cache.Policy, func() (sdk.Settings, error) { return sdk.Settings{}, nil }))
	return nil
}

// driverSettings returns the settings that do not come from the driver's block.
// It fails while the cache directory is not open.
func (h *Host) driverSettings(c config.PluginConfig) (sdk.Settings, error) {
	if !h.store.IsOpen() {
		return sdk.Settings{}, store.ErrNotOpen
	}
	return sdk.Settings{
		CacheDir: h.cfg.Cache.Dir,
		StateDir: filepath.Join(h.cfg.Node.DataDir, "plugins", c.Plugin),
		Node:     h.cfg.Node.Name, URL: h.cfg.Node.Advertise, Instance: h.store.Instance(),
	}, nil
}

// runPlugins starts plugins. The engine is told of each that is up, and
// optionErrors gets the result of the first starts.
func (h *Host) runPlugins(list ...*plugin.Plugin) {
	for _, p := range list {
		switch p {
		case h.driver.Load():
			p.Run(h.cache.DriverUp)
		case h.policy:
			p.Run(func() { h.cache.SetPolicy(h.policyForm(h.policy)) })
		default: // a shadow policy
			p.Run(nil)
		}
	}
	go func() { h.optionErrors <- firstStarts(list) }()
}

// policyForm returns a plugin as the policy, in the form that its manifest
// declares.
func (h *Host) policyForm(p *plugin.Plugin) evict.Policy {
	form, m := evict.Policy{Name: h.cfg.Cache.Policy.Plugin, Epoch: p.Epoch}, p.Manifest()
	if !m.Has(sdk.CapStateful) {
		form.Scorer = p.Scorer()
		return form
	}
	form.Stateful = p.Stateful()
	if m.Has(sdk.CapSnapshot) {
		form.Snapshotter, form.Identity, form.Discard = p.Snapshotter(), p.Identity(), p.Discard
	}
	return form
}

// setup passes a plugin the options of its block, checked against the options
// that it declares at each start.
func (h *Host) setup(c config.PluginConfig, settings func() (sdk.Settings, error)) plugin.Setup {
	return func(m sdk.Manifest, configure func(sdk.Settings) error) error {
		options, err := c.Decode(m.Options)
		if err != nil {
			return objectionTo(err, true)
		}
		s, err := settings()
		if err != nil {
			return err
		}
		s.Options = options
		if err := configure(s); errors.Is(err, sdk.ErrInvalid) {
			return objectionTo(c.Refused(err), false)
		} else if err != nil {
			return fmt.Errorf("configure: %w", err)
		}
		return nil
	}
}

// objection is an error in the options of a plugin. Its text is brief, for a
// line of a log or a list; it unwraps to the whole.
type objection struct {
	diags *config.Diagnostics
	host  bool // found by the host, against the declared options; false: the plugin itself refuses
}

func (o *objection) Error() string { return o.diags.Brief() }
func (o *objection) Unwrap() error { return o.diags }

func objectionTo(err error, host bool) error {
	var diags *config.Diagnostics
	if !errors.As(err, &diags) {
		return err
	}
	return &objection{diags, host}
}

// firstStarts waits for the first start of each plugin to succeed or fail. The
// error says that a plugin does not have the options in the configuration. A
// plugin that cannot start, or refuses its options, is not an error: the
// supervisor keeps trying.
func firstStarts(list []*plugin.Plugin) error {
	for _, p := range list {
		var o *objection
		if errors.As(<-p.First(), &o) && o.host {
			return o.diags
		}
	}
	return nil
}

// spec combines the settings in the plugin's own block, if it has one, with the
// path of its file.
func (h *Host) spec(c config.PluginConfig) (plugin.Spec, error) {
	if at, ok := h.debugged[c.Plugin]; ok {
		return plugin.Spec{Name: c.Plugin, Kind: c.Kind, Path: at.Addr.String, Reattach: &at}, nil
	}
	for _, block := range h.cfg.Plugins {
		if block.Name != c.Plugin {
			continue
		}
		spec := plugin.Spec{
			Name: block.Name, Kind: c.Kind, Path: block.Command, Args: block.Args, Env: block.Env,
			SHA256: block.SHA256, Memory: block.Limits.Memory, Timeout: block.Limits.Timeout,
			Read: block.Read, Write: block.Write, Network: block.Network && c.Kind == sdk.KindDriver,
			State: block.Limits.State, Grants: block.Grants,
		}
		if block.Wasm != "" {
			spec.Path = block.Wasm
		}
		if spec.Path != "" {
			if _, err := os.Stat(spec.Path); errors.Is(err, fs.ErrNotExist) {
				return spec, c.Missing(block)
			}
			return spec, nil
		}
		found, err := h.find(c)
		spec.Path = found.Path
		return spec, err
	}
	return h.find(c)
}

func (h *Host) find(c config.PluginConfig) (plugin.Spec, error) {
	spec, err := h.plugins.Find(c.Kind, c.Plugin)
	spec.Network = c.Kind == sdk.KindDriver // databases are far away
	if errors.Is(err, sdk.ErrNotFound) {
		return spec, fmt.Errorf("%w\n%w", c.Unknown(h.plugins.Available(c.Kind)), err)
	}
	return spec, err
}
