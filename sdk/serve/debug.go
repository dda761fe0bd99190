package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/imgcache/imgcache-host/sdk"
)

// ReattachEnv is the environment variable of the service that names plugins
// which somebody else has started, for debugging: a JSON object of [Reattach]
// by the names of plugins.
const ReattachEnv = "IMGCACHE_REATTACH_PLUGINS"

// Reattach says where a plugin is that runs already. The form is that of
// Terraform's TF_REATTACH_PROVIDERS.
type Reattach struct {
	Protocol        string // "grpc"
	ProtocolVersion int    // of the contract
	Pid             int
	Addr            ReattachAddr
}

// ReattachAddr is where a plugin listens.
type ReattachAddr struct {
	Network string // "unix"
	String  string // path of the socket
}

// debug serves the plugin until it is interrupted, and prints how a service is
// told of it. The socket is in a directory for this user alone.
func debug(m sdk.Manifest, config *goplugin.ServeConfig) error {
	dir, err := os.MkdirTemp("", "imgcache-debug-")
	if err != nil {
		return fmt.Errorf("make a directory for the socket: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.Setenv(goplugin.EnvUnixSocketDir, dir); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	where, closed := make(chan *goplugin.ReattachConfig, 1), make(chan struct{})
	config.Test = &goplugin.ServeTestConfig{Context: ctx, ReattachConfigCh: where, CloseCh: closed}
	go goplugin.Serve(config)
	select {
	case at := <-where:
		if err := announce(m, at); err != nil {
			return err
		}
		<-closed
		return nil
	case <-closed:
		return fmt.Errorf("cannot listen on a socket in %s", dir)
	}
}

// announce prints the line that the service is started with.
func announce(m sdk.Manifest, at *goplugin.ReattachConfig) error {
	text, err := json.Marshal(map[string]Reattach{m.Name: {
		Protocol: string(at.Protocol), ProtocolVersion: sdk.Protocol, Pid: at.Pid,
		Addr: ReattachAddr{Network: at.Addr.Network(), String: at.Addr.String()},
	}})
	if err != nil {
		return err
	}
	_, err = fmt.Printf("# %s %s waits for a service that is started with\nexport %s='%s'\n", m.Kind, m.Name, ReattachEnv, text)
	return err
}
