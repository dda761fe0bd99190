package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/config"
	"github.com/imgcache/imgcache-host/host/httpd"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/host/store"
)

// offlinePatience is how long a command waits for the plugins and the records
// before it goes on without them: more than a driver on this machine takes, and
// less than a person is willing to wait.
const offlinePatience = 5 * time.Second

// Offline is the service for a single command while the real one does not run:
// the cache directory, under its lock, with the native API on a connection in
// memory. It fetches nothing and prunes nothing by itself.
type Offline struct {
	host   *Host
	server *http.Server
	pipe   *pipe
	done   chan struct{} // closed when the server has ended
}

// LockedError says that another process uses the cache directory.
type LockedError = store.LockedError

// OpenOffline opens the directory of a configuration, which must exist, and
// starts its driver, so that hits and times come from the records and the driver
// learns what the command does. With advice it starts the policy too. If a
// plugin is not up in time, it says so in the log and goes on without: the
// changes wait in the record log for the next start. If another process uses the
// directory, the error is a [*LockedError].
func OpenOffline(ctx context.Context, cfg *config.Config, log *slog.Logger, version string, advice bool) (o *Offline, err error) {
	if _, err := os.Stat(cfg.Cache.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no cache directory %s: %w", cfg.Cache.Dir, fs.ErrNotExist)
	}
	h := &Host{log: log, version: version, offline: true, optionErrors: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	if h.cfg, err = h.apart(cfg); err != nil {
		return nil, err
	}
	settings := engineConfig(h.cfg)
	settings.Offline = true
	if err := h.assemble(settings); err != nil {
		return nil, err
	}
	if err := h.store.Open(); err != nil { // the engine can do without, but not a command
		return nil, err
	}
	if err := h.settle(ctx, advice); err != nil {
		return nil, err
	}
	o = &Offline{host: h, pipe: newPipe(), done: make(chan struct{})}
	handler := h.service().Handler(httpd.Faces{Admin: true, Trusted: true})
	o.server = &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(o.done)
		_ = o.server.Serve(o.pipe) // until Close
	}()
	return o, nil
}

// apart returns a configuration with a run directory of its own, because this
// user may not be allowed to create that of the service.
func (h *Host) apart(cfg *config.Config) (*config.Config, error) {
	base := os.TempDir()
	if len(base) > 30 {
		base = "/tmp" // sockets have short paths
	}
	dir, err := os.MkdirTemp(base, "imgcache-")
	if err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	h.closers = append(h.closers, func() error { return os.RemoveAll(dir) })
	own := *cfg
	own.Node.RunDir = dir
	return &own, nil
}

// settle starts the plugins and the engine, and waits until all files are known
// and the records are merged.
func (h *Host) settle(ctx context.Context, advice bool) error {
	wanted := []*plugin.Plugin{h.driver.Load()}
	if advice {
		wanted = append(wanted, h.policy)
	}
	h.runPlugins(wanted...)
	limited, cancel := context.WithTimeout(ctx, offlinePatience)
	defer cancel()
	select {
	case err := <-h.optionErrors:
		if err != nil {
			return err
		}
	case <-limited.Done():
	}
	h.cache.Start()
	if err := h.cache.Scanned(ctx); err != nil {
		return err
	}
	if h.driver.Load().Epoch() > 0 {
		_ = h.cache.Merged(limited) // if it fails, the warning below says so
	}
	if u := h.cache.Usage(); u.Records != "ready" {
		h.log.Warn("the driver's records are not available: hits and times come from the record log and the files")
	}
	for _, p := range h.plugins.List() {
		if p.State != "running" {
			h.log.Warn("a plugin does not run", "plugin", p.Name, "kind", p.Kind, "error", p.LastError)
		}
	}
	return nil
}

// Dial connects to the native API.
func (o *Offline) Dial(ctx context.Context) (net.Conn, error) { return o.pipe.dial(ctx) }

// Close ends the service. Changes that the driver did not take wait in the
// record log.
func (o *Offline) Close() error {
	err := o.server.Close()
	<-o.done
	return errors.Join(err, o.host.Close())
}

// pipe is a listener in memory.
type pipe struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipe() *pipe { return &pipe{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipe) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements [net.Listener].
func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (p *pipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr implements [net.Listener].
func (p *pipe) Addr() net.Addr { return &net.UnixAddr{Name: "offline", Net: "unix"} }
