package httpd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// maxHeader bounds the header of a request: ours are below 1 KiB, a token
	// of OpenStack may take some KiB more.
	maxHeader = 16 << 10

	// cutTimeout is how long handlers may take to return once their
	// connections are cut and their contexts have ended.
	cutTimeout = 5 * time.Second
)

// Limits bounds what the clients of a listener may hold on to. A zero value
// stands for the default.
type Limits struct {
	MaxConnections int           // at once, further ones wait to be accepted; default 4096
	HeaderTimeout  time.Duration // until the request's header is read; default 10s
	IdleTimeout    time.Duration // between two requests of a connection; default 2m
	WriteStall     time.Duration // a client that takes no byte for so long is dropped; default 1m
	MinRate        int64         // bytes a second; a client that takes fewer for the time of WriteStall is dropped; default none
	DrainTimeout   time.Duration // running requests have so long to end; default 30s
}

func (l Limits) withDefaults() Limits {
	return Limits{
		MaxConnections: cmp.Or(l.MaxConnections, 4096),
		HeaderTimeout:  cmp.Or(l.HeaderTimeout, 10*time.Second),
		IdleTimeout:    cmp.Or(l.IdleTimeout, 2*time.Minute),
		WriteStall:     cmp.Or(l.WriteStall, time.Minute),
		MinRate:        l.MinRate,
		DrainTimeout:   cmp.Or(l.DrainTimeout, 30*time.Second),
	}
}

// Serve answers the connections of ln with h until ctx ends, then accepts no
// more and waits for the running requests. Those that outlast the drain timeout
// are cut, which is an error. Serve closes ln, and when it returns no handler
// runs any more, unless the error says so.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, o Limits) error {
	o = o.withDefaults()
	requests, cutRequests := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), stopKey{}, ctx))
	defer cutRequests()
	var connections sync.WaitGroup
	srv := newServer(requests, h, o, &connections)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(newListener(ln, o)) }()

	select {
	case err := <-failed:
		cutRequests()
		_ = srv.Close()
		return errors.Join(fmt.Errorf("accept on %s: %w", ln.Addr(), err), wait(&connections))
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.DrainTimeout)
	defer cancel()
	err := srv.Shutdown(drain)
	<-failed // nothing is accepted any more
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("drain %s: requests were cut after %v", ln.Addr(), o.DrainTimeout)
	}
	cutRequests()
	_ = srv.Close()
	return errors.Join(err, wait(&connections))
}

// errStopping ends what need not be waited for.
var errStopping = fmt.Errorf("the service is stopping: %w", sdk.ErrUnavailable)

// stopKey is where a request's context has that which ends when the service
// begins to stop.
type stopKey struct{}

// untilStop returns the context of r for work that no client misses much: it
// need not be waited for when the service stops.
func untilStop(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(r.Context())
	release := func() bool { return true }
	if stop, ok := ctx.Value(stopKey{}).(context.Context); ok {
		release = context.AfterFunc(stop, func() { cancel(errStopping) })
	}
	return ctx, func() {
		release()
		cancel(nil)
	}
}

// newServer makes a server whose requests end with ctx, and which counts its
// connections.
func newServer(ctx context.Context, h http.Handler, o Limits, connections *sync.WaitGroup) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // images over HTTP/2 were measured at 0.17 to 0.66 of the speed
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: o.HeaderTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withConn,
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed, http.StateHijacked:
				connections.Done()
			}
		},
	}
}

// wait waits for the goroutines of all connections.
func wait(connections *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		connections.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(cutTimeout):
		return fmt.Errorf("handlers still run %v after their connections were cut", cutTimeout)
	}
}
