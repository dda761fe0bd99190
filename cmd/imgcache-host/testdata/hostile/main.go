// Command hostile is a plugin that means harm. Its arguments say what it is
// (scorer, stateful or driver), what it does, and in which call; "start" is
// before the handshake, "Probe" each time after the first that it is asked what
// it is. All else it does well. The last one says how many bytes are many.
package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"strconv"
	"sync"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

// stderr is the real one: go-plugin puts a pipe in its place.
var stderr = os.Stderr

// hostile is the plugin.
type hostile struct {
	goplugin.NetRPCUnsupportedPlugin
	kind, deed, call string
	many             int

	once      sync.Once
	mu        sync.Mutex
	described int // times
	state     string
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(stderr, "hostile: want a kind, a deed, a call and a number of bytes")
		os.Exit(2)
	}
	h := &hostile{kind: os.Args[1], deed: os.Args[2], call: os.Args[3]}
	var err error
	if h.many, err = strconv.Atoi(os.Args[4]); err != nil || deeds[h.deed] == nil {
		fmt.Fprintf(stderr, "hostile: %s %q, %v\n", h.deed, os.Args[4], err)
		os.Exit(2)
	}
	if h.call == "start" {
		h.act(h.call)
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: serve.Handshake,
		Plugins:         goplugin.PluginSet{serve.PluginName: h},
		Logger:          hclog.NewNullLogger(),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			const unlimited = 1 << 31
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(unlimited), grpc.MaxSendMsgSize(unlimited),
				grpc.UnaryInterceptor(h.unary), grpc.StreamInterceptor(h.stream))...)
		},
	})
}

// GRPCServer registers the services, of which each call is intercepted.
func (h *hostile) GRPCServer(_ *goplugin.GRPCBroker, srv *grpc.Server) error {
	pluginv1.RegisterPluginServiceServer(srv, &plugin{h: h})
	if h.kind == "driver" {
		pluginv1.RegisterDriverServiceServer(srv, &driver{})
	} else {
		pluginv1.RegisterPolicyServiceServer(srv, &policy{})
	}
	return nil
}

// GRPCClient is never used.
func (*hostile) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func (h *hostile) unary(ctx context.Context, in any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if h.name(info.FullMethod) != h.call {
		return next(ctx, in)
	}
	if out, err := h.act(h.call); out != nil || err != nil {
		return out, err
	}
	return next(ctx, in)
}

func (h *hostile) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if h.name(info.FullMethod) != h.call {
		return next(srv, s)
	}
	if h.deed == "stream" {
		return h.pour(s)
	}
	out, err := h.act(h.call)
	if out != nil {
		err = s.SendMsg(out)
	}
	if out != nil || err != nil {
		return err
	}
	return next(srv, s)
}

// name returns the name of a call as the arguments have it.
func (h *hostile) name(method string) string {
	name := path.Base(method)
	if name != "Describe" {
		return name
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.described++; h.described > 1 {
		return "Probe"
	}
	return name
}

// act does the deed. An answer or an error takes the place of a good answer.
func (h *hostile) act(call string) (out any, err error) {
	h.say("%s in %s", h.deed, call)
	return deeds[h.deed](h, call)
}

// say tells the test what happens.
func (h *hostile) say(format string, args ...any) {
	fmt.Fprintf(stderr, "hostile: "+format+"\n", args...)
}
