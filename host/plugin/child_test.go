package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/sdk"
)

// sockets returns the sockets of the plugins that run.
func (s *stage) openSockets(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.sockets, "plugin-dir*", "plugin*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSocketsArePrivate: a socket lies where only the host gets at it, and
// leaves with its process, even with one that was killed.
func TestSocketsArePrivate(t *testing.T) {
	s := newStage(t)
	p := s.play(t, "well")
	pid := p.Status().PID
	found := s.openSockets(t)
	if len(found) != 1 {
		t.Fatalf("the sockets are %q, want one", found)
	}
	for _, dir := range []string{s.sockets, filepath.Dir(found[0])} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the mode of %s is %v, %v", dir, info.Mode(), err)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the plugin is back", func() bool { st := p.Status(); return st.State == stateRunning && st.PID != pid })
	if again := s.openSockets(t); len(again) != 1 || again[0] == found[0] {
		t.Errorf("after a restart the sockets are %q", again)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.sockets); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestLongestRunDir: with a run directory of the length that is allowed a
// plugin gets its socket, and with a longer one there is no supervisor.
func TestLongestRunDir(t *testing.T) {
	base, err := os.MkdirTemp("/tmp", "ic")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir := filepath.Join(base, strings.Repeat("x", maxRunDir-len(base)-1))
	if _, err := New(Config{RunDir: dir + "x"}); err == nil || !strings.Contains(err.Error(), "expected at most") {
		t.Errorf("a path that is too long: %v", err)
	}
	s, err := New(Config{RunDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for range 20 { // the names of sockets have random lengths
		p, err := s.Start(t.Context(), spec("well"))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInputIsNotShared: what is typed or piped into the host is not for
// plugins.
func TestInputIsNotShared(t *testing.T) {
	s := newStage(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stdin
	t.Cleanup(func() {
		os.Stdin = before
		_, _ = r.Close(), w.Close()
	})
	os.Stdin = r
	p := s.play(t, "well")
	input, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", p.Status().PID))
	if err != nil || input != os.DevNull {
		t.Errorf("the input of the plugin is %s, %v", input, err)
	}
}

// TestEndsAndIsKilledAtOnce: a process ends by itself while its context does.
func TestEndsAndIsKilledAtOnce(t *testing.T) {
	for range 300 {
		ctx, cancel := context.WithCancel(t.Context())
		c, err := newChild(exec.CommandContext(ctx, "true"), newTranscript(slog.New(slog.DiscardHandler)))
		if err == nil {
			err = c.listenIn(t.TempDir())
		}
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			<-c.heard
			cancel()
		}()
		if err := c.Start(ctx); err == nil {
			t.Error("a process that says nothing has started")
		}
		<-c.ended()
	}
}

// startedBy has the plugin start a process, and returns that one's id.
func startedBy(t *testing.T, p *Plugin) (pid int) {
	t.Helper()
	err := p.Driver().Apply(t.Context(), now())
	if err == nil {
		t.Fatal("the plugin has started nothing")
	}
	_, text, _ := strings.Cut(err.Error(), "pid=")
	if pid, err = strconv.Atoi(text); err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestOutputsHeldByAnother kills a plugin that has left a process behind, out
// of its group, which holds its outputs. The host does not wait for that one.
func TestOutputsHeldByAnother(t *testing.T) {
	s := newStage(t)
	p := s.play(t, "abandoner")
	holder := startedBy(t, p)
	if err := syscall.Kill(p.Status().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the plugin is back", func() bool { return p.Epoch() == 2 && p.Status().State == stateRunning })
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(holder, syscall.SIGKILL); err != nil {
		t.Errorf("the process was waited for: %v", err)
	}
}

// TestPluginEndsWithItsChildren kills a plugin that has started a process.
func TestPluginEndsWithItsChildren(t *testing.T) {
	s := newStage(t)
	p := s.play(t, "parent")
	child := startedBy(t, p)
	if err := syscall.Kill(p.Status().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "its child is gone", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		// Nobody may reap it where process 1 is none that does.
		return errors.Is(err, fs.ErrNotExist) || strings.Contains(string(state), ") Z ")
	})
}

// TestStartGivenUp: a caller need not wait for a handshake that does not come.
func TestStartGivenUp(t *testing.T) {
	s := newStage(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for {
			if made, _ := os.ReadDir(s.sockets); len(made) > 0 || ctx.Err() != nil {
				return
			}
		}
	}()
	if _, err := s.Start(ctx, spec("mute")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Start(ctx, spec("well")); !errors.Is(err, context.Canceled) {
		t.Errorf("after that: %v", err)
	}
}

// TestPluginOutlivesTheStart: the context of Start ends no plugin that runs.
func TestPluginOutlivesTheStart(t *testing.T) {
	s := newStage(t)
	ctx, cancel := context.WithCancel(t.Context())
	p, err := s.Start(ctx, spec("well"))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := p.Driver().Apply(t.Context(), sdk.Batch{Source: "s", Seq: 1}); err != nil {
		t.Error(err)
	}
	if st := p.Status(); st.State != stateRunning || st.Restarts != 0 {
		t.Errorf("status %+v", st)
	}
}

// TestLogNamesThePlugin: no plugin writes a line in the name of another, or
// one without end.
func TestLogNamesThePlugin(t *testing.T) {
	s := newStage(t)
	if err := s.play(t, "forger").Driver().Apply(t.Context(), now()); err != nil {
		t.Fatal(err)
	}
	var line string
	until(t, "the line is logged", func() bool {
		for l := range strings.Lines(s.log.String()) {
			if strings.Contains(l, "I am another") {
				line = l
			}
		}
		return line != ""
	})
	for _, want := range []string{`"level":"ERROR"`, `"plugin":"actor"`, `"plugin_":"sqlite"`, `"level_":"INFO"`} {
		if !strings.Contains(line, want) {
			t.Errorf("the line lacks %s", want)
		}
	}
	if strings.Contains(line, `"plugin":"sqlite"`) || len(line) > 2*maxLogged {
		t.Errorf("a line of %d bytes: %.300s", len(line), line)
	}
}

// TestLinesThatMakeNoSense: nothing that a plugin says does harm to the host.
func TestLinesThatMakeNoSense(t *testing.T) {
	s := newStage(t)
	if err := s.play(t, "evil").Driver().Apply(t.Context(), now()); err != nil {
		t.Fatal(err)
	}
	until(t, "the last line is logged", func() bool { return strings.Contains(s.log.String(), "xxx") })
	for line := range strings.Lines(s.log.String()) {
		if len(line) > 2*maxLogged {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

// TestPrintedLines: what a plugin prints while it serves is not lost.
func TestPrintedLines(t *testing.T) {
	s := newStage(t)
	if err := s.play(t, "printer").Driver().Apply(t.Context(), now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"printed to the output", "printed to the error"} {
		until(t, want, func() bool { return strings.Contains(s.log.String(), want) })
	}
}

func FuzzLine(f *testing.F) {
	for _, seed := range []string{"", "text", `{"@message":"a","@level":"warn","n":{"m":[1,null]}}`, `{"@message":1}`, "panic: x", "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var log strings.Builder
		said := newTranscript(slog.New(slog.NewJSONHandler(&log, nil)))
		l := &lines{to: said}
		_, _ = l.Write(text)
		l.flush()
		said.end()
		for line := range strings.Lines(log.String()) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%q became %q", text, line)
			}
		}
		if len(said.summary()) > maxSaid+10 {
			t.Errorf("a summary of %d bytes", len(said.summary()))
		}
	})
}
