package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"

	"github.com/imgcache/imgcache-host/pluginproto"
	"github.com/imgcache/imgcache-host/pluginproto/abi"
	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
)

// listTimeout is how long a driver may take to list all records, of millions of
// images.
const listTimeout = 2 * time.Minute

// listBatch is how many entries of a list yield gets at once, however many a message
// has: requests wait while yield uses them.
const listBatch = 1000

// Driver returns the plugin as a driver, which implements sdk.NodeLister and
// sdk.Heartbeater if the manifest declares the capability. An error that comes
// from the plugin wraps a sentinel of package sdk; while the plugin is down,
// calls fail at once with sdk.ErrUnavailable.
func (p *Plugin) Driver() sdk.Driver {
	m := p.Manifest()
	d, n, h := driver{p}, nodeLister{p}, heartbeater{p}
	switch nodes, heartbeat := m.Has(sdk.CapNodes), m.Has(sdk.CapHeartbeat); {
	case nodes && heartbeat:
		return struct {
			driver
			nodeLister
			heartbeater
		}{d, n, h}
	case nodes:
		return struct {
			driver
			nodeLister
		}{d, n}
	case heartbeat:
		return struct {
			driver
			heartbeater
		}{d, h}
	}
	return d
}

type driver struct{ p *Plugin }

// List implements sdk.Driver.
func (d driver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	var stopped error
	err := d.p.call(ctx, "List", max(listTimeout, d.p.spec.timeout()), func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(ctx) // ends the stream when yield stops
		defer cancel()
		stream, err := pluginv1.NewDriverServiceClient(conn).List(ctx, &pluginv1.ListRequest{})
		if err != nil {
			return err
		}
		var batch []sdk.Entry
		var listed tally
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			for some := range slices.Chunk(m.GetEntries(), listBatch) {
				batch = batch[:0]
				for _, e := range some {
					entry := pluginproto.ToEntry(e)
					if err := listed.take(&entry); err != nil {
						return err
					}
					batch = append(batch, entry)
				}
				if stopped = yield(batch); stopped != nil {
					return nil
				}
			}
		}
	})
	if stopped != nil {
		return stopped
	}
	return err
}

// Apply implements sdk.Driver.
func (d driver) Apply(ctx context.Context, b sdk.Batch) error {
	if err := sendable(b); err != nil {
		return fmt.Errorf("%s: %w", d.p.spec, err)
	}
	return d.p.call(ctx, "Apply", d.p.spec.timeout(), func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pluginv1.NewDriverServiceClient(conn).Apply(ctx, pluginproto.FromBatch(b))
		return err
	})
}

// sendable returns an error for a batch that a message cannot carry. The plugin finds
// everything else that may be wrong with it.
func sendable(b sdk.Batch) error {
	ok := utf8.ValidString(b.Source)
	for _, op := range b.Ops {
		ok = ok && utf8.ValidString(op.Entry.ID)
	}
	if !ok {
		return fmt.Errorf("%w: a source or id is not UTF-8", sdk.ErrInvalid)
	}
	return nil
}

type nodeLister struct{ p *Plugin }

// Nodes implements sdk.NodeLister. Nodes without a valid address are left out.
func (l nodeLister) Nodes(ctx context.Context, id string) (nodes []sdk.Node, err error) {
	err = l.p.call(ctx, "Nodes", l.p.spec.timeout(), func(ctx context.Context, conn *grpc.ClientConn) error {
		out, err := pluginv1.NewDriverServiceClient(conn).Nodes(ctx, &pluginv1.NodesRequest{Id: id})
		for _, m := range out.GetNodes() {
			if n := pluginproto.ToNode(m); reachable(n) && len(nodes) < maxNodes {
				nodes = append(nodes, n)
			}
		}
		return err
	})
	return nodes, err
}

type heartbeater struct{ p *Plugin }

// Heartbeat implements sdk.Heartbeater.
func (h heartbeater) Heartbeat(ctx context.Context) error {
	return h.p.call(ctx, "Heartbeat", h.p.spec.timeout(), func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pluginv1.NewDriverServiceClient(conn).Heartbeat(ctx, &pluginv1.HeartbeatRequest{})
		return err
	})
}

// Scorer returns the plugin as a scoring policy.
func (p *Plugin) Scorer() sdk.Scorer { return policy{p} }

// Stateful returns the plugin as a stateful policy.
func (p *Plugin) Stateful() sdk.Stateful { return policy{p} }

// Snapshotter returns the plugin as a policy whose state can be saved.
func (p *Plugin) Snapshotter() sdk.Snapshotter { return policy{p} }

type policy struct{ p *Plugin }

func (c policy) call(ctx context.Context, name string, f func(context.Context, pluginv1.PolicyServiceClient) error) error {
	return c.p.call(ctx, name, c.p.spec.timeout(), func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, pluginv1.NewPolicyServiceClient(conn))
	})
}

// frames keeps frames for later calls: the records of a million images take 48 MB.
var frames = sync.Pool{New: func() any { return new([]byte) }}

// Score implements sdk.Scorer. It may be called concurrently. In a plugin that can
// do only one thing at a time, the calls wait for each other.
func (c policy) Score(ctx context.Context, now time.Time, records []sdk.Record, scores []float64) error {
	frame := frames.Get().(*[]byte)
	defer frames.Put(frame) // gRPC has encoded it
	*frame = abi.AppendRecords((*frame)[:0], now.UnixNano(), records)
	return c.call(ctx, "Score", func(ctx context.Context, client pluginv1.PolicyServiceClient) error {
		out, err := client.Score(ctx, &pluginv1.ScoreRequest{Records: *frame})
		if err != nil {
			return err
		}
		if got := len(out.GetScores()); got != len(records) {
			return pluginproto.FromError(fmt.Errorf("%w: expected %d scores, got %d", sdk.ErrUnavailable, len(records), got))
		}
		copy(scores, out.GetScores())
		return nil
	})
}

// Observe implements sdk.Stateful.
func (c policy) Observe(ctx context.Context, events []sdk.Event) error {
	frame := abi.AppendEvents(nil, time.Now().UnixNano(), events)
	return c.call(ctx, "Observe", func(ctx context.Context, client pluginv1.PolicyServiceClient) error {
		_, err := client.Observe(ctx, &pluginv1.ObserveRequest{Events: frame})
		return err
	})
}

// Select implements sdk.Stateful.
func (c policy) Select(ctx context.Context, now time.Time, need uint64, limit int) (keys []sdk.Key, err error) {
	err = c.call(ctx, "Select", func(ctx context.Context, client pluginv1.PolicyServiceClient) error {
		in := &pluginv1.SelectRequest{NeedBytes: need, NowNs: now.UnixNano(), Limit: uint32(limit)}
		out, err := client.Select(ctx, in)
		for _, k := range out.GetKeys()[:min(limit, len(out.GetKeys()))] {
			keys = append(keys, sdk.Key(k))
		}
		return err
	})
	return keys, err
}

// Snapshot implements sdk.Snapshotter.
func (c policy) Snapshot(ctx context.Context) (b []byte, err error) {
	err = c.call(ctx, "Snapshot", func(ctx context.Context, client pluginv1.PolicyServiceClient) error {
		out, err := client.Snapshot(ctx, &pluginv1.SnapshotRequest{})
		b = out.GetSnapshot()
		return err
	})
	return b, err
}

// Restore implements sdk.Snapshotter.
func (c policy) Restore(ctx context.Context, snapshot []byte) error {
	return c.call(ctx, "Restore", func(ctx context.Context, client pluginv1.PolicyServiceClient) error {
		_, err := client.Restore(ctx, &pluginv1.RestoreRequest{Snapshot: snapshot})
		return err
	})
}
