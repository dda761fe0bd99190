package plugin

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/imgcache/imgcache-host/pluginproto"
	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

// bare is a plugin without the library of go-plugin, which is told of each
// stream that the host opens.
type bare struct {
	pluginv1.UnimplementedPluginServiceServer
	opened func(method string)
}

func (bare) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	return pluginproto.FromManifest(manifest), nil
}

func (b bare) serve(l net.Listener) *grpc.Server {
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		b.opened(method)
		return status.Error(codes.Unimplemented, method)
	}))
	pluginv1.RegisterPluginServiceServer(s, b)
	pluginv1.RegisterPolicyServiceServer(s, overdone{})
	go func() { _ = s.Serve(l) }()
	return s
}

// serveBare makes the process such a plugin, which logs what is opened.
func serveBare() {
	path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	bare{opened: func(method string) { serve.Logger().Info("opened " + method) }}.serve(l)
	fmt.Print(in(path))
	select {}
}

// TestNoBroker: the host does not open the stream on which a plugin would name
// addresses to connect to.
func TestNoBroker(t *testing.T) {
	e := newPlace(t)
	l, err := net.Listen("unix", filepath.Join(e.path, "s"))
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan string, 9)
	server := bare{opened: func(method string) { opened <- method }}.serve(l)
	t.Cleanup(server.Stop)
	if err := e.take(l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///unused", append((&child{place: e}).dialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	const broker, stdio = "/plugin.GRPCBroker/StartStream", "/plugin.GRPCStdio/StreamStdio"
	if _, err := conn.NewStream(t.Context(), desc, broker); status.Code(err) != codes.Unimplemented {
		t.Errorf("the stream of the broker: %v", err)
	}
	if _, err := conn.NewStream(t.Context(), desc, stdio); err != nil {
		t.Error(err)
	}
	if got := <-opened; got != stdio {
		t.Errorf("%s was opened, want %s alone", got, stdio)
	}

	s := newStage(t)
	if _, err := s.Start(t.Context(), spec("bare")); err != nil {
		t.Fatal(err)
	}
	until(t, "the outputs are asked for", func() bool { return strings.Contains(s.log.String(), "opened "+stdio) })
	if strings.Contains(s.log.String(), broker) {
		t.Error("go-plugin has opened the stream of the broker")
	}
}
