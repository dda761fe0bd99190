package host

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/host/shadow"
	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

// openWatchers makes the watchers, which see each request: the trace and the
// shadow policies. A single command has none.
func (h *Host) openWatchers() error {
	if h.offline {
		return nil
	}
	if t := h.cfg.Cache.Trace; t.Path != "" {
		h.trace = trace.NewRecorder(trace.RecorderConfig{Path: t.Path, MaxSize: t.MaxSize, Files: t.Files, Log: h.log})
		h.closers = append(h.closers, h.trace.Close)
	}
	if len(h.cfg.Cache.Shadow) == 0 {
		return nil
	}
	set := shadow.Config{Capacity: uint64(h.cfg.Cache.MaxSize), Log: h.log}
	for i, c := range append([]config.PluginConfig{h.cfg.Cache.Policy}, h.cfg.Cache.Shadow...) {
		p, err := h.shadowPlugin(c)
		if err != nil {
			return err
		}
		h.tried = append(h.tried, p)
		set.Policies = append(set.Policies, shadow.Policy{Name: c.Name, Plugin: c.Plugin, Active: i == 0, Open: func() (any, uint64) {
			return h.opened(p)
		}})
	}
	h.shadow = shadow.New(set)
	h.closers = append(h.closers, h.shadow.Close)
	return nil
}

// shadowPlugin returns the plugin of a shadow policy, which is always separate
// from that of the active policy.
func (h *Host) shadowPlugin(c config.PluginConfig) (*plugin.Plugin, error) {
	spec, err := h.spec(c)
	if err != nil {
		return nil, err
	}
	if spec.Reattach != nil {
		return nil, fmt.Errorf("%w: the policy %s is being debugged and cannot run twice; leave out shadow for now", sdk.ErrInvalid, c.Plugin)
	}
	spec.Shadow = true
	return h.plugins.Plugin(spec, h.setup(c, func() (sdk.Settings, error) { return sdk.Settings{}, nil })), nil
}

// opened returns a plugin in the form that its manifest declares, nil while it
// does not run.
func (h *Host) opened(p *plugin.Plugin) (policy any, start uint64) {
	start = p.Epoch()
	switch {
	case !p.Running():
		return nil, start
	case p.Manifest().Has(sdk.CapStateful):
		return struct{ sdk.Stateful }{p.Stateful()}, start // hides sdk.Scorer, which the client of every plugin implements
	}
	return p.Scorer(), start
}

// watch returns a function that tells all watchers; nil: there are none.
func (h *Host) watch() func(trace.Access) {
	switch {
	case h.trace != nil && h.shadow != nil:
		return func(a trace.Access) {
			h.trace.Add(a)
			h.shadow.Add(a)
		}
	case h.trace != nil:
		return h.trace.Add
	case h.shadow != nil:
		return h.shadow.Add
	}
	return nil
}

// Policies implements [httpd.Plugins].
func (h *Host) Policies() shadow.Report {
	report := shadow.Report{Policies: []shadow.Status{}}
	if h.shadow != nil {
		report = h.shadow.Report(h.cache.Images())
	}
	if h.trace != nil {
		stats := h.trace.Stats()
		report.Trace = &stats
	}
	return report
}

// metrics are those of the plugins and of the watchers.
func (h *Host) metrics() []prometheus.Collector {
	list := []prometheus.Collector{h.plugins}
	if h.shadow != nil {
		list = append(list, h.shadow)
	}
	if h.trace == nil {
		return list
	}
	counter := func(name, help string, value func(trace.RecorderStats) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "imgcache_" + name, Help: help}, func() float64 {
			return float64(value(h.trace.Stats()))
		})
	}
	return append(list,
		counter("trace_requests_total", "Requests that were recorded.", func(s trace.RecorderStats) uint64 { return s.Recorded }),
		counter("trace_lost_total", "Requests that could not be recorded.", func(s trace.RecorderStats) uint64 { return s.Lost }),
	)
}
