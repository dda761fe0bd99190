package main

import (
	"context"

	"google.golang.org/grpc"

	"github.com/imgcache/imgcache-host/pluginproto"
	"github.com/imgcache/imgcache-host/pluginproto/abi"
	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
)

// plugin says what it is.
type plugin struct {
	pluginv1.UnimplementedPluginServiceServer
	h *hostile
}

func (p *plugin) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	m := sdk.Manifest{Name: "hostile", Version: "1.0.0", Kind: sdk.KindPolicy}
	switch p.h.kind {
	case "driver":
		m.Kind, m.Capabilities = sdk.KindDriver, []sdk.Capability{sdk.CapNodes, sdk.CapHeartbeat}
	case "scorer":
		m.Capabilities = []sdk.Capability{sdk.CapScore}
	case "stateful":
		m.Capabilities = []sdk.Capability{sdk.CapStateful, sdk.CapSnapshot}
	}
	return pluginproto.FromManifest(m), nil
}

func (p *plugin) Configure(_ context.Context, in *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	p.h.state = in.GetStateDir()
	return &pluginv1.ConfigureResponse{}, nil
}

// driver forgets all it is told.
type driver struct {
	pluginv1.UnimplementedDriverServiceServer
}

func (*driver) List(*pluginv1.ListRequest, grpc.ServerStreamingServer[pluginv1.ListResponse]) error {
	return nil
}

func (*driver) Apply(context.Context, *pluginv1.ApplyRequest) (*pluginv1.ApplyResponse, error) {
	return &pluginv1.ApplyResponse{}, nil
}

func (*driver) Nodes(context.Context, *pluginv1.NodesRequest) (*pluginv1.NodesResponse, error) {
	return &pluginv1.NodesResponse{}, nil
}

func (*driver) Heartbeat(context.Context, *pluginv1.HeartbeatRequest) (*pluginv1.HeartbeatResponse, error) {
	return &pluginv1.HeartbeatResponse{}, nil
}

// policy finds all images equal.
type policy struct {
	pluginv1.UnimplementedPolicyServiceServer
}

func (*policy) Score(_ context.Context, in *pluginv1.ScoreRequest) (*pluginv1.ScoreResponse, error) {
	_, records, err := abi.Records(nil, in.GetRecords())
	return &pluginv1.ScoreResponse{Scores: make([]float64, len(records))}, pluginproto.FromError(err)
}

func (*policy) Observe(context.Context, *pluginv1.ObserveRequest) (*pluginv1.ObserveResponse, error) {
	return &pluginv1.ObserveResponse{}, nil
}

func (*policy) Select(context.Context, *pluginv1.SelectRequest) (*pluginv1.SelectResponse, error) {
	return &pluginv1.SelectResponse{}, nil
}

func (*policy) Snapshot(context.Context, *pluginv1.SnapshotRequest) (*pluginv1.SnapshotResponse, error) {
	return &pluginv1.SnapshotResponse{Snapshot: []byte("nothing")}, nil
}

func (*policy) Restore(context.Context, *pluginv1.RestoreRequest) (*pluginv1.RestoreResponse, error) {
	return &pluginv1.RestoreResponse{}, nil
}
