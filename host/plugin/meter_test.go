package plugin

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/imgcache/imgcache-host/sdk"
)

func TestLatency(t *testing.T) {
	m := newMeter()
	if got := (Latency{}).within(.99); got != 0 {
		t.Errorf("of no call 99 %% ended within %v", got)
	}
	for range 98 {
		m.took("List", time.Millisecond)
	}
	m.took("List", 3*time.Millisecond)
	m.took("List", time.Hour)
	l := m.methods()[0].Latency
	for share, want := range map[float64]time.Duration{.5: time.Millisecond, .98: time.Millisecond, .99: 5 * time.Millisecond, 1: 30 * time.Second} {
		if got := l.within(share); got != want {
			t.Errorf("%v of the calls ended within %v, want %v", share, got, want)
		}
	}
	if below := l.cumulative(); l.Count != 100 || below[.0005] != 0 || below[.001] != 98 || below[30] != 99 {
		t.Errorf("%+v: %v", l, below)
	}
	if math.Abs(l.Seconds-3600.101) > 1e-9 {
		t.Errorf("all calls took %v s", l.Seconds)
	}
}

// TestMetrics reads the metrics of two plugins of one name and a third.
func TestMetrics(t *testing.T) {
	s := newStage(t)
	for range 2 {
		p := s.play(t, "notfound")
		if err := p.Driver().Apply(t.Context(), now()); err == nil {
			t.Fatal("the call went well")
		}
	}
	if _, err := score(t.Context(), s.start(t, policySpec("lru")), 3); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := []string{strings.TrimPrefix(f.GetName(), "imgcache_plugin_")}
			for _, l := range m.GetLabel() {
				key = append(key, l.GetValue())
			}
			got[strings.Join(key, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for key, want := range map[string]float64{
		"calls_total driver Apply actor": 2, "errors_total driver Apply actor": 2, "calls_total driver Configure actor": 2,
		"call_duration_seconds driver Apply actor": 2, "errors_total driver Configure actor": 0,
		"running driver actor": 1, "restarts_total driver actor": 0, "breaker_open driver actor": 0,
		"calls_total policy Score lru": 1, "running policy lru": 1,
	} {
		if value, ok := got[key]; !ok || value != want {
			t.Errorf("%s is %v, want %v", key, value, want)
		}
	}
	for _, st := range s.List() {
		if key := "memory_bytes " + string(st.Kind) + " " + st.Name; got[key] < 1<<20 || st.Memory < 1<<20 {
			t.Errorf("%s takes %v bytes, and its status says %d", key, got[key], st.Memory)
		}
	}
	if st := s.List()[0]; st.Kind != sdk.KindDriver || st.Calls != 2 || st.Errors != 1 || len(st.Methods) != 2 || st.P99 <= 0 {
		t.Errorf("%+v", st)
	}
}
