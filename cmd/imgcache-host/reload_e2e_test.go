package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
)

// swaps is how often a plugin is exchanged under load.
func swaps() int {
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		return 100
	}
	return 10
}

// exchanged is a plugin whose file a test exchanges.
type exchanged struct {
	d    *daemon
	name string // of the plugin
	path string // of its file
}

// put gives the plugin another file, as a package manager does.
func (x exchanged) put(content []byte) {
	x.d.t.Helper()
	if err := os.WriteFile(x.path+".new", content, 0o755); err != nil {
		x.d.t.Fatal(err)
	}
	if err := os.Rename(x.path+".new", x.path); err != nil {
		x.d.t.Fatal(err)
	}
}

// accepted wants a reload to bring another process.
func (x exchanged) accepted(content []byte) {
	x.d.t.Helper()
	before := x.d.plugin(x.name)
	x.put(content)
	if out, _ := x.d.run(0, "plugin", "reload", x.name); !strings.Contains(out, "reloaded") {
		x.d.t.Errorf("plugin reload: %s", out)
	}
	after := x.d.plugin(x.name)
	if after.PID == before.PID || after.State != "running" || after.LastError != "" || after.Restarts != before.Restarts {
		x.d.t.Errorf("after a reload of\n%+v the plugin is\n%+v", before, after)
	}
}

// rejected wants a reload to fail for a reason, and the plugin to go on.
func (x exchanged) rejected(what string, content []byte, why string) {
	x.d.t.Helper()
	x.put(content)
	a := x.d.call(http.MethodPost, "/v1/plugins/"+x.name+"/reload", "")
	if a.status == http.StatusOK || !strings.Contains(string(a.body), why) {
		x.d.t.Errorf("reload of a plugin that %s: %d %s, want a refusal because of %q", what, a.status, a.body, why)
	}
	if p := x.d.plugin(x.name); p.State != "running" || p.PID == 0 || !strings.Contains(p.LastError, why) {
		x.d.t.Errorf("after the reload of a plugin that %s: %+v", what, p)
	}
}

// shipped returns the file of a plugin that ships.
func shipped(t *testing.T, name string) []byte {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return readFile(t, filepath.Join(bin, "plugins", name))
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestSwapPolicy exchanges the policy again and again in a cache that is full,
// under load: for other scoring and stateful ones, with and without a snapshot,
// and for broken ones, which change nothing. No download fails, no hit is lost,
// and the host's own order never stands in.
func TestSwapPolicy(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	steady := &counted{img: origin.add("steady", 100_000)}
	images := make([]*offered, 20)
	for i := range images {
		images[i] = origin.add(fmt.Sprintf("img%d", i), mib-int64(i*1000))
	}
	x := exchanged{name: "lru", path: filepath.Join(t.TempDir(), "policy.wasm")}
	x.d = prepare(t, setup{
		origin: origin.block(), cache: "max_size = \"8MiB\"\n",
		more: fmt.Sprintf("plugin %q {\n  kind = \"policy\"\n  wasm = %q\n}\n", x.name, x.path),
	})
	d := x.d
	modules := [][]byte{}
	for _, name := range []string{"sieve", "sieve", "lru"} {
		modules = append(modules, shipped(t, name+".wasm"))
	}
	x.put(modules[0])
	d.launch()
	steady.judge(t, steady.img, d.get("steady"))
	d.waitState("steady", cache.StateCached)
	d.call(http.MethodPut, "/v1/pins/steady", "{}")
	stopSteady := d.load(1, []*offered{steady.img}, func(img *offered, a answer) { steady.judge(t, img, a) })
	stop := d.load(3, images, func(img *offered, a answer) { steady.judge(t, img, a) })
	d.eventually("the policy advises", func() bool { return d.usage().Policy == x.name })
	for i := range swaps() {
		x.accepted(modules[(i+1)%len(modules)])
		if got := d.usage().Policy; got != x.name {
			t.Errorf("after a reload the policy in charge is %s", got)
		}
	}
	for _, broken := range []struct{ what, module, why string }{
		{"traps", "trap", "unreachable"},
		{"scores NaN", "nan", "NaN"},
		{"names strangers", "foreign", "not in the cache"},
	} {
		x.rejected(broken.what, readFile(t, filepath.Join("../../testdata/wasm", broken.module+".wasm")), broken.why)
	}
	x.rejected("is no module", []byte("no module"), "not a WebAssembly module")
	x.accepted(modules[0])
	stop()
	stopSteady()
	d.eventually("all records are sent", func() bool { return d.usage().Unsent == 0 })
	d.wantHits(steady.hits.Load())
	t.Logf("%d hits were served and recorded", steady.hits.Load())
	d.stop()
	d.restart()
	d.eventually("the state of the policy was restored", func() bool {
		return strings.Contains(d.logs[1].String(), `"msg":"the state of the policy was restored"`)
	})
}

// TestSwapDriver exchanges the driver again and again under load, and now and
// then for one that is broken: the old one is back each time. No download
// fails, no hit is lost, and the log knows of no outage.
func TestSwapDriver(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	steady := &counted{img: origin.add("steady", 100_000)}
	others := offerMany(origin, 5)
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	x := exchanged{name: "sqlite", path: filepath.Join(t.TempDir(), "driver")}
	x.d = prepare(t, setup{
		origin: origin.block(),
		more:   fmt.Sprintf("plugin %q {\n  kind = \"driver\"\n  command = %q\n  env = { GORACE = %q }\n  read = [%q]\n}\n", x.name, x.path, quietRaceOptions, bin),
	})
	d, sqlite := x.d, shipped(t, "imgcache-driver-sqlite")
	x.put(sqlite)
	d.launch()
	steady.judge(t, steady.img, d.get("steady"))
	d.waitState("steady", cache.StateCached)
	outages := d.pastOutages()
	stop := steady.begin(d, others)
	for range swaps() {
		x.accepted(sqlite)
	}
	for _, broken := range []struct{ what, content, why string }{
		{"exits", "#!/bin/sh\necho the disk has gone >&2\nexit 3\n", "the disk has gone"},
		{"says nothing", "#!/bin/sh\nsleep 1000\n", "no line on standard output within"},
		{"is a policy", fmt.Sprintf("#!/bin/sh\nIMGCACHE_WASM_CACHE=%[1]s/data/wasm exec %[1]s/imgcache-host wasm-runner %[1]s/plugins/lru.wasm\n", bin), "it is a policy"},
		{"wants other options", string(shipped(t, "imgcache-driver-centraldb")), "dsn"},
		{"is no program", "no program", "neither a program"},
	} {
		x.rejected(broken.what, []byte(broken.content), broken.why)
	}
	stop()
	d.eventually("all records are sent", func() bool { return d.usage().Unsent == 0 })
	d.wantHits(steady.hits.Load())
	d.wantLines(recordsWait, outages)
	x.put(sqlite)
	d.stop()
	d.restart()
	d.eventually("the records are read", func() bool { return d.usage().Records == "ready" })
	d.wantHits(steady.hits.Load())
	t.Logf("%d hits were served and recorded", steady.hits.Load())
}
