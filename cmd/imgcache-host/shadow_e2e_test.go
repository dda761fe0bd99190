package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/shadow"
	"github.com/imgcache/imgcache-host/host/simulate"
)

// tried starts a service with a full set of candidates beside lru, of which more
// are plugins that the blocks describe.
func tried(t *testing.T, origin *testOrigin, candidates []string, more string) *daemon {
	t.Helper()
	var refs []string
	blocks := ""
	for _, plugin := range candidates {
		refs = append(refs, "policy."+plugin+"-beside")
		blocks += fmt.Sprintf("policy %q %q {\n}\n", plugin, plugin+"-beside")
	}
	d := prepare(t, setup{origin: origin.block(), more: blocks + more, cache: fmt.Sprintf(`
  max_size = "1MiB"
  shadow   = [%s]
  trace {
    path = %q
  }`, strings.Join(refs, ", "), filepath.Join(t.TempDir(), "requests"))})
	d.launch()
	return d
}

// policies returns how the policies do, by their plugins, when all that run have
// seen that many requests.
func (d *daemon) policies(requests int, of ...string) (report shadow.Report, by map[string]shadow.Status) {
	d.t.Helper()
	d.eventually(fmt.Sprintf("the policies have seen %d requests", requests), func() bool {
		var err error
		if report, err = d.api.Policies(d.t.Context()); err != nil {
			d.t.Fatal(err)
		}
		by = map[string]shadow.Status{}
		for _, p := range report.Policies {
			by[p.Name] = p
		}
		for _, name := range of {
			if by[name].Requests != uint64(requests) {
				return false
			}
		}
		return true
	})
	return report, by
}

// TestShadow downloads images, some of them far more often than others, one
// after another. The active policy's shadow has the very hits of the cache, so
// has the same policy as a candidate, and the trace, replayed, gives the figures
// of all of them.
func TestShadow(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	var images []*offered
	for i := range 40 {
		images = append(images, origin.add(fmt.Sprintf("img%d", i), int64(40_000+i*1000)))
	}
	d := tried(t, origin, []string{"lru", "fifo", "sieve"}, "")
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 1)), 1.1, 4, uint64(len(images)-1))
	requests, hits := 150, uint64(0)
	for range requests {
		img := images[z.Uint64()]
		a := d.get(img.id)
		if err := img.check(a); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(a.cacheStatus(), "; hit") {
			hits++
		} else {
			d.waitState(img.id, cache.StateCached)
		}
	}
	names := []string{"default", "lru-beside", "fifo-beside", "sieve-beside"}
	report, by := d.policies(requests, names...)
	if report.Cache.Requests != uint64(requests) || report.Cache.Hits != hits || hits < 20 {
		t.Errorf("%d hits of %d requests, and the report has %+v", hits, requests, report.Cache)
	}
	for _, name := range names[:2] {
		if p := by[name]; p.Hits != hits || p.HitBytes != report.Cache.HitBytes || p.Images != report.Cache.Images || p.Departed.Images != 0 {
			t.Errorf("%s in the shadow has %+v, the cache %+v", name, p, report.Cache)
		}
	}
	if p := by["fifo-beside"]; p.Hits == hits && p.HitBytes == report.Cache.HitBytes || p.Evictions == 0 || p.Departed.Images == 0 || len(p.Departed.IDs) != p.Departed.Images {
		t.Errorf("fifo is like lru: %+v", p)
	}
	out, _ := d.run(0, "policy", "shadow")
	for _, want := range []string{"default (active)", "sieve-beside", "fifo-beside: would have evicted img"} {
		if !strings.Contains(out, want) {
			t.Errorf("policy shadow lacks %q:\n%s", want, out)
		}
	}
	if text := string(d.call(http.MethodGet, "/metrics", "").body); !strings.Contains(text, fmt.Sprintf(`imgcache_shadow_hits_total{plugin="lru",policy="default"} %d`, hits)) {
		t.Errorf("metrics:\n%s", text)
	}
	d.wantReplayed(report)
	before := d.plugin("sieve (shadow)")
	if out, _ := d.run(0, "plugin", "reload", "sieve"); !strings.Contains(out, "reloaded") {
		t.Errorf("plugin reload: %s", out)
	}
	if after := d.plugin("sieve (shadow)"); after.PID == before.PID || after.State != "running" {
		t.Errorf("after a reload of\n%+v the plugin is\n%+v", before, after)
	}
	d.get(images[0].id) // by which it is found that the policy knows nothing
	d.eventually("the policy begins anew", func() bool {
		_, by := d.policies(0)
		return by["sieve-beside"].Requests < uint64(requests)
	})
	t.Logf("hits of %d requests: %d; fifo %d, sieve %d", requests, hits, by["fifo-beside"].Hits, by["sieve-beside"].Hits)
}

// wantReplayed wants the recorded trace to give the figures of a report.
func (d *daemon) wantReplayed(report shadow.Report) {
	d.t.Helper()
	d.eventually("all requests are recorded", func() bool {
		r, err := d.api.Policies(d.t.Context())
		return err == nil && r.Trace != nil && r.Trace.Recorded == report.Cache.Requests
	})
	code, out, errs := command(d.t, "policy", "simulate", "--output", "json", "--trace", report.Trace.Path,
		"--policy", "lru", "--policy", "fifo", "--policy", "sieve", "--size", "1MiB")
	var answer struct{ Results []simulate.Result }
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != 0 {
		d.t.Fatalf("policy simulate: %d, %v\n%s%s", code, err, out, errs)
	}
	for _, p := range report.Policies {
		for _, r := range answer.Results {
			if r.Policy == p.Plugin && (r.Requests != p.Requests || r.Requests-r.Misses != p.Hits || r.Evictions != p.Evictions || r.Bytes-r.MissedBytes != p.HitBytes) {
				d.t.Errorf("%s: replayed %+v, in the shadow %+v", p.Name, r.Stats, p)
			}
		}
	}
}

// TestShadowOfBrokenPolicies tries policies that trap and that never answer.
// Downloads do not notice, the service is ready, and a good candidate's figures
// are exact.
func TestShadowOfBrokenPolicies(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	var images []*offered
	for i := range 20 {
		images = append(images, origin.add(fmt.Sprintf("img%d", i), 100_000))
	}
	more := ""
	for _, name := range []string{"trap", "spin"} {
		path, err := filepath.Abs("../../testdata/wasm/" + name + ".wasm")
		if err != nil {
			t.Fatal(err)
		}
		more += fmt.Sprintf("plugin %q {\n  kind = \"policy\"\n  wasm = %q\n  limits {\n    timeout = \"300ms\"\n  }\n}\n", name, path)
	}
	d := tried(t, origin, []string{"trap", "spin", "sieve"}, more)
	requests := 0
	failed := func(name string) bool {
		_, by := d.policies(0)
		return by[name].Restarts > 0 && by[name].LastError != ""
	}
	for !failed("trap-beside") || !failed("spin-beside") {
		img := images[requests%len(images)]
		requests++
		if err := img.check(d.get(img.id)); err != nil {
			t.Fatal(err)
		}
		if requests > 100_000 {
			t.Fatal("the broken policies have not failed")
		}
	}
	_, by := d.policies(requests, "default", "sieve-beside")
	if p := by["sieve-beside"]; p.Lost != 0 || p.Restarts != 0 || p.Evictions == 0 {
		t.Errorf("sieve beside broken policies: %+v", p)
	}
	if r := d.readiness(); !r.Ready {
		t.Errorf("the service is not ready: %+v", r)
	}
	if out, _ := d.run(0, "policy", "shadow"); !strings.Contains(out, "trap-beside: failed") {
		t.Errorf("policy shadow:\n%s", out)
	}
	t.Logf("%d requests; trap failed %d times, spin %d", requests, by["trap-beside"].Restarts, by["spin-beside"].Restarts)
}
