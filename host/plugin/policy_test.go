package plugin

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func policySpec(role string) Spec {
	s := spec(role)
	s.Kind, s.Name = sdk.KindPolicy, role
	return s
}

// module is a module of the corpus, run by this binary.
func module(t *testing.T, name string) Spec {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "testdata", "wasm", name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	s := policySpec("runner")
	s.Name, s.Path = name, path
	return s
}

func (s *stage) start(t *testing.T, spec Spec) *Plugin {
	t.Helper()
	p, err := s.Supervisor.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Configure(t.Context(), sdk.Settings{Options: sdk.Config{}}); err != nil {
		t.Fatal(err)
	}
	return p
}

func score(ctx context.Context, p *Plugin, n int) ([]float64, error) {
	records, scores := make([]sdk.Record, n), make([]float64, n)
	for i := range records {
		records[i] = sdk.Record{Key: sdk.Key(i), Accessed: int64(i)}
	}
	return scores, p.Scorer().Score(ctx, time.Now(), records, scores)
}

// TestPoliciesThroughAProcess uses processes again, because starting one takes
// longer than most tests.
func TestPoliciesThroughAProcess(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	lru := s.start(t, policySpec("lru")).Scorer()
	sdktest.Scorer(t, func(*testing.T) sdk.Scorer { return lru })

	nothing, err := s.start(t, policySpec("sieve")).Snapshotter().Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var idle []*Plugin
	sdktest.Stateful(t, func(t *testing.T) sdk.Stateful {
		if len(idle) == 0 {
			idle = append(idle, s.start(t, policySpec("sieve")))
		}
		p := idle[len(idle)-1]
		idle = idle[:len(idle)-1]
		t.Cleanup(func() { idle = append(idle, p) })
		if err := p.Snapshotter().Restore(t.Context(), nothing); err != nil {
			t.Fatal(err)
		}
		return struct {
			sdk.Stateful
			sdk.Snapshotter
		}{p.Stateful(), p.Snapshotter()}
	})
}

func TestFullBatch(t *testing.T) {
	s := newStage(t)
	scores, err := score(t.Context(), s.start(t, policySpec("lru")), sdk.MaxBatch)
	if err != nil || scores[sdk.MaxBatch-1] != sdk.MaxBatch-1 {
		t.Errorf("%v, %v", scores[sdk.MaxBatch-1], err)
	}
	events := make([]sdk.Event, sdk.MaxBatch)
	for i := range events {
		events[i] = sdk.Event{Kind: sdk.EventAdmitted, Key: sdk.Key(i), Size: 1, At: int64(i)}
	}
	p := s.start(t, policySpec("sieve")).Stateful()
	if err := p.Observe(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	keys, err := p.Select(t.Context(), time.Now(), math.MaxUint64, sdk.MaxBatch)
	if err != nil || len(keys) != sdk.MaxBatch {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

// TestModuleThatFails: a scoring module that traps goes on; one that does not
// end is killed; a stateful one that traps comes back without its state.
func TestModuleThatFails(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	trap := s.start(t, module(t, "trap"))
	for range 3 {
		if _, err := score(t.Context(), trap, 3); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), "unreachable") {
			t.Errorf("trap: %v", err)
		}
	}
	if st := trap.Status(); st.Runtime != runtimeWasm || st.State != stateRunning || st.Restarts != 0 || st.Errors != 3 {
		t.Errorf("trap: %+v", st)
	}
	spin := s.start(t, module(t, "spin"))
	if _, err := score(t.Context(), spin, 3); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), "policy plugin spin") {
		t.Errorf("spin: %v", err)
	}
	forget := s.start(t, module(t, "forget"))
	if err := forget.Stateful().Observe(t.Context(), make([]sdk.Event, 1)); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("forget: %v", err)
	}
	for _, p := range []*Plugin{spin, forget} {
		until(t, p.spec.Name+" is started again", func() bool { return p.Epoch() == 2 && p.Status().State == stateRunning })
	}
	if _, err := forget.Stateful().Select(t.Context(), time.Now(), 1, 1); err != nil {
		t.Errorf("forget, started again: %v", err)
	}
}

// TestModuleRefused: why a module cannot be run is told at the start.
func TestModuleRefused(t *testing.T) {
	s := newStage(t)
	for name, want := range map[string]string{
		"missing": "does not export imgcache_score", "oldabi": "version 99", "import": "imports imgcache.open", "absent": "no such file",
	} {
		if _, err := s.Supervisor.Start(t.Context(), module(t, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// TestBusyModuleIsNotProbed: a module that works may stop its whole process,
// which is no reason to kill it before the deadline of its call.
func TestBusyModuleIsNotProbed(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	freezing := policySpec("freezing policy")
	freezing.Path, freezing.Timeout = filepath.Join(t.TempDir(), "a.wasm"), probeEvery+probeTimeout+time.Second
	write(t, freezing.Path, nil)
	p := s.start(t, freezing)
	if _, err := score(t.Context(), p, 1); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), "no answer within") {
		t.Errorf("got %v", err)
	}
	until(t, "it is started again", func() bool { return p.Epoch() == 2 })
	if st := p.Status(); !strings.Contains(st.LastError, "did not answer Score") {
		t.Errorf("it was killed because %s", st.LastError)
	}
}

// TestCallerGivesUp: a caller that does not wait is no fault of the plugin.
func TestCallerGivesUp(t *testing.T) {
	s := newStage(t)
	p := s.play(t, "hang")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Driver().Apply(ctx, now()); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if st := p.Status(); st.State != stateRunning || syscall.Kill(st.PID, 0) != nil {
		t.Errorf("status %+v", st)
	}
}

// TestSharedDriver: a driver has the methods that its manifest declares.
func TestSharedDriver(t *testing.T) {
	s := newStage(t)
	if _, ok := s.play(t, "well").Driver().(sdk.NodeLister); ok {
		t.Error("a driver that does not list nodes can be asked for them")
	}
	d := s.play(t, "member").Driver()
	if err := d.(sdk.Heartbeater).Heartbeat(t.Context()); err != nil {
		t.Error(err)
	}
	nodes, err := d.(sdk.NodeLister).Nodes(t.Context(), "a")
	want := sdk.Node{Name: "near", URL: "https://near.example/a", Seen: time.Unix(1, 1).UTC()}
	if err != nil || len(nodes) != 1 || nodes[0] != want {
		t.Errorf("the nodes are %+v, %v", nodes, err)
	}
	nodes, err = d.(sdk.NodeLister).Nodes(t.Context(), "strange")
	if err != nil || len(nodes) != maxNodes || nodes[0].URL != "http://node-0.example" {
		t.Errorf("%d nodes, %.1v, %v", len(nodes), nodes, err)
	}
}
