// Package serve runs a driver or policy as a process of its own, which speaks
// gRPC to imgcache-host. A plugin's main function is
//
//	func main() { serve.Main(manifest, &driver{}) }
//
// Standard output belongs to the handshake; a plugin logs with [Logger], whose
// lines the host shows under the plugin's name.
package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
)

// Main serves impl, which implements sdk.Driver, sdk.Scorer or sdk.Stateful
// as m says, and whatever optional interfaces m declares. It returns only by
// ending the process: when the host goes away, or at once, with a sentence on
// standard error, when there is no host or impl does not fit m. With the
// argument --describe it prints m as JSON and ends; with --debug it serves until
// it is interrupted, for a service that is told so: see [ReattachEnv].
func Main(m sdk.Manifest, impl any) {
	if err := m.Fits(impl); err != nil {
		fmt.Fprintf(os.Stderr, "%s: the plugin is not what its manifest says: %v\n", m.Name, err)
		os.Exit(1)
	}
	switch {
	case asked("--describe"):
		exit(m, describe(os.Stdout, m))
	case asked("--debug"):
		exit(m, debug(m, config(m, impl)))
	case os.Getenv(Handshake.MagicCookieKey) != Handshake.MagicCookieValue:
		fmt.Fprintf(os.Stderr, "%s is a plugin of imgcache-host and is started by it: name it in a %s block, "+
			"run it with --describe to see what it is, or with --debug to debug it\n", m.Name, m.Kind)
		os.Exit(1)
	}
	watchLifeline()
	goplugin.Serve(config(m, impl))
	os.Exit(0)
}

// asked reports whether the only argument is a flag.
func asked(flag string) bool { return len(os.Args) == 2 && os.Args[1] == flag }

// exit ends the process, with a line on standard error if err is not nil.
func exit(m sdk.Manifest, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", m.Name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func config(m sdk.Manifest, impl any) *goplugin.ServeConfig {
	return &goplugin.ServeConfig{
		HandshakeConfig: Handshake,
		Plugins:         goplugin.PluginSet{PluginName: &services{manifest: m, impl: impl}},
		Logger:          hclog.NewNullLogger(), // go-plugin has nothing to say that a host would miss
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage),
				grpc.InitialWindowSize(Window), grpc.InitialConnWindowSize(Window))...)
		},
	}
}

func describe(w io.Writer, m sdk.Manifest) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(m)
}

// watchLifeline ends the process when the host does, however that happens.
func watchLifeline() {
	if os.Getenv(LifelineEnv) == "" {
		return
	}
	pipe := os.NewFile(LifelineFD, "lifeline")
	go func() {
		_, _ = io.Copy(io.Discard, pipe)
		os.Exit(0)
	}()
}

// stderr is the standard error of the process. While a plugin serves,
// os.Stderr is a pipe of go-plugin, whose lines arrive without level.
var stderr = os.Stderr

// Logger returns the log of the plugin: lines that the host understands, with
// their level and attributes.
func Logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: hclogNames}))
}

// hclogNames gives the fixed attributes the names that go-plugin's host side
// reads. An attribute of the author may have their names, but not their types.
func hclogNames(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch value := a.Value.Any().(type) {
	case time.Time:
		if a.Key == slog.TimeKey {
			return slog.String("@timestamp", value.Format("2006-01-02T15:04:05.000000Z07:00"))
		}
	case slog.Level:
		if a.Key == slog.LevelKey {
			return slog.String("@level", levelName(value))
		}
	case string:
		if a.Key == slog.MessageKey {
			a.Key = "@message"
		}
	}
	return a
}

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}

// services is the plugin as go-plugin wants it.
type services struct {
	goplugin.NetRPCUnsupportedPlugin
	manifest sdk.Manifest
	impl     any
}

// GRPCServer registers the services of the plugin's kind.
func (s *services) GRPCServer(_ *goplugin.GRPCBroker, srv *grpc.Server) error {
	pluginv1.RegisterPluginServiceServer(srv, &pluginServer{manifest: s.manifest, impl: s.impl})
	if d, ok := s.impl.(sdk.Driver); ok {
		pluginv1.RegisterDriverServiceServer(srv, &driverServer{driver: d})
	} else {
		pluginv1.RegisterPolicyServiceServer(srv, &policyServer{impl: s.impl})
	}
	return nil
}

// GRPCClient is the host's side, which does not use this package's.
func (s *services) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, sdk.ErrUnsupported
}
