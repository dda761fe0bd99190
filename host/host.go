// Package host assembles the service: store, plugins, origins, engine and
// faces. Everything else is in the packages below.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/httpd"
	"github.com/imgcache/imgcache-host/host/lock"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/host/schedule"
	"github.com/imgcache/imgcache-host/host/shadow"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

// Host is an assembled service.
type Host struct {
	cfg     *config.Config
	log     *slog.Logger
	version string
	offline bool // for one command, without listeners

	store        *store.Store
	plugins      *plugin.Supervisor
	admit        func(lock.Guard, plugin.Candidate) (string, error) // decides which plugins may run; nil: lock.Guard.Admit
	debugged     map[string]serve.Reattach                          // plugins that somebody debugs and has started, by name
	driver       atomic.Pointer[plugin.Plugin]                      // the one that keeps the records
	policy       *plugin.Plugin
	optionErrors chan error // from the first starts of the plugins: options that they do not have
	origins      *origin.Set
	peers        *origin.Peers // nil: other nodes are not asked
	heart        heartbeat     // of this node, to the driver
	cache        *cache.Cache
	trace        *trace.Recorder // nil: requests are not recorded
	shadow       *shadow.Set     // nil: no policies are tried
	tried        []*plugin.Plugin
	faces        []face // opened listeners

	schedules *schedule.Scheduler
	migrating sync.Mutex // held while records move to another driver

	closers []func() error // what was opened, in this order
}

// face is an open listener with what it serves.
type face struct {
	config.Listener
	ln      net.Listener
	handler http.Handler
}

// Run runs the service until the context ends, lets running transfers end
// within the drain timeout, and stops everything. Version is that of the
// program.
func Run(ctx context.Context, cfg *config.Config, log *slog.Logger, version string) error {
	h, err := New(ctx, cfg, log, version)
	if err != nil && ctx.Err() != nil {
		log.Info("stopped while starting", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(h.Serve(ctx), h.Close())
}

// New opens the cache directory, starts the plugins and opens the listeners. It
// does not wait long for plugins that are slow to start, or cannot. Errors in
// the configuration show the place in it.
func New(ctx context.Context, cfg *config.Config, log *slog.Logger, version string) (h *Host, err error) {
	h = &Host{cfg: cfg, log: log, version: version, optionErrors: make(chan error, 1)}
	h.heart.driver, h.heart.log = h.heartbeater, log
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
			h = nil
		}
	}()
	if err := h.assemble(engineConfig(cfg)); err != nil {
		return h, err
	}
	h.runPlugins(append([]*plugin.Plugin{h.driver.Load(), h.policy}, h.tried...)...)
	select {
	case err := <-h.optionErrors:
		if err != nil {
			return h, err
		}
	case <-time.After(firstStartPatience):
	case <-ctx.Done():
		return h, context.Cause(ctx)
	}
	if err := h.listen(ctx); err != nil {
		return h, err
	}
	return h, h.handlers()
}

// assemble makes the engine and finds the plugins. It adds to the settings what
// it opens.
func (h *Host) assemble(settings cache.Config) error {
	if err := h.openStore(); err != nil {
		return err
	}
	if err := h.openPlugins(); err != nil {
		return err
	}
	if err := h.findPlugins(); err != nil {
		return err
	}
	peers, err := h.openPeers()
	if err != nil {
		return err
	}
	if h.origins, err = openOrigins(h.cfg.Origins, peers, h.log); err != nil {
		return err
	}
	if err := h.openWatchers(); err != nil {
		return err
	}
	if err := findPinned(settings.Pins, h.origins); err != nil {
		return err
	}
	settings.Store, settings.Origins, settings.Log = h.store, h.origins, h.log
	settings.Watch = h.watch()
	settings.Driver, settings.Policy.Name = h.driver.Load().Driver(), h.cfg.Cache.Policy.Plugin
	if h.cache, err = cache.New(settings); err != nil {
		return err
	}
	h.closers = append(h.closers, h.cache.Close)
	h.schedules = newSchedules(h.cfg, h.cache, h.findImage, h.log)
	return nil
}

// openStore opens the cache directory. It is an error if the directory belongs
// to another process, or to a newer program. No other trouble is an error: the
// engine passes images through, says why, and tries again.
func (h *Host) openStore() error {
	h.store = store.New(store.Config{Dir: h.cfg.Cache.Dir, Logger: h.log})
	h.closers = append(h.closers, h.store.Close)
	err := h.store.Open()
	var locked *store.LockedError
	var newer *store.NewerError
	if errors.As(err, &locked) || errors.As(err, &newer) {
		return err
	}
	return nil
}

// Close stops what runs, in the opposite order of opening.
func (h *Host) Close() error {
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i]())
	}
	h.closers = nil
	return errors.Join(errs...)
}

// listen opens every listener, so that a port in use is an error at start.
func (h *Host) listen(ctx context.Context) error {
	for _, l := range h.cfg.Listeners {
		var ln net.Listener
		var err error
		if l.Network == config.Unix {
			if err = os.MkdirAll(filepath.Dir(l.Path), 0o750); err == nil {
				ln, err = httpd.ListenUnix(ctx, l.Path, l.Mode, l.Group)
			}
		} else {
			ln, err = httpd.ListenTCP(ctx, l.Address)
		}
		if err != nil {
			return fmt.Errorf("listener %q: %w", l.Name, err)
		}
		h.faces = append(h.faces, face{Listener: l, ln: ln})
		h.closers = append(h.closers, func() error {
			if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
		h.log.Info("listening", "listener", l.Name, "address", ln.Addr().String())
	}
	return nil
}

// Serve answers requests until the context ends and the running requests have
// ended or were cut. The engine's background work begins here. If a plugin was
// slow to start and has an error in its options, that ends Serve too.
func (h *Host) Serve(ctx context.Context) error {
	h.cache.Start()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		h.schedules.Run(ctx)
		return nil
	})
	group.Go(func() error {
		h.heart.run(ctx)
		return nil
	})
	group.Go(func() error {
		select {
		case err := <-h.optionErrors:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	for _, f := range h.faces {
		group.Go(func() error { return httpd.Serve(ctx, f.ln, f.handler, h.limits(f.Listener)) })
	}
	err := group.Wait()
	h.log.Info("stopping")
	return err
}

func (h *Host) limits(l config.Listener) httpd.Limits {
	return httpd.Limits{
		MaxConnections: l.Limits.MaxConnections, HeaderTimeout: l.Limits.HeaderTimeout,
		IdleTimeout: l.Limits.IdleTimeout, WriteStall: l.Limits.WriteStallTimeout, MinRate: l.Limits.MinRate,
		DrainTimeout: h.cfg.Shutdown.DrainTimeout,
	}
}
