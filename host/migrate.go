package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/cache/records"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/httpd"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/sdk"
)

// DriverStatus implements [httpd.Drivers].
func (h *Host) DriverStatus() httpd.DriverStatus {
	return httpd.DriverStatus{
		Driver: h.cache.RecordsWith(), Configured: h.cfg.Cache.Driver.String(), Migration: h.cache.Migration(),
	}
}

// Migrate implements [httpd.Drivers]: it starts the plugin of the other driver
// beside the running one, and at the end stops the one that does not keep the
// records.
func (h *Host) Migrate(ctx context.Context, o httpd.MigrateOptions, tell func(records.Progress)) (records.Report, error) {
	if !h.migrating.TryLock() {
		return records.Report{}, fmt.Errorf("%w: the records are being moved already", cache.ErrConflict)
	}
	defer h.migrating.Unlock()
	to, err := h.target(o)
	if err != nil {
		return records.Report{}, err
	}
	p, err := h.startDriver(ctx, to)
	if err != nil {
		return records.Report{}, err
	}
	target := records.Target{Name: to.String(), Driver: p.Driver(), Bare: bare(to, p.Manifest()), DryRun: o.DryRun}
	report, err := h.cache.Migrate(ctx, target, tell)
	unused := p
	if report.Moved {
		unused = h.driver.Swap(p)
	}
	stopped := h.plugins.Stop(unused)
	if errors.Is(err, records.ErrDifferent) { // which the report tells better
		err = nil
	}
	return report, errors.Join(err, stopped)
}

// target finds the driver to which the records are to move.
func (h *Host) target(o httpd.MigrateOptions) (config.PluginConfig, error) {
	now := h.cache.RecordsWith()
	if o.From != "" && o.From != now {
		return config.PluginConfig{}, fmt.Errorf("%w: the running service keeps its records with %s, so they cannot be moved from %s; stop the service and repeat the command", cache.ErrConflict, now, o.From)
	}
	if o.To == now {
		return config.PluginConfig{}, fmt.Errorf("%w: %s keeps the records already", cache.ErrConflict, now)
	}
	to, err := h.cfg.Driver(o.To)
	if err != nil {
		return to, fmt.Errorf("%w: %w The configuration was read when the service was started", sdk.ErrInvalid, err)
	}
	return to, nil
}

// startDriver starts the plugin of a driver. If the first start fails, the
// plugin is stopped.
func (h *Host) startDriver(ctx context.Context, c config.PluginConfig) (*plugin.Plugin, error) {
	p, err := h.newDriver(c)
	if err != nil {
		return nil, err
	}
	p.Run(h.cache.DriverUp)
	select {
	case err = <-p.First():
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err == nil {
		return p, nil
	}
	kind := sdk.ErrUnavailable
	if errors.As(err, new(*objection)) {
		kind = sdk.ErrInvalid
	}
	return nil, errors.Join(fmt.Errorf("%w: %s does not start: %w", kind, c, err), h.plugins.Stop(p))
}

// newDriver returns the plugin of a driver, not started yet.
func (h *Host) newDriver(c config.PluginConfig) (*plugin.Plugin, error) {
	spec, err := h.spec(c)
	if err != nil {
		return nil, err
	}
	return h.plugins.Plugin(spec, h.setup(c, func() (sdk.Settings, error) { return h.driverSettings(c) })), nil
}

// bare reports whether a driver works on the records of Glance, which have fewer
// fields than ours.
func bare(c config.PluginConfig, m sdk.Manifest) bool {
	options, err := c.Decode(m.Options)
	return err == nil && (options.Text("format") == "glance" || options.Bool("glance_tables"))
}
