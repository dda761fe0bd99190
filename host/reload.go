package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/sdk"
)

// Plugins implements [httpd.Plugins].
func (h *Host) Plugins() []plugin.Status { return h.plugins.List() }

// Reload implements [httpd.Plugins]. A policy that is tried too is reloaded in
// both places.
func (h *Host) Reload(ctx context.Context, name string) (plugin.Status, error) {
	var err error
	p, tried := h.driver.Load(), h.triedAs(name)
	switch {
	case name == h.policy.Name():
		p = h.policy
		if err = h.reloadPolicy(ctx); err == nil {
			err = reloadTried(ctx, tried)
		}
	case name == p.Name():
		err = h.reloadDriver(ctx, p)
	case len(tried) > 0:
		p, err = tried[0], reloadTried(ctx, tried)
	default:
		return plugin.Status{}, fmt.Errorf("%w: no plugin %s is running", cache.ErrNotFound, name)
	}
	switch {
	case err == nil:
		return p.Status(), nil
	case errors.Is(err, plugin.ErrBusy):
		return plugin.Status{}, fmt.Errorf("%w: %w", cache.ErrConflict, err)
	}
	kind := sdk.ErrUnavailable
	if errors.As(err, new(*objection)) {
		kind = sdk.ErrInvalid
	}
	return plugin.Status{}, fmt.Errorf("%w: %w", kind, err)
}

// triedAs returns the shadow policies of that name.
func (h *Host) triedAs(name string) (list []*plugin.Plugin) {
	for _, p := range h.tried {
		if p.Name() == name {
			list = append(list, p)
		}
	}
	return list
}

// reloadTried restarts shadow policies. They begin with an empty cache, as after
// each start.
func reloadTried(ctx context.Context, list []*plugin.Plugin) error {
	for _, p := range list {
		if err := p.Reload(ctx, func(context.Context, *plugin.Plugin, func()) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// reloadPolicy gives the new process the state of the old one. If the new one
// refuses the snapshot, as another version may, it is started once more and the
// images are replayed to it.
func (h *Host) reloadPolicy(ctx context.Context) error {
	swap := func(replay bool) error {
		return h.policy.Reload(ctx, func(ctx context.Context, next *plugin.Plugin, take func()) error {
			return h.cache.SwapPolicy(ctx, evict.Succession{
				Next: h.policyForm(next), Replay: replay,
				Take: func() evict.Policy {
					take()
					return h.policyForm(h.policy)
				},
			})
		})
	}
	err := swap(false)
	if errors.Is(err, evict.ErrRestore) {
		return swap(true)
	}
	return err
}

// reloadDriver requires that the new process lists all records.
func (h *Host) reloadDriver(ctx context.Context, p *plugin.Plugin) error {
	if !h.migrating.TryLock() {
		return fmt.Errorf("%w: the records are being moved", plugin.ErrBusy)
	}
	defer h.migrating.Unlock()
	return p.Reload(ctx, func(ctx context.Context, next *plugin.Plugin, _ func()) error {
		if err := next.Driver().List(ctx, func([]sdk.Entry) error { return nil }); err != nil {
			return fmt.Errorf("list the records: %w", err)
		}
		return nil
	})
}
