package pluginproto

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
)

var update = flag.Bool("update", false, "write the descriptions of version 1 anew")

// described is what the descriptions say, with every field that version 1 has.
var described = sdk.Manifest{
	Name: "acme-records", Version: "1.2.3", Kind: sdk.KindDriver,
	Capabilities: []sdk.Capability{sdk.CapNodes, sdk.CapHeartbeat},
	Options: []sdk.Option{
		{Name: "dsn", Type: sdk.TypeString, Required: true, Sensitive: true, Description: "where the database is"},
		{Name: "wait", Type: sdk.TypeDuration, Default: "1m30s", Description: "for a lock"},
		{Name: "share", Type: sdk.TypeNumber, Default: "0.5"},
		{Name: "strict", Type: sdk.TypeBool, Default: "true"},
		{Name: "pool", Type: sdk.TypeSize, Default: "10485760"},
	},
}

// asVersion1 encodes the manifest by the numbers of the fields, as no change of
// the .proto files can change it.
func asVersion1(m sdk.Manifest) []byte {
	text := func(b []byte, n protowire.Number, s string) []byte {
		if s == "" {
			return b
		}
		return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
	}
	yes := func(b []byte, n protowire.Number, on bool) []byte {
		if !on {
			return b
		}
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), 1)
	}
	b := text(text(text(nil, 1, m.Name), 2, m.Version), 3, string(m.Kind))
	for _, c := range m.Capabilities {
		b = text(b, 4, string(c))
	}
	for _, o := range m.Options {
		one := text(text(text(nil, 1, o.Name), 2, string(o.Type)), 3, o.Default)
		one = text(yes(yes(one, 4, o.Required), 5, o.Sensitive), 6, o.Description)
		b = text(b, 5, string(one))
	}
	return b
}

// ofTheFuture appends a field of each wire type with numbers that are far from
// all that are in use.
func ofTheFuture(b []byte) []byte {
	b = protowire.AppendVarint(protowire.AppendTag(b, 1000, protowire.VarintType), 7)
	b = protowire.AppendFixed32(protowire.AppendTag(b, 1001, protowire.Fixed32Type), 7)
	b = protowire.AppendFixed64(protowire.AppendTag(b, 1002, protowire.Fixed64Type), 7)
	return protowire.AppendString(protowire.AppendTag(b, 1003, protowire.BytesType), "later")
}

// TestDescriptionsOfVersion1 reads what plugins of version 1, and of one to
// come, say of themselves, and writes what a host of version 1 reads.
func TestDescriptionsOfVersion1(t *testing.T) {
	future := described
	future.Capabilities = append(slices.Clone(described.Capabilities), "of-the-future")
	for name, c := range map[string]struct {
		want  sdk.Manifest
		bytes []byte
	}{
		"describe.bin":       {described, asVersion1(described)},
		"describe-later.bin": {future, ofTheFuture(asVersion1(future))},
	} {
		path := filepath.Join("..", "testdata", "v1", name)
		if *update {
			if err := os.WriteFile(path, c.bytes, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(b, c.bytes) {
			t.Errorf("%s has changed", name)
		}
		out := &pluginv1.DescribeResponse{}
		if err := proto.Unmarshal(b, out); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := ToManifest(out)
		if err := got.Validate(); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s says\n%+v, %v\nwant\n%+v", name, got, err, c.want)
		}
	}
	// What a plugin of today writes, a host of version 1 reads: the fields that
	// it knows have their numbers, and come first.
	today, err := proto.MarshalOptions{Deterministic: true}.Marshal(FromManifest(described))
	if err != nil || !slices.Equal(today[:min(len(today), len(asVersion1(described)))], asVersion1(described)) {
		t.Errorf("a plugin of today describes itself as %x, %v\na host of version 1 reads %x", today, err, asVersion1(described))
	}
}
