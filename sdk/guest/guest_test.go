package guest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

var scoring = sdk.Manifest{
	Name: "size", Version: "1.0.0", Kind: sdk.KindPolicy, Capabilities: []sdk.Capability{sdk.CapScore},
}

// bySize is a scorer that takes the option "fail".
type bySize struct {
	sdk.ScoreFunc
	options sdk.Config
}

func newBySize() *bySize {
	return &bySize{ScoreFunc: func(r *sdk.Record, now time.Time) float64 { return float64(r.Size) + float64(now.UnixNano()) }}
}

func (p *bySize) Configure(_ context.Context, s sdk.Settings) error {
	p.options = s.Options
	if s.Options.Bool("fail") {
		return fmt.Errorf("%w: option fail", sdk.ErrInvalid)
	}
	return nil
}

// fifo is a stateful policy whose snapshot is its keys.
type fifo struct {
	keys      []byte
	snapshots int   // made so far
	err       error // of every method
	extra     int   // proposes so many too many
}

func (p *fifo) Observe(_ context.Context, events []sdk.Event) error {
	for _, e := range events {
		if e.Kind == sdk.EventAdmitted {
			p.keys = append(p.keys, byte(e.Key))
		}
	}
	return p.err
}

func (p *fifo) Select(_ context.Context, _ time.Time, _ uint64, limit int) ([]sdk.Key, error) {
	var keys []sdk.Key
	for _, k := range p.keys[:min(len(p.keys), limit+p.extra)] {
		keys = append(keys, sdk.Key(k))
	}
	return keys, p.err
}

func (p *fifo) Snapshot(context.Context) ([]byte, error) {
	p.snapshots++
	return slices.Clone(p.keys), p.err
}

func (p *fifo) Restore(_ context.Context, b []byte) error {
	p.keys = slices.Clone(b)
	return p.err
}

func TestExport(t *testing.T) {
	defer func() { exported = module{} }()
	Export(scoring, newBySize())
	if exported.impl == nil || exported.manifest.Name != "size" {
		t.Errorf("Export leaves %+v", exported)
	}
	stateful := scoring
	stateful.Capabilities = []sdk.Capability{sdk.CapStateful}
	driver := scoring
	driver.Kind = sdk.KindDriver
	for name, c := range map[string]struct {
		first    module
		manifest sdk.Manifest
		policy   any
	}{
		"twice":                 {exported, scoring, newBySize()},
		"another form":          {module{}, stateful, newBySize()},
		"no policy":             {module{}, scoring, nil},
		"a driver":              {module{}, driver, newBySize()},
		"an invalid manifest":   {module{}, sdk.Manifest{}, newBySize()},
		"undeclared interface":  {module{}, scoring, &fifo{}},
		"a driver of a program": {module{}, sdk.Manifest{Name: "x", Kind: sdk.KindDriver}, struct{ sdk.Driver }{&shelf{}}},
	} {
		func() {
			defer func() {
				if text := fmt.Sprint(recover()); !strings.HasPrefix(text, "guest.Export: ") {
					t.Errorf("%s: Export panics with %q", name, text)
				}
			}()
			exported = c.first
			Export(c.manifest, c.policy)
		}()
	}
}

func TestScore(t *testing.T) {
	m := module{impl: newBySize()}
	scores := make([]float64, 2)
	frame := abi.AppendRecords(nil, 1000, []sdk.Record{{Size: 5}, {Size: 7}})
	for range 2 { // the second call reuses the records of the first
		if s := m.score(frame, scores); s != abi.StatusOK || !slices.Equal(scores, []float64{1005, 1007}) {
			t.Errorf("score() = %v, %d", scores, s)
		}
	}
	if s := m.score(frame, scores[:1]); s != abi.StatusInvalid {
		t.Errorf("score() with room for one of two = %d, want %d", s, abi.StatusInvalid)
	}
	if s := m.score(frame[:40], scores); s != abi.StatusInvalid {
		t.Errorf("score() of half a frame = %d, want %d", s, abi.StatusInvalid)
	}
}

func TestConfigure(t *testing.T) {
	p := newBySize()
	m := module{impl: p}
	want := sdk.Config{"a": "1", "b": ""}
	if s := m.configure(abi.AppendConfig(nil, want)); s != abi.StatusOK || !cmp.Equal(p.options, want) {
		t.Errorf("configure() = %d with %v", s, p.options)
	}
	for _, text := range []string{"fail\x00true\x00", "broken"} {
		if s := m.configure([]byte(text)); s != abi.StatusInvalid {
			t.Errorf("configure(%q) = %d, want %d", text, s, abi.StatusInvalid)
		}
	}
	m.impl = &fifo{}
	if s := m.configure([]byte("broken")); s != abi.StatusOK {
		t.Errorf("configure() of a policy that does not want it = %d", s)
	}
}

func TestStateful(t *testing.T) {
	p := &fifo{}
	m := module{impl: p}
	frame := abi.AppendEvents(nil, 0, []sdk.Event{
		{Key: 3, Kind: sdk.EventAdmitted}, {Key: 4, Kind: sdk.EventAccessed}, {Key: 1, Kind: sdk.EventAdmitted},
	})
	if s := m.observe(frame); s != abi.StatusOK {
		t.Fatalf("observe() = %d", s)
	}
	if s := m.observe(frame[:40]); s != abi.StatusInvalid {
		t.Errorf("observe() of half a frame = %d, want %d", s, abi.StatusInvalid)
	}
	keys := make([]byte, 8*3)
	le := binary.LittleEndian
	if n := m.choose(9, 0, keys); n != 2 || le.Uint64(keys) != 3 || le.Uint64(keys[8:]) != 1 {
		t.Errorf("choose() = %d, % x", n, keys)
	}
	p.extra = 1
	if n := m.choose(9, 0, keys[:8]); n != 2 {
		t.Errorf("choose() of a policy that proposes two of one = %d, want 2, which the host refuses", n)
	}
	for _, err := range []error{sdk.ErrNotFound, sdk.ErrInvalid, sdk.ErrUnsupported, sdk.ErrUnavailable} {
		p.err = err
		want := abi.StatusOf(err)
		if got := m.observe(frame); got != want {
			t.Errorf("observe() = %d for %v, want %d", got, err, want)
		}
		for what, got := range map[string]int32{"choose": m.choose(9, 0, keys), "snapshot": m.writeSnapshot(nil)} {
			if got != -int32(want) {
				t.Errorf("%s() = %d for %v, want -%d", what, got, err, want)
			}
		}
	}
}

// TestSnapshot asks for the length, then for the bytes: one snapshot is made,
// and it is never older than the last event.
func TestSnapshot(t *testing.T) {
	p := &fifo{keys: []byte{1, 2, 3}}
	m := module{impl: p}
	buf := make([]byte, 4)
	if n, n2 := m.writeSnapshot(nil), m.writeSnapshot(buf); n != 3 || n2 != 3 || p.snapshots != 1 || buf[2] != 3 {
		t.Errorf("snapshot of %d, then %d bytes, made %d times: % x", n, n2, p.snapshots, buf)
	}
	m.writeSnapshot(nil)
	m.observe(abi.AppendEvents(nil, 0, []sdk.Event{{Key: 9, Kind: sdk.EventAdmitted}}))
	if n := m.writeSnapshot(buf); n != 4 || buf[3] != 9 {
		t.Errorf("snapshot after an event has %d bytes: % x", n, buf)
	}
	other := module{impl: &fifo{}}
	if s := other.restore(buf); s != abi.StatusOK || other.writeSnapshot(nil) != 4 {
		t.Errorf("restore() = %d", s)
	}
}

// TestLacks calls every function of a module that has nothing, and the
// functions of the other form.
func TestLacks(t *testing.T) {
	for _, c := range []struct {
		module module
		want   abi.Status
		skip   string
	}{
		{module{}, abi.StatusUnavailable, ""},
		{module{impl: newBySize()}, abi.StatusUnsupported, "score configure manifest"},
		{module{impl: &fifo{}}, abi.StatusUnsupported, "observe select snapshot restore configure manifest"},
		{module{impl: &shelf{}}, abi.StatusUnsupported, "apply list configure manifest"},
	} {
		for name, got := range map[string]int32{
			"score":     int32(c.module.score(nil, nil)),
			"observe":   int32(c.module.observe(nil)),
			"select":    -c.module.choose(0, 0, nil),
			"snapshot":  -c.module.writeSnapshot(nil),
			"restore":   int32(c.module.restore(nil)),
			"configure": int32(c.module.configure(nil)),
			"manifest":  -c.module.writeManifest(nil),
			"apply":     int32(c.module.apply(nil)),
			"list":      -c.module.list("", nil),
		} {
			if !slices.Contains(strings.Fields(c.skip), name) && got != int32(c.want) {
				t.Errorf("%T: %s answers %d, want %d", c.module.impl, name, got, c.want)
			}
		}
	}
}

func TestManifest(t *testing.T) {
	for _, want := range []sdk.Manifest{scoring, {
		Name: "x", Version: "1 \"quoted\" \\ \n\x01 ü", Kind: sdk.KindPolicy,
		Capabilities: []sdk.Capability{sdk.CapStateful, sdk.CapSnapshot},
		Options: []sdk.Option{
			{Name: "a", Type: sdk.TypeDuration, Default: "1h", Description: "an option"},
			{Name: "b", Type: sdk.TypeString, Required: true, Sensitive: true},
		},
	}} {
		m := module{manifest: want, impl: newBySize()}
		buf := make([]byte, m.writeManifest(nil))
		var got sdk.Manifest
		if err := json.Unmarshal(buf[:m.writeManifest(buf)], &got); err != nil || !cmp.Equal(got, want, cmpopts.EquateEmpty()) {
			t.Errorf("manifest %s: %v\n%s", buf, err, cmp.Diff(want, got, cmpopts.EquateEmpty()))
		}
	}
}
