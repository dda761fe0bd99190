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

// firstStartPatience is how long the first starts of the plugins are waited
// for before anything is served, so that a misspelt option is found first. A
// driver is there after some 50 ms, a compiled module after 100 ms; one that
// hangs costs no more than this.
const firstStartPatience = 500 * time.Millisecond

// openPlugins prepares what plugins need, and starts none.
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

// reattach returns the plugins that run already because somebody debugs them.
// Where the configuration promises what cannot be kept for these, or does not
// use one, it is an error.
func (h *Host) reattach(text string) (map[string]serve.Reattach, error) {
	list, err := plugin.ParseReattach(text)
	if len(list) == 0 || err != nil {
		return nil, err
	}
	promised := ""
	switch {
	case h.cfg.Locked:
		promised = "the lock file " + h.cfg.PluginLock + " lets nothing run that it does not hold"
	case len(h.cfg.TrustedKeys) > 0:
		promised = "trusted_keys let nothing run that is not signed"
	case plugin.Confinement(h.cfg.Confinement) == plugin.Required:
		promised = `confinement = "required" lets nothing run without walls`
	}
	if promised != "" {
		return nil, fmt.Errorf("%w: %s is set, and %s: unset it, or debug with another configuration", sdk.ErrInvalid, plugin.ReattachEnv, promised)
	}
	for name, r := range list {
		if name != h.cfg.Cache.Driver.Plugin && name != h.cfg.Cache.Policy.Plugin {
			return nil, fmt.Errorf("%w: %s names %q, and this configuration uses the driver %s and the policy %s",
				sdk.ErrInvalid, plugin.ReattachEnv, name, h.cfg.Cache.Driver.Plugin, h.cfg.Cache.Policy.Plugin)
		}
		h.log.Warn("the plugin is one that somebody debugs: no sums, no walls, no deadlines", "plugin", name, "pid", r.Pid)
	}
	return list, nil
}

// findPlugins finds the driver and the policy that the configuration names.
// That there is no such plugin is an error with its place in the
// configuration.
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

// driverSettings are those that do not come from the driver's block. There are
// none while the cache directory is not open.
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

// runPlugins lets plugins start. The engine hears of each that is up, and typos
// of what the first starts show.
func (h *Host) runPlugins(list ...*plugin.Plugin) {
	for _, p := range list {
		switch p {
		case h.driver.Load():
			p.Run(h.cache.DriverUp)
		case h.policy:
			p.Run(func() { h.cache.SetPolicy(h.policyForm(h.policy)) })
		default: // one that is tried
			p.Run(nil)
		}
	}
	go func() { h.typos <- firstStarts(list) }()
}

// policyForm returns a plugin as the policy, in the form that it says it has.
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

// setup gives a plugin the options of its block, as it declares them at each
// start.
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

// objection is an error in the options of a plugin. In a line of a log or a
// list it is brief; it unwraps to all of it.
type objection struct {
	diags *config.Diagnostics
	typo  bool // by the plugin's declaration; else the plugin itself refuses
}

func (o *objection) Error() string { return o.diags.Brief() }
func (o *objection) Unwrap() error { return o.diags }

func objectionTo(err error, typo bool) error {
	var diags *config.Diagnostics
	if !errors.As(err, &diags) {
		return err
	}
	return &objection{diags, typo}
}

// firstStarts waits for the first start of each plugin to succeed or fail. The
// error says that a plugin does not have the options that it is given. That it
// cannot start, or refuses what it is given, is no error: the supervisor goes
// on trying.
func firstStarts(list []*plugin.Plugin) error {
	for _, p := range list {
		var o *objection
		if errors.As(<-p.First(), &o) && o.typo {
			return o.diags
		}
	}
	return nil
}

// spec joins what the plugin's own block says, if it has one, with where its
// file is found.
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
				return spec, c.Missing(spec.Path)
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
