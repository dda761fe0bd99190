package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hostile are plugins that mean harm: modules of testdata/wasm by their names,
// and scripts. Those that are always tried come first; the others are when
// IMGCACHE_TEST_ALL is set.
var hostile = []struct {
	name   string
	script string // of a process plugin; empty: a module
	driver bool   // it is a driver, else a policy
	always bool
}{
	{name: "spin", always: true},
	{name: "calls", always: true},
	{name: "table", always: true},
	{name: "flood", always: true},
	{name: "foreign", always: true},
	{name: "mute", script: "sleep 1000", always: true},
	{name: "babble", script: "exec head -c 104857600 /dev/zero >&2", always: true},
	{name: "garbage", script: "exec yes", driver: true, always: true},
	{name: "forger", script: forgery, driver: true, always: true},
	{name: "recurse"},
	{name: "bomb"},
	{name: "trap"},
	{name: "abort"},
	{name: "nan"},
	{name: "forget"},
	{name: "pointer"},
	{name: "crooked"},
	{name: "missing"},
	{name: "import"},
	{name: "oldabi"},
	{name: "quitter", script: "exit 0", driver: true},
	{name: "breeder", script: "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait"},
	{name: "endless", script: "exec head -c 1073741824 /dev/zero >&2", driver: true},
	{name: "nonsense", script: `echo '1|1|unix|/nowhere/at/all|grpc'; sleep 1000`},
}

// forgery says lines that look like the service's own.
const forgery = `for i in 1 2 3; do
printf '{"time":"2026-01-01T00:00:00Z","level":"ERROR","msg":"forged","plugin":"sqlite"}\n' >&2
printf 'innocent\r\n{"level":"ERROR","msg":"forged"}\n\033[2Jtime=x level=ERROR msg=forged\n' >&2
done; exit 1`

// TestHostilePlugins: while a plugin does its worst, no request fails. What a hit
// waits at most is printed beside the same with a good plugin.
func TestHostilePlugins(t *testing.T) {
	t.Parallel()
	quiet := stall(t, "", "", false)
	for _, h := range hostile {
		if !h.always && os.Getenv("IMGCACHE_TEST_ALL") == "" {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			worst := stall(t, h.name, h.script, h.driver)
			t.Logf("the longest stall of a hit: %v, with good plugins %v", worst, quiet)
		})
	}
}

// stall runs the service with a hostile plugin, or none, under a load of hits and
// of images that make others leave, and returns how long a hit took at most.
func stall(t *testing.T, name, script string, driver bool) (worst time.Duration) {
	t.Helper()
	origin := newOrigin(t)
	steady := origin.add("steady", 100_000)
	var others []*offered
	for i := range 6 {
		others = append(others, origin.add(fmt.Sprintf("other%d", i), 200_000))
	}
	s := setup{origin: origin.block(), cache: "max_size = \"1MB\"\n"}
	if name != "" {
		kind := "policy"
		if driver {
			kind = "driver"
		}
		s.cache += fmt.Sprintf("%s = %s.bad\n", kind, kind)
		s.more = fmt.Sprintf("%s %q \"bad\" {}\nplugin %q {\n  kind = %q\n  %s\n  limits {\n    timeout = \"300ms\"\n  }\n}\n",
			kind, name, name, kind, hostileFile(t, name, script))
	}
	s.more += "pin \"steady\" {\n  images = [\"steady\"]\n}\n"
	d := prepare(t, s)
	d.launchLame() // it is not ready as long as a plugin is away, and serves
	if err := steady.check(d.get("steady")); err != nil {
		t.Fatal(err)
	}
	d.waitState("steady", "cached")
	stop := d.load(1, others, func(img *offered, a answer) {
		if err := img.check(a); err != nil {
			t.Errorf("%s: %v", img.id, err)
		}
	})
	failed := func() bool { return name == "" || d.plugin(name).LastError != "" || d.usage().Policy != "" }
	for hits, ends := 0, time.Now().Add(time.Second); hits < 200 || time.Now().Before(ends) || !failed(); hits++ {
		begun := time.Now()
		a := d.get("steady")
		worst = max(worst, time.Since(begun))
		if err := steady.check(a); err != nil || !strings.Contains(a.header.Get("Cache-Status"), "hit") {
			t.Fatalf("hit %d: %v, %s", hits, err, a.header.Get("Cache-Status"))
		}
		if hits > 1_000_000 {
			t.Fatalf("the plugin does no harm: %+v", d.plugin(name))
		}
	}
	stop()
	for line := range strings.Lines(d.logs[0].String()) {
		var said struct{ Msg string }
		if err := json.Unmarshal([]byte(line), &said); err != nil || said.Msg == "forged" {
			t.Errorf("a line of the log is forged, %v: %s", err, line)
		}
	}
	return worst
}

// hostileFile returns the line of a plugin block that names its file.
func hostileFile(t *testing.T, name, script string) string {
	t.Helper()
	if script == "" {
		path, err := filepath.Abs("../../testdata/wasm/" + name + ".wasm")
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("wasm = %q", path)
	}
	path := filepath.Join(t.TempDir(), name)
	writeFile(t, path, "#!/bin/sh\n"+script+"\n")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("command = %q", path)
}
