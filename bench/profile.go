package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

// profiled does something while imgcache-host takes a profile of its CPU for a
// second, which is kept under the name. Without a name, or a directory for
// profiles, it just does it.
func (p *plan) profiled(ctx context.Context, s *server, name string, do func() error) error {
	if p.profiles == "" || name == "" {
		return do()
	}
	taken := make(chan error, 1)
	go func() { taken <- s.takeProfile(ctx, filepath.Join(p.profiles, name+".pprof")) }()
	return errors.Join(do(), <-taken)
}

// takeProfile asks the service on its admin socket.
func (s *server) takeProfile(ctx context.Context, path string) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "run", "admin.sock"))
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin/debug/pprof/profile?seconds=1", nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s", response.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, response.Body)
	return errors.Join(err, f.Close())
}
