package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/client"
)

// lockedCache is a cache whose policy is a module of somebody else.
type lockedCache struct {
	*daemon
	module string
}

func newLockedCache(t *testing.T, more string) *lockedCache {
	module := filepath.Join(t.TempDir(), "mine.wasm")
	c := &lockedCache{module: module, daemon: prepare(t, setup{
		cache: "policy = policy.mine",
		more:  fmt.Sprintf("%s\npolicy \"mine\" \"mine\" {}\nplugin \"mine\" {\n  kind = \"policy\"\n  wasm = %q\n}\n", more, module),
	})}
	c.put("flood")
	return c
}

// put makes a module of the corpus, which is small, the module, in place.
func (c *lockedCache) put(name string) {
	c.t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "testdata", "wasm", name+".wasm"))
	if err == nil {
		err = os.WriteFile(c.module, content, 0o644)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// command runs the command line, which must work.
func (c *lockedCache) command(args ...string) string {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(c.bin, "imgcache-host"), append(args, "--config", c.config)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// plugin returns the state of a plugin.
func (c *lockedCache) plugin(name string) client.Plugin {
	c.t.Helper()
	list, err := c.api.Plugins(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, p := range list {
		if p.Name == name {
			return p
		}
	}
	c.t.Fatalf("there is no plugin %s", name)
	return client.Plugin{}
}

// TestOnlyWhatIsLockedRuns: with a lock file beside the configuration another
// module is not started. Images are served all the same, and after a new lock
// the module runs.
func TestOnlyWhatIsLockedRuns(t *testing.T) {
	c := newLockedCache(t, "")
	lockFile := filepath.Join(filepath.Dir(c.config), "plugins.lock.json")
	c.command("plugin", "lock")
	c.launch()
	locked := c.plugin("mine")
	if locked.State != "running" || len(locked.SHA256) != 64 || c.plugin("sqlite").State != "running" {
		t.Fatalf("what is locked: %+v", locked)
	}

	c.put("nan")
	if _, err := c.api.Reload(t.Context(), "mine"); err == nil || !strings.Contains(err.Error(), "holds "+locked.SHA256) {
		t.Errorf("another module takes the place of the one that runs: %v", err)
	}
	if p := c.plugin("mine"); p.PID != locked.PID || p.SHA256 != locked.SHA256 {
		t.Errorf("what is locked runs no longer: %+v", p)
	}
	c.stop()
	c.launchLame()
	c.eventually("the other module is refused", func() bool { return c.plugin("mine").LastError != "" })
	p := c.plugin("mine")
	for _, want := range []string{c.module, lockFile, "holds " + locked.SHA256, "plugin lock"} {
		if p.PID != 0 || !strings.Contains(p.LastError, want) {
			t.Errorf("another module: %+v, want an error with %q", p, want)
		}
	}
	c.eventually("the driver runs", func() bool { return c.plugin("sqlite").State == "running" })
	if resp := c.get("none"); resp.status != 404 {
		t.Errorf("an image that the origin lacks: %d", resp.status)
	}
	c.command("plugin", "lock")
	c.stop()
	c.launch()
	if p := c.plugin("mine"); p.SHA256 == locked.SHA256 {
		t.Errorf("what is locked now: %+v", p)
	}
}

// TestOnlyWhatIsSignedRuns: with trusted keys what nobody has signed is not
// started, but for what is shipped.
func TestOnlyWhatIsSignedRuns(t *testing.T) {
	dir := t.TempDir()
	key, public := filepath.Join(dir, "key.pem"), filepath.Join(dir, "acme.pem")
	openssl := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	openssl("genpkey", "-algorithm", "ed25519", "-out", key)
	openssl("pkey", "-in", key, "-pubout", "-out", public)
	c := newLockedCache(t, fmt.Sprintf("trusted_keys = [%q]", public))
	c.launchLame()
	c.eventually("the module is refused", func() bool {
		return strings.Contains(c.plugin("mine").LastError, "is not signed")
	})
	openssl("pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", c.module, "-out", c.module+".sig")
	c.eventually("the signed module runs", func() bool { return c.plugin("mine").Signature == "acme.pem" })
	if p := c.plugin("sqlite"); p.Signature != "shipped with imgcache-host" {
		t.Errorf("what is shipped: %+v", p)
	}
}
