package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/sdk"
)

// Reload starts a plugin that runs anew from its file, and returns its status.
// When that does not go well the plugin is what it was, and the error says why.
func (h *Host) Reload(ctx context.Context, name string) (any, error) {
	var err error
	p := h.driver.Load()
	switch {
	case name == h.policy.Name():
		p, err = h.policy, h.reloadPolicy(ctx)
	case name == p.Name():
		err = h.reloadDriver(ctx, p)
	default:
		return nil, fmt.Errorf("%w: no plugin %s runs", cache.ErrNotFound, name)
	}
	switch {
	case err == nil:
		return p.Status(), nil
	case errors.Is(err, plugin.ErrBusy):
		return nil, fmt.Errorf("%w: %w", cache.ErrConflict, err)
	}
	kind := sdk.ErrUnavailable
	if errors.As(err, new(*objection)) {
		kind = sdk.ErrInvalid
	}
	return nil, fmt.Errorf("%w: %w", kind, err)
}

// reloadPolicy gives the new process the state of the old one. One that does
// not take its snapshot, as that of another version, is started once more and
// sees the images replayed.
func (h *Host) reloadPolicy(ctx context.Context) error {
	swap := func(replay bool) error {
		return h.policy.Reload(ctx, func(ctx context.Context, next *plugin.Plugin, take func()) error {
			return h.cache.SwapPolicy(ctx, cache.Succession{
				Next: h.policyForm(next), Replay: replay,
				Take: func() cache.Policy {
					take()
					return h.policyForm(h.policy)
				},
			})
		})
	}
	err := swap(false)
	if errors.Is(err, cache.ErrRestore) {
		return swap(true)
	}
	return err
}

// reloadDriver wants the new process to list all records.
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
