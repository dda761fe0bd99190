package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/imgcache/imgcache-host/pluginproto"
	"github.com/imgcache/imgcache-host/pluginproto/abi"
	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
)

// pluginServer answers what every plugin answers.
type pluginServer struct {
	pluginv1.UnimplementedPluginServiceServer
	manifest sdk.Manifest
	impl     any
}

func (s *pluginServer) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	return pluginproto.FromManifest(s.manifest), nil
}

func (s *pluginServer) Configure(ctx context.Context, in *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	if c, ok := s.impl.(sdk.Configurer); ok {
		if err := c.Configure(ctx, pluginproto.ToSettings(in)); err != nil {
			return nil, pluginproto.FromError(err)
		}
	}
	out := &pluginv1.ConfigureResponse{}
	if n, ok := s.impl.(sdk.Noter); ok {
		for _, note := range n.Notes() {
			out.Notes = append(out.Notes, strings.ToValidUTF8(note, "\uFFFD"))
		}
	}
	return out, nil
}

// driverServer serves an sdk.Driver.
type driverServer struct {
	pluginv1.UnimplementedDriverServiceServer
	driver sdk.Driver
}

// listBatch is how many entries travel in a message: fewer cost more calls,
// more delay the first.
const listBatch = 1000

// List encodes and sends a message while the driver reads the records of the
// next.
func (s *driverServer) List(_ *pluginv1.ListRequest, out grpc.ServerStreamingServer[pluginv1.ListResponse]) error {
	messages, sent := make(chan *pluginv1.ListResponse), make(chan error, 1)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for m := range messages {
			if err := out.Send(m); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	err := s.driver.List(out.Context(), func(entries []sdk.Entry) error {
		for batch := range slices.Chunk(entries, listBatch) {
			select {
			case messages <- &pluginv1.ListResponse{Entries: pluginproto.FromEntries(batch)}:
			case <-gone:
				return errors.New("there is no connection to the host")
			}
		}
		return nil
	})
	close(messages)
	return pluginproto.FromError(errors.Join(err, <-sent))
}

func (s *driverServer) Apply(ctx context.Context, in *pluginv1.ApplyRequest) (*pluginv1.ApplyResponse, error) {
	b := pluginproto.ToBatch(in)
	err := b.Validate()
	if err == nil {
		err = s.driver.Apply(ctx, b)
	}
	return &pluginv1.ApplyResponse{}, pluginproto.FromError(err)
}

func (s *driverServer) Nodes(ctx context.Context, in *pluginv1.NodesRequest) (*pluginv1.NodesResponse, error) {
	l, ok := s.driver.(sdk.NodeLister)
	if !ok {
		return nil, unsupported(sdk.CapNodes)
	}
	nodes, err := l.Nodes(ctx, in.GetId())
	out := &pluginv1.NodesResponse{}
	for _, n := range nodes {
		out.Nodes = append(out.Nodes, pluginproto.FromNode(n))
	}
	return out, pluginproto.FromError(err)
}

func (s *driverServer) Heartbeat(ctx context.Context, _ *pluginv1.HeartbeatRequest) (*pluginv1.HeartbeatResponse, error) {
	h, ok := s.driver.(sdk.Heartbeater)
	if !ok {
		return nil, unsupported(sdk.CapHeartbeat)
	}
	return &pluginv1.HeartbeatResponse{}, pluginproto.FromError(h.Heartbeat(ctx))
}

// FrameScorer is implemented by a scoring policy that takes the frame of
// records as it came from the host, with whatever a later host has appended.
type FrameScorer interface {
	// ScoreFrame is sdk.Scorer's Score, and may be called concurrently;
	// scores has the length that the header says.
	ScoreFrame(ctx context.Context, frame []byte, scores []float64) error
}

// FrameObserver is the same for a stateful policy.
type FrameObserver interface {
	ObserveFrame(ctx context.Context, frame []byte) error
}

// policyServer serves an sdk.Scorer or sdk.Stateful.
type policyServer struct {
	pluginv1.UnimplementedPolicyServiceServer
	impl any
	turn sync.Mutex // of a scoring policy: a host sends the next call before it has the answer
}

func unsupported(c sdk.Capability) error {
	return pluginproto.FromError(fmt.Errorf("%w: the plugin lacks the capability %q", sdk.ErrUnsupported, c))
}

func (s *policyServer) Score(ctx context.Context, in *pluginv1.ScoreRequest) (*pluginv1.ScoreResponse, error) {
	p, ok := s.impl.(sdk.Scorer)
	if !ok {
		return nil, unsupported(sdk.CapScore)
	}
	scores, err := s.score(ctx, p, in.GetRecords())
	return &pluginv1.ScoreResponse{Scores: scores}, pluginproto.FromError(err)
}

func (s *policyServer) score(ctx context.Context, p sdk.Scorer, frame []byte) ([]float64, error) {
	if whole, ok := p.(FrameScorer); ok {
		h, err := abi.ParseHeader(frame, abi.RecordSize)
		if err != nil {
			return nil, err
		}
		scores := make([]float64, h.Count)
		return scores, whole.ScoreFrame(ctx, frame, scores)
	}
	now, records, err := abi.Records(nil, frame)
	if err != nil {
		return nil, err
	}
	scores := make([]float64, len(records))
	s.turn.Lock()
	defer s.turn.Unlock()
	return scores, p.Score(ctx, time.Unix(0, now), records, scores)
}

func (s *policyServer) Observe(ctx context.Context, in *pluginv1.ObserveRequest) (*pluginv1.ObserveResponse, error) {
	p, ok := s.impl.(sdk.Stateful)
	if !ok {
		return nil, unsupported(sdk.CapStateful)
	}
	return &pluginv1.ObserveResponse{}, pluginproto.FromError(observe(ctx, p, in.GetEvents()))
}

func observe(ctx context.Context, p sdk.Stateful, frame []byte) error {
	if whole, ok := p.(FrameObserver); ok {
		return whole.ObserveFrame(ctx, frame)
	}
	_, events, err := abi.Events(nil, frame)
	if err != nil {
		return err
	}
	return p.Observe(ctx, events)
}

func (s *policyServer) Select(ctx context.Context, in *pluginv1.SelectRequest) (*pluginv1.SelectResponse, error) {
	p, ok := s.impl.(sdk.Stateful)
	if !ok {
		return nil, unsupported(sdk.CapStateful)
	}
	keys, err := p.Select(ctx, time.Unix(0, in.GetNowNs()), in.GetNeedBytes(), int(in.GetLimit()))
	out := &pluginv1.SelectResponse{Keys: make([]uint64, len(keys))}
	for i, k := range keys {
		out.Keys[i] = uint64(k)
	}
	return out, pluginproto.FromError(err)
}

func (s *policyServer) Snapshot(ctx context.Context, _ *pluginv1.SnapshotRequest) (*pluginv1.SnapshotResponse, error) {
	p, ok := s.impl.(sdk.Snapshotter)
	if !ok {
		return nil, unsupported(sdk.CapSnapshot)
	}
	b, err := p.Snapshot(ctx)
	return &pluginv1.SnapshotResponse{Snapshot: b}, pluginproto.FromError(err)
}

func (s *policyServer) Restore(ctx context.Context, in *pluginv1.RestoreRequest) (*pluginv1.RestoreResponse, error) {
	p, ok := s.impl.(sdk.Snapshotter)
	if !ok {
		return nil, unsupported(sdk.CapSnapshot)
	}
	return &pluginv1.RestoreResponse{}, pluginproto.FromError(p.Restore(ctx, in.GetSnapshot()))
}
