package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/httpd"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/sdk"
)

// startDriver starts the plugin that keeps the records.
func (h *Host) startDriver(ctx context.Context) (sdk.Driver, error) {
	p, err := h.startPlugin(ctx, h.cfg.Cache.Driver, sdk.Settings{
		CacheDir: h.cfg.Cache.Dir,
		StateDir: filepath.Join(h.cfg.Node.DataDir, "plugins", h.cfg.Cache.Driver.Plugin),
		Node:     h.cfg.Node.Name, Instance: h.store.Instance(),
	})
	if err != nil {
		return nil, err
	}
	return p.Driver(), nil
}

// startPolicy starts the plugin that advises eviction.
func (h *Host) startPolicy(ctx context.Context) (cache.Policy, error) {
	p, err := h.startPlugin(ctx, h.cfg.Cache.Policy, sdk.Settings{})
	if err != nil {
		return cache.Policy{}, err
	}
	policy := cache.Policy{Name: h.cfg.Cache.Policy.Plugin, Epoch: p.Epoch}
	if p.Manifest().Has(sdk.CapStateful) {
		policy.Stateful = p.Stateful()
	} else {
		policy.Scorer = p.Scorer()
	}
	return policy, nil
}

// startPlugin finds and starts the plugin that a driver or policy block
// names, and gives it its options.
func (h *Host) startPlugin(ctx context.Context, c config.PluginConfig, settings sdk.Settings) (*plugin.Plugin, error) {
	spec, err := h.spec(c)
	if err != nil {
		return nil, err
	}
	p, err := h.plugins.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	if settings.Options, err = c.Decode(p.Manifest().Options); err != nil {
		return nil, err
	}
	if err := p.Configure(ctx, settings); err != nil {
		return nil, c.Refused(err)
	}
	return p, nil
}

// spec joins what the plugin's own block says, if it has one, with where its
// file is found.
func (h *Host) spec(c config.PluginConfig) (plugin.Spec, error) {
	for _, block := range h.cfg.Plugins {
		if block.Name != c.Plugin {
			continue
		}
		spec := plugin.Spec{
			Name: block.Name, Kind: c.Kind, Path: block.Command, Args: block.Args, Env: block.Env,
			SHA256: block.SHA256, Memory: block.Limits.Memory, Timeout: block.Limits.Timeout,
		}
		if block.Wasm != "" {
			spec.Path = block.Wasm
		}
		if spec.Path != "" {
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
	if errors.Is(err, sdk.ErrNotFound) {
		return spec, fmt.Errorf("%w\n%w", c.Unknown(h.plugins.Available(c.Kind)), err)
	}
	return spec, err
}

// openOrigins makes the origins of the configuration.
func openOrigins(list []config.Origin) (*origin.Set, error) {
	var mounts []origin.Mount
	for _, o := range list {
		m := origin.Mount{Prefix: o.Prefix}
		terms := originTerms(o)
		switch o.Type {
		case config.OriginDirectory:
			m.Origin = origin.NewDirectory(o.Name, o.Path, terms)
		case config.OriginHTTP:
			web, err := origin.NewHTTP(origin.HTTPConfig{
				Name: o.Name, Endpoint: o.Endpoint, ConnectTimeout: o.ConnectTimeout, IdleTimeout: o.IdleTimeout,
				Headers: o.Headers, AllowRedirects: o.AllowRedirects, Terms: terms,
			})
			if err != nil {
				return nil, fmt.Errorf("origin %q: %w", o.Name, err)
			}
			m.Origin = web
		default:
			return nil, fmt.Errorf("origin %q: type %q is not known", o.Name, o.Type)
		}
		m.Origin = origin.Bound(m.Origin)
		mounts = append(mounts, m)
	}
	return origin.New(mounts...)
}

func originTerms(o config.Origin) origin.Terms {
	return origin.Terms{
		RevalidateAfter: o.RevalidateAfter, NegativeTTL: o.NegativeTTL, FailWhenDown: o.OnOriginDown == "fail",
		Concurrency: o.Concurrency, Bandwidth: o.Bandwidth, MinRate: o.MinRate,
	}
}

// engineConfig says in the engine's words what the configuration sets. What
// the engine works with is added by the caller.
func engineConfig(cfg *config.Config) cache.Config {
	c := cfg.Cache
	return cache.Config{
		MaxSize: c.MaxSize, Hard: c.Limit == config.LimitHard, StallTime: c.StallTime,
		MaxImageSize: c.MaxImageSize, AdmitAfter: c.AdmitAfter, VerifyReads: c.VerifyReads, ScrubRate: c.Scrub.Bandwidth,

		HighWatermark: c.Prune.HighWatermark, LowWatermark: c.Prune.LowWatermark,
		MinAge: c.Prune.MinAge, MinFree: c.Prune.MinFree, PruneInterval: c.Prune.Interval,

		Retries: c.Fill.Retries, KeepFilling: c.Fill.KeepFilling, RangesInFill: c.Fill.RangesInFill,
		Fills: c.Fill.Concurrency, FillRate: c.Fill.Bandwidth, ColdPerClient: c.Fill.ColdPerClient,

		Prefetchers: c.Prefetch.Workers,
		DropFills:   cfg.Shutdown.Fills == "abort",
		Pins:        pins(cfg.Pins),
	}
}

// pins says of each image how long it is pinned, and where that stands. The
// engine knows what to do with an image of several blocks.
func pins(blocks []config.Pin) []cache.Pin {
	var list []cache.Pin
	for _, b := range blocks {
		for _, id := range b.Images {
			list = append(list, cache.Pin{ID: id, Until: b.Until, From: fmt.Sprintf("pin %q of the configuration", b.Name)})
		}
	}
	return list
}

// serveWith makes the handler of every listener.
func (h *Host) serveWith(origins *origin.Set) error {
	service := httpd.New(httpd.Config{
		Engine: h.cache, Log: h.log, Version: h.version, Ready: h.ready,
		Resolve: func(path string) (string, error) {
			id, _, _, err := origins.ByPath(path)
			return id, err
		},
		Plugins:        func() any { return h.plugins.List() },
		PluginRestarts: h.restarts,
		Schedules:      func() any { return h.schedules.Status() },
	})
	for i, f := range h.faces {
		tokens, err := f.Tokens()
		if err != nil {
			return fmt.Errorf("listener %q: %w", f.Name, err)
		}
		h.faces[i].handler = service.Handler(httpd.Faces{
			Images: f.Serves(config.FaceImages), Admin: f.Serves(config.FaceAdmin), Metrics: f.Serves(config.FaceMetrics),
			Trusted: f.Network == config.Unix, Tokens: tokens,
		})
	}
	return nil
}

// ready says what keeps the service from doing all that it is configured for.
// Images are served all the same.
func (h *Host) ready() (bool, []string) {
	var reasons []string
	u := h.cache.Usage()
	if u.Disk != "ok" {
		reasons = append(reasons, "disk: "+u.Disk)
	}
	if u.PinsFull {
		reasons = append(reasons, "pins: pinned images fill the cache, others are not stored")
	}
	if u.Records != "ready" {
		reasons = append(reasons, "records: "+u.Records)
	}
	for _, p := range h.plugins.List() {
		if p.State != "running" {
			reasons = append(reasons, fmt.Sprintf("%s plugin %s: %s: %s", p.Kind, p.Name, p.State, p.LastError))
		}
	}
	return len(reasons) == 0, reasons
}

func (h *Host) restarts() map[string]uint64 {
	counts := map[string]uint64{}
	for _, p := range h.plugins.List() {
		counts[p.Name] += p.Restarts
	}
	return counts
}
