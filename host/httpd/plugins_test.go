package httpd

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/host/schedule"
	"github.com/imgcache/imgcache-host/host/shadow"
	"github.com/imgcache/imgcache-host/sdk"
)

// fakePlugins are the policy lru, which is tried beside itself, and the driver
// busy, which is always being reloaded.
type fakePlugins struct{ reloaded []string }

var lru = plugin.Status{Name: "lru", Kind: sdk.KindPolicy, State: "running", PID: 7}

func (p *fakePlugins) Plugins() []plugin.Status { return []plugin.Status{lru} }

func (p *fakePlugins) Reload(_ context.Context, name string) (plugin.Status, error) {
	switch name {
	case "lru":
		p.reloaded = append(p.reloaded, name)
		return lru, nil
	case "busy":
		return plugin.Status{}, fmt.Errorf("%w: it is being reloaded", cache.ErrConflict)
	}
	return noPlugins{}.Reload(context.Background(), name)
}

func (p *fakePlugins) Policies() shadow.Report {
	return shadow.Report{Policies: []shadow.Status{{Name: "lru", Plugin: "lru", State: "running"}}}
}

// TestPlugins lists plugins, reloads one, and compares the policies.
func TestPlugins(t *testing.T) {
	p := &fakePlugins{}
	h := newService(newEngine(), func(c *Config) { c.Plugins = p }).Handler(everything)
	for _, test := range []struct {
		method, target string
		status         int
		want           any // nil: an error
	}{
		{"GET", "/v1/plugins", 200, map[string]any{"plugins": p.Plugins()}},
		{"GET", "/v1/policies", 200, p.Policies()},
		{"POST", "/v1/plugins/lru/reload", 200, lru},
		{"POST", "/v1/plugins/busy/reload", 409, nil},
		{"POST", "/v1/plugins/none/reload", 404, nil},
	} {
		w := call(h, test.method, test.target, "")
		if w.Code != test.status {
			t.Errorf("%s %s: %d, want %d: %s", test.method, test.target, w.Code, test.status, w.Body)
		}
		if test.want != nil && !sameJSON(w.Body.String(), asJSON(t, test.want)) {
			t.Errorf("%s %s: %s, want %s", test.method, test.target, w.Body, asJSON(t, test.want))
		}
	}
	if diff := cmp.Diff([]string{"lru"}, p.reloaded); diff != "" {
		t.Error(diff)
	}
}

// TestWithoutPlugins: a service that has none answers all the same.
func TestWithoutPlugins(t *testing.T) {
	h := newService(newEngine()).Handler(everything)
	if w := call(h, "POST", "/v1/plugins/lru/reload", ""); w.Code != 404 {
		t.Errorf("reload: %d %s", w.Code, w.Body)
	}
	w := call(h, "GET", "/v1/policies", "")
	if want := asJSON(t, shadow.Report{Policies: []shadow.Status{}}); w.Code != 200 || !sameJSON(w.Body.String(), want) {
		t.Errorf("policies: %d %s, want %s", w.Code, w.Body, want)
	}
}

// TestSchedulesAreListed in the form that the scheduler gives them.
func TestSchedulesAreListed(t *testing.T) {
	night := []schedule.Status{{Name: "night", When: "daily at 03:00", Run: []string{"scrub"}, NextRun: modified}}
	h := newService(newEngine(), func(c *Config) { c.Schedules = func() []schedule.Status { return night } }).Handler(everything)
	w := call(h, "GET", "/v1/schedules", "")
	if want := asJSON(t, map[string]any{"schedules": night}); w.Code != 200 || !sameJSON(w.Body.String(), want) {
		t.Errorf("%d %s, want %s", w.Code, w.Body, want)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
