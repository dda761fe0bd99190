// Package pluginproto is how the contracts of package sdk are spoken over
// gRPC: the conversions between the generated types of
// imgcache/plugin/v1 and those of package sdk, and between errors and status
// codes. Package abi, below, is the same for WebAssembly.
package pluginproto

import (
	"strings"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
)

// FromManifest returns the message that carries m.
func FromManifest(m sdk.Manifest) *pluginv1.DescribeResponse {
	out := &pluginv1.DescribeResponse{
		Name: m.Name, Version: m.Version, Kind: string(m.Kind),
		MinProtocol: uint32(m.MinProtocol), MaxProtocol: uint32(m.MaxProtocol),
	}
	for _, c := range m.Capabilities {
		out.Capabilities = append(out.Capabilities, string(c))
	}
	for _, g := range m.Requests {
		out.Requests = append(out.Requests, string(g))
	}
	for _, o := range m.Options {
		out.Options = append(out.Options, &pluginv1.Option{
			Name: o.Name, Type: string(o.Type), Default: o.Default,
			Required: o.Required, Sensitive: o.Sensitive, Description: o.Description, Access: string(o.Access),
		})
	}
	return out
}

// ToManifest returns the manifest that in carries. It is not validated.
func ToManifest(in *pluginv1.DescribeResponse) sdk.Manifest {
	m := sdk.Manifest{
		Name: in.GetName(), Version: in.GetVersion(), Kind: sdk.Kind(in.GetKind()),
		MinProtocol: int(in.GetMinProtocol()), MaxProtocol: int(in.GetMaxProtocol()),
	}
	for _, c := range in.GetCapabilities() {
		m.Capabilities = append(m.Capabilities, sdk.Capability(c))
	}
	for _, g := range in.GetRequests() {
		m.Requests = append(m.Requests, sdk.Grant(g))
	}
	for _, o := range in.GetOptions() {
		m.Options = append(m.Options, sdk.Option{
			Name: o.GetName(), Type: sdk.OptionType(o.GetType()), Default: o.GetDefault(),
			Required: o.GetRequired(), Sensitive: o.GetSensitive(), Description: o.GetDescription(), Access: sdk.Access(o.GetAccess()),
		})
	}
	return m
}

// FromSettings returns the message that carries s.
func FromSettings(s sdk.Settings) *pluginv1.ConfigureRequest {
	return &pluginv1.ConfigureRequest{
		Options: s.Options, CacheDir: s.CacheDir, StateDir: s.StateDir,
		Node: s.Node, Url: s.URL, Instance: s.Instance,
	}
}

// ToSettings returns the settings that in carries.
func ToSettings(in *pluginv1.ConfigureRequest) sdk.Settings {
	return sdk.Settings{
		Options: in.GetOptions(), CacheDir: in.GetCacheDir(), StateDir: in.GetStateDir(),
		Node: in.GetNode(), URL: in.GetUrl(), Instance: in.GetInstance(),
	}
}

// FromEntry returns the message that carries e. A message holds no text but
// UTF-8, and one that does not would never be sent; a version may be an ETag
// with any bytes, of which those that are no UTF-8 become U+FFFD.
func FromEntry(e sdk.Entry) *pluginv1.Entry {
	m := &pluginv1.Entry{}
	setEntry(m, e)
	return m
}

func setEntry(m *pluginv1.Entry, e sdk.Entry) {
	m.Id, m.Version, m.Size, m.Hits = e.ID, strings.ToValidUTF8(e.Version, "\uFFFD"), e.Size, e.Hits
	m.LastAccessedNs, m.LastModifiedNs = abi.FromTime(e.LastAccessed), abi.FromTime(e.LastModified)
}

// FromEntries returns the messages that carry entries, which lie beside each
// other in memory.
func FromEntries(entries []sdk.Entry) []*pluginv1.Entry {
	messages, out := make([]pluginv1.Entry, len(entries)), make([]*pluginv1.Entry, len(entries))
	for i, e := range entries {
		setEntry(&messages[i], e)
		out[i] = &messages[i]
	}
	return out
}

// ToEntry returns the entry that in carries.
func ToEntry(in *pluginv1.Entry) sdk.Entry {
	return sdk.Entry{
		ID: in.GetId(), Version: in.GetVersion(), Size: in.GetSize(), Hits: in.GetHits(),
		LastAccessed: abi.ToTime(in.GetLastAccessedNs()), LastModified: abi.ToTime(in.GetLastModifiedNs()),
	}
}

// FromBatch returns the message that carries b.
func FromBatch(b sdk.Batch) *pluginv1.ApplyRequest {
	out := &pluginv1.ApplyRequest{Source: b.Source, Seq: b.Seq, Ops: make([]*pluginv1.Op, len(b.Ops))}
	for i, op := range b.Ops {
		out.Ops[i] = &pluginv1.Op{Kind: pluginv1.OpKind(op.Kind), Entry: FromEntry(op.Entry)}
	}
	return out
}

// ToBatch returns the batch that in carries. It is not validated; a kind that
// does not fit becomes 0, which no batch may have.
func ToBatch(in *pluginv1.ApplyRequest) sdk.Batch {
	b := sdk.Batch{Source: in.GetSource(), Seq: in.GetSeq(), Ops: make([]sdk.Op, len(in.GetOps()))}
	for i, op := range in.GetOps() {
		kind := op.GetKind()
		if kind < 0 || kind > 255 {
			kind = 0
		}
		b.Ops[i] = sdk.Op{Kind: sdk.OpKind(kind), Entry: ToEntry(op.GetEntry())}
	}
	return b
}

// FromNode returns the message that carries n.
func FromNode(n sdk.Node) *pluginv1.Node {
	return &pluginv1.Node{Name: n.Name, Url: n.URL, SeenNs: abi.FromTime(n.Seen)}
}

// ToNode returns the node that in carries.
func ToNode(in *pluginv1.Node) sdk.Node {
	return sdk.Node{Name: in.GetName(), URL: in.GetUrl(), Seen: abi.ToTime(in.GetSeenNs())}
}
