package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/plugin"
)

// debugged is a plugin that somebody has started by hand.
type debugged struct {
	cmd      *exec.Cmd
	variable string // for the service: NAME=VALUE
}

// debug starts a plugin as its author does, and reads the line that it prints.
func debug(t *testing.T, path string) debugged {
	t.Helper()
	cmd := exec.Command(path, "--debug")
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp") // a socket has a short path
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if variable, ok := strings.CutPrefix(lines.Text(), "export "); ok {
			name, value, _ := strings.Cut(variable, "=")
			return debugged{cmd, name + "=" + strings.Trim(value, "'")}
		}
	}
	t.Fatal("the plugin prints no line for the service")
	return debugged{}
}

// TestReattach has the service use a driver that its author has started, who
// stops it as a debugger does: nothing fails meanwhile, nobody kills it, and the
// hits are counted when it goes on. It outlives the service and serves the next
// one; when it has ended, the status says what to do.
func TestReattach(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	steady := &counted{img: origin.add("steady", 100_000)}
	theirs := debug(t, buildPlugin(t, "../../plugins/examples/go-driver"))
	d := prepare(t, setup{
		origin: origin.block(), cache: "driver = driver.records\n", env: theirs.variable,
		more: "driver \"onefile\" \"records\" {}\nplugin \"onefile\" {\n  kind = \"driver\"\n  limits {\n    timeout = \"1s\"\n  }\n}\n",
	})
	if err := os.RemoveAll(filepath.Join(d.bin, "data", "plugins", "onefile")); err != nil {
		t.Fatal(err)
	}
	d.launch()
	d.eventually("the records are there", func() bool { return d.usage().Records == "ready" })
	if p := d.plugin("onefile"); p.PID != theirs.cmd.Process.Pid || !p.Reattached || len(p.Walls) > 0 || p.SHA256 != "" {
		t.Errorf("the driver is %+v", p)
	}
	steady.judge(t, steady.img, d.get("steady"))

	signal := func(s syscall.Signal) {
		if err := theirs.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	for range 20 {
		steady.judge(t, steady.img, d.get("steady"))
	}
	d.eventually("records wait for the driver", func() bool { return d.usage().Unsent > 0 })
	d.eventually("they wait longer than the driver may take otherwise", func() bool {
		u := d.usage()
		return u.RecordsError == "" && !u.UnsentSince.IsZero() && time.Since(u.UnsentSince) > 2*time.Second
	})
	signal(syscall.SIGCONT)
	d.eventually("all records are sent", func() bool { return d.usage().Unsent == 0 })
	d.wantHits(steady.hits.Load())
	if out, _ := d.run(1, "plugin", "reload", "onefile"); strings.Contains(out, "reloaded") {
		t.Errorf("plugin reload: %s", out)
	}
	d.stop()
	d.restart()
	d.eventually("the records are there", func() bool { return d.usage().Records == "ready" })
	d.wantHits(steady.hits.Load())
	if p := d.plugin("onefile"); p.PID != theirs.cmd.Process.Pid || p.Restarts > 0 {
		t.Errorf("after a restart of the service the driver is %+v", p)
	}
	signal(syscall.SIGKILL)
	_ = theirs.cmd.Wait()
	d.eventually("it is said what to do", func() bool { return strings.Contains(d.plugin("onefile").LastError, "start it again with --debug") })
	steady.judge(t, steady.img, d.get("steady"))
}

// TestReattachIsRefused: what cannot be is said at the start.
func TestReattachIsRefused(t *testing.T) {
	t.Parallel()
	const form = `{%q:{"Protocol":"grpc","ProtocolVersion":%d,"Pid":%d,"Addr":{"Network":"unix","String":"/tmp/none"}}}`
	for name, c := range map[string]struct{ text, more, want string }{
		"no JSON":      {"sqlite", "", "expected the line that a plugin prints when it is started with --debug"},
		"no process":   {fmt.Sprintf(form, "sqlite", 1, 0), "", "sqlite: expected the protocol grpc"},
		"version":      {fmt.Sprintf(form, "sqlite", 2, 1), "", "speaks version 2 of the contract"},
		"unknown name": {fmt.Sprintf(form, "sqlight", 1, 1), "", `names "sqlight", but this configuration uses the driver sqlite and the policy lru`},
		"walls":        {fmt.Sprintf(form, "sqlite", 1, 1), "confinement = \"required\"\n", "allows no plugin without walls"},
	} {
		d := prepare(t, setup{more: c.more, env: plugin.ReattachEnv + "=" + c.text})
		d.spawn()
		if err := d.wait(); !errors.As(err, new(*exec.ExitError)) || !strings.Contains(d.logs[0].String(), c.want) {
			t.Errorf("%s: %v, want %q:\n%s", name, err, c.want, d.logs[0])
		}
	}
}
