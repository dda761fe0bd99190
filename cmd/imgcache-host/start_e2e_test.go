package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/plugin"
)

// understudy is a plugin that does what its mode says until it lets the real
// one play.
type understudy struct {
	kind, name string
	mode       string // path of a file that holds a line of the shell
}

// newUnderstudy returns an understudy that begins with a line of the shell,
// and the block of the configuration that employs it.
func newUnderstudy(t *testing.T, kind, name, line string) (u understudy, block string) {
	t.Helper()
	dir := t.TempDir()
	u = understudy{kind, name, filepath.Join(dir, "mode")}
	u.play(t, line)
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	real := fmt.Sprintf("exec %s/plugins/imgcache-driver-%s", bin, name)
	if kind == "policy" {
		real = fmt.Sprintf("exec %s/imgcache-host wasm-runner %s/plugins/%s.wasm", bin, bin, name)
	}
	script := filepath.Join(dir, "plugin")
	writeFile(t, script, fmt.Sprintf("#!/bin/sh\n. %s\n%s\n", u.mode, real))
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	if kind == "policy" {
		start(t, setup{}).stop() // has compiled the module then
	}
	modules := filepath.Join(bin, "data", "wasm")
	return u, fmt.Sprintf("plugin %q {\n  kind = %q\n  command = %q\n  env = { IMGCACHE_WASM_CACHE = %q }\n  read = [%q]\n  write = [%q]\n}\n", name, kind, script, modules, bin, modules)
}

// play changes what the understudy does from its next start on; "" lets the
// real plugin play.
func (u understudy) play(t *testing.T, line string) {
	t.Helper()
	writeFile(t, u.mode+".new", line+"\n")
	if err := os.Rename(u.mode+".new", u.mode); err != nil {
		t.Fatal(err)
	}
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready   bool
	Reasons []string
}

func (d *daemon) readiness() (r readiness) {
	d.t.Helper()
	a := d.call(http.MethodGet, "/readyz", "")
	a.decode(d.t, &r)
	if r.Ready != (a.status == http.StatusOK) {
		d.t.Errorf("/readyz answers %d: %s", a.status, a.body)
	}
	return r
}

// TestServesWithoutPlugins starts the service while a plugin crashes or hangs.
// Images are served, everything says why the plugin is not there, and when it
// comes it is told what it missed.
func TestServesWithoutPlugins(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ what, kind, name, line, why string }{
		{"driver crashes", "driver", "sqlite", "echo the database is away >&2; exit 1", "the database is away"},
		{"driver hangs", "driver", "sqlite", "sleep 1000", "driver plugin sqlite: "},
		{"policy crashes", "policy", "lru", "kill -9 $$", "policy plugin lru: "},
		{"policy hangs", "policy", "lru", "sleep 1000", "policy plugin lru: "},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			u, block := newUnderstudy(t, tc.kind, tc.name, tc.line)
			origin := t.TempDir()
			writeFile(t, filepath.Join(origin, "image"), "bytes of the image")
			d := prepare(t, setup{origin: directoryOrigin(origin), more: block})
			d.launchLame()
			hits := uint64(0)
			for range 3 {
				a := d.get("image")
				if a.err != nil || a.status != http.StatusOK || string(a.body) != "bytes of the image" {
					t.Errorf("download without the plugin: %d %q, %v", a.status, a.body, a.err)
				}
				if strings.HasPrefix(a.cacheStatus(), "imgcache; hit") {
					hits++
				}
				d.waitState("image", cache.StateCached)
			}
			d.eventually("/readyz says why", func() bool {
				r := d.readiness()
				return !r.Ready && strings.Contains(strings.Join(r.Reasons, "\n"), tc.why)
			})
			if out, _ := d.run(0, "status"); !strings.Contains(out, tc.why) || tc.kind == "policy" && !strings.Contains(out, "lru (fallback)") {
				t.Errorf("status does not say why:\n%s", out)
			}
			d.eventually("the records are as the driver is", func() bool {
				return (d.usage().Records == "loading") == (tc.kind == "driver")
			})
			d.eventually("plugin list says why", func() bool { return d.plugin(tc.name).LastError != "" })
			u.play(t, "")
			d.eventually("the service is ready", func() bool { return d.readiness().Ready })
			d.eventually("the driver has every hit", func() bool {
				i, usage := d.state("image"), d.usage()
				return i.Hits == hits && usage.Records == "ready" && usage.Unsent == 0
			})
			d.stop()
			d.restart()
			d.eventually("the records are read", func() bool { return d.usage().Records == "ready" })
			if got := d.state("image").Hits; got != hits {
				t.Errorf("%d hits after a restart, want %d", got, hits)
			}
		})
	}
}

// TestNoUserAttributes starts the service with the driver xattr on a file system
// that keeps no attributes. Images are served, and everything says what to do.
func TestNoUserAttributes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("imgcache-test", dir, "ramfs", 0, ""); err != nil {
		t.Fatalf("mount at %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	origin := t.TempDir()
	writeFile(t, filepath.Join(origin, "image"), "bytes of the image")
	d := prepare(t, setup{
		dir: dir, origin: directoryOrigin(origin), cache: keptRecords, more: "driver \"xattr\" \"records\" {\n}\n",
	})
	d.launchLame()
	if a := d.get("image"); a.status != http.StatusOK || string(a.body) != "bytes of the image" {
		t.Errorf("download without records: %d %q, %v", a.status, a.body, a.err)
	}
	var said string
	d.eventually("/readyz says why", func() bool {
		said = strings.Join(d.readiness().Reasons, "\n")
		return strings.Contains(said, "user attributes")
	})
	for _, want := range []string{dir, "ramfs", "sqlite", "ext4"} {
		if !strings.Contains(said, want) {
			t.Errorf("/readyz does not say %s: %s", want, said)
		}
	}
}

// plugin returns what is known of a plugin.
func (d *daemon) plugin(name string) plugin.Status {
	d.t.Helper()
	out, _ := d.run(0, "plugin", "list", "--output", "json")
	var list struct{ Plugins []plugin.Status }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		d.t.Fatal(err)
	}
	for _, p := range list.Plugins {
		if p.Name == name {
			return p
		}
	}
	d.t.Fatalf("no plugin %s in %s", name, out)
	return plugin.Status{}
}

// TestSlowTypo misspells an option of a plugin that takes its time to say
// which options it has. The service ends as if it had never begun; a plugin
// that fails first and shows the mistake later does not end it any more.
func TestSlowTypo(t *testing.T) {
	t.Parallel()
	const driver = "driver \"sqlite\" \"mine\" {\n  config {\n    busy_timeoud = \"5s\"\n  }\n}\n"
	_, block := newUnderstudy(t, "driver", "sqlite", "sleep 1.5")
	d := prepare(t, setup{cache: "driver = driver.mine", more: block + driver})
	code, _, stderr := command(t, "serve", "--config", d.config)
	if code != 2 || !strings.Contains(stderr, "busy_timeoud") || !strings.Contains(stderr, `Did you mean "busy_timeout"?`) {
		t.Errorf("exit code %d, want 2 and advice: %s", code, stderr)
	}
	if strings.Count(stderr, `"msg":"listening"`) == 0 {
		t.Error("the service waited for the plugin before it listened")
	}

	u, block := newUnderstudy(t, "driver", "sqlite", "exit 1")
	d = prepare(t, setup{cache: "driver = driver.mine", more: block + driver})
	d.launchLame()
	d.eventually("the plugin has failed", func() bool { return d.plugin("sqlite").LastError != "" })
	u.play(t, "")
	d.eventually("the mistake is named in one line", func() bool {
		why := d.plugin("sqlite").LastError
		return strings.Contains(why, "busy_timeoud") && strings.Contains(why, "config.hcl:") && !strings.Contains(why, "\n")
	})
}
