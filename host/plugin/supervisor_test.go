package plugin

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/plugin/confine"
	"github.com/imgcache/imgcache-host/host/wasm"
	"github.com/imgcache/imgcache-host/plugins/builtin/lru"
	"github.com/imgcache/imgcache-host/plugins/builtin/sieve"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
	"github.com/imgcache/imgcache-host/sdk/serve"
	"go.uber.org/goleak"
)

// patience bounds every wait; nothing is expected to take so long.
const patience = time.Minute

// stdout and stderr are the outputs of the process. While it serves as a
// plugin, os.Stdout and os.Stderr are pipes of go-plugin.
var stdout, stderr = os.Stdout, os.Stderr

// actAs tells the test binary, started as a plugin or as a host, what to be.
const actAs = "IMGCACHE_TEST_ACT_AS"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confine.Command {
		os.Exit(confine.Main(os.Args[2:], os.Stderr))
	}
	switch role := os.Getenv(actAs); role {
	case "":
		goleak.VerifyTestMain(m)
	case "prober":
		serve.Main(sdk.Manifest{Name: "actor", Version: "1.0.0", Kind: sdk.KindPolicy, Capabilities: []sdk.Capability{sdk.CapScore}}, prober{})
	case "mute":
		select {}
	case "garbage":
		for {
			fmt.Println(strings.Repeat("x", 1000))
		}
	case "ugly":
		m := manifest
		m.Version = "1\x1b[2J"
		serve.Main(m, &actor{role: role})
	case "bare":
		serveBare()
	case "speaker":
		speak()
	case "later":
		m := manifest
		m.MinProtocol, m.MaxProtocol = 3, 5
		serve.Main(m, &actor{role: role})
	case "host":
		actAsHost()
	case "runner":
		os.Exit(wasm.RunnerMain(os.Args[2:], os.Stderr))
	case "lru":
		serve.Main(lru.Manifest, lru.New())
	case "sieve":
		serve.Main(sieve.Manifest, sieve.New())
	case "freezing policy":
		serve.Main(lru.Manifest, sdk.ScoreFunc(func(*sdk.Record, time.Time) float64 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			select {} // the signal may come a moment later
		}))
	case "member":
		m := manifest
		m.Capabilities = []sdk.Capability{sdk.CapNodes, sdk.CapHeartbeat}
		serve.Main(m, &member{})
	default:
		serve.Main(manifest, &actor{role: role})
	}
}

// member is a driver that several nodes share.
type member struct {
	sdktest.Memory
	beats int64
}

func (m *member) Heartbeat(context.Context) error {
	m.beats++
	return nil
}

func (m *member) Nodes(_ context.Context, id string) ([]sdk.Node, error) {
	if id == "strange" {
		return strangeNodes(), nil
	}
	return []sdk.Node{{Name: "near", URL: "https://near.example/" + id, Seen: time.Unix(m.beats, 1).UTC()}}, nil
}

var manifest = sdk.Manifest{
	Name: "actor", Version: "1.2.3", Kind: sdk.KindDriver,
	Options: []sdk.Option{{Name: "greeting", Type: sdk.TypeString}},
}

// actor is a driver that plays a role at its first batch with an operation on
// the id "now".
type actor struct {
	sdktest.Memory
	role     string
	settings sdk.Settings
}

func (a *actor) Notes() []string {
	if note := a.settings.Options["note"]; note != "" {
		return []string{note}
	}
	return nil
}

func (a *actor) Configure(_ context.Context, s sdk.Settings) error {
	a.settings = s
	if s.Options["greeting"] == "refuse" {
		return fmt.Errorf("%w: greeting: nobody greets like that", sdk.ErrInvalid)
	}
	return nil
}

func (a *actor) Apply(ctx context.Context, b sdk.Batch) error {
	if len(b.Ops) == 0 || b.Ops[0].Entry.ID != "now" {
		return a.Memory.Apply(ctx, b)
	}
	switch a.role {
	case "crash":
		panic("the actor crashes as told")
	case "hang":
		<-make(chan struct{})
	case "exit":
		os.Exit(7)
	case "notfound":
		return fmt.Errorf("no such thing: %w", sdk.ErrNotFound)
	case "unsupported":
		return fmt.Errorf("not here: %w", sdk.ErrUnsupported)
	case "other":
		return errors.New("an error of its own")
	case "environment":
		return fmt.Errorf("%w: %s greeting=%s", sdk.ErrInvalid, strings.Join(os.Environ(), " "), a.settings.Options["greeting"])
	case "parent":
		sleep := exec.Command("sleep", "1000")
		if err := sleep.Start(); err != nil {
			return err
		}
		return fmt.Errorf("%w: pid=%d", sdk.ErrNotFound, sleep.Process.Pid)
	case "abandoner":
		sleep := exec.Command("sleep", "1000")
		sleep.Stdout, sleep.Stderr = stdout, stderr
		sleep.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := sleep.Start(); err != nil {
			return err
		}
		return fmt.Errorf("%w: pid=%d", sdk.ErrNotFound, sleep.Process.Pid)
	case "forger":
		serve.Logger().Error("I am another", "plugin", "sqlite", "level", "INFO", "size", strings.Repeat("x", 20_000))
	case "evil":
		for _, line := range []string{`{"@message":1}`, `{"@message":"a","@level":[]}`, `{"@message":"a","@timestamp":null}`, "null", "[]", strings.Repeat("x", 1<<20)} {
			fmt.Fprintln(stderr, line)
		}
	case "babbler":
		for range 1 << 10 {
			if _, err := fmt.Fprint(stdout, strings.Repeat("x", 1<<10)); err != nil {
				return err
			}
		}
	case "printer":
		fmt.Println("printed to the output")
		fmt.Fprintln(os.Stderr, "printed to the error")
	case "flood":
		for range 200_000 {
			fmt.Fprintln(stderr, "level=ERROR msg=forged \x1b[31m")
		}
	}
	return nil
}

// now is the batch that makes the actor play.
func now() sdk.Batch {
	return sdk.Batch{Source: "s", Seq: 1, Ops: []sdk.Op{sdk.Delete("now")}}
}

// stage is a supervisor under test.
type stage struct {
	*Supervisor
	log *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ic") // a socket has a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	log := &lockedBuffer{}
	s, err := New(Config{RunDir: dir, Executable: os.Args[0], Log: slog.New(slog.NewJSONHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			text := log.String()
			t.Log(text[max(0, len(text)-4000):])
		}
	})
	return &stage{s, log}
}

func spec(role string) Spec {
	return Spec{
		Name: "actor", Kind: sdk.KindDriver, Path: os.Args[0],
		Env: map[string]string{actAs: role}, Timeout: 3 * time.Second,
		Read: []string{filepath.Dir(os.Args[0])}, // for the scripts that run it
	}
}

// play starts a plugin in a role and configures it.
func (s *stage) play(t *testing.T, role string) *Plugin {
	t.Helper()
	p, err := s.Start(t.Context(), spec(role))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Configure(t.Context(), sdk.Settings{Options: sdk.Config{"greeting": "hello"}}); err != nil {
		t.Fatal(err)
	}
	return p
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain until %s", patience, what)
		}
	}
}

func TestConformanceThroughAProcess(t *testing.T) {
	s := newStage(t)
	sdktest.Driver(t, func(t *testing.T) sdktest.Subject { return sdktest.Subject{Driver: s.play(t, "well").Driver()} })
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	s := newStage(t)
	for role, want := range map[string]error{
		"notfound": sdk.ErrNotFound, "unsupported": sdk.ErrUnsupported, "environment": sdk.ErrInvalid, "other": sdk.ErrUnavailable,
	} {
		p := s.play(t, role)
		if err := p.Driver().Apply(t.Context(), now()); !errors.Is(err, want) || !strings.Contains(err.Error(), "driver plugin actor") {
			t.Errorf("%s: %v, want %v of the driver plugin actor", role, err, want)
		}
		if st := p.Status(); st.State != stateRunning || st.Restarts != 0 || st.Errors != 1 {
			t.Errorf("%s: %+v, want a plugin that runs on", role, st)
		}
	}
}

// TestPluginThatEnds crashes, exits, hangs, is killed and is stopped. Each
// time it comes back, configured, and the reason is known.
func TestPluginThatEnds(t *testing.T) {
	for _, tt := range []struct {
		role, why string
		signal    syscall.Signal
	}{
		{role: "crash", why: "panic: the actor crashes as told"},
		{role: "exit", why: "the process ended"},
		{role: "hang", why: "did not answer Apply within 3s"},
		{role: "environment", signal: syscall.SIGKILL, why: "the process ended"},
		{role: "environment", signal: syscall.SIGSTOP, why: "no sign of life"},
	} {
		t.Run(tt.role+" "+tt.signal.String(), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			p := s.play(t, tt.role)
			epoch, pid := p.Epoch(), p.Status().PID
			if tt.signal != 0 {
				if err := syscall.Kill(pid, tt.signal); err != nil {
					t.Fatal(err)
				}
			} else if err := p.Driver().Apply(t.Context(), now()); !errors.Is(err, sdk.ErrUnavailable) {
				t.Errorf("the call ended with %v", err)
			}
			until(t, "the plugin is back", func() bool { st := p.Status(); return st.State == stateRunning && st.PID != pid })
			st := p.Status()
			if st.Restarts != 1 || !strings.Contains(st.LastError, tt.why) || p.Epoch() != epoch+1 {
				t.Errorf("status %+v, epoch %d; want one restart because of %q", st, p.Epoch(), tt.why)
			}
			if panicked := st.LastPanic != nil && strings.Contains(st.LastPanic.Text, "crashes as told\n") &&
				strings.Contains(st.LastPanic.Text, "goroutine "); panicked != (tt.role == "crash") {
				t.Errorf("its last panic is %+v", st.LastPanic)
			}
			until(t, "the old process is gone", func() bool { return syscall.Kill(pid, 0) != nil })
			if tt.role == "environment" {
				if err := p.Driver().Apply(t.Context(), now()); err == nil || !strings.Contains(err.Error(), "greeting=hello") {
					t.Errorf("after the restart the plugin is not configured: %v", err)
				}
			}
		})
	}
}

// TestCallsFailAtOnceWhileDown: why a plugin is down is told, and is no answer
// to the call.
func TestCallsFailAtOnceWhileDown(t *testing.T) {
	s := newStage(t)
	p := s.play(t, "well")
	p.mu.Lock()
	p.proc, p.lastErr = nil, fmt.Errorf("%w: the option was refused", sdk.ErrInvalid)
	p.mu.Unlock()
	err := p.Driver().Apply(t.Context(), now())
	if !errors.Is(err, sdk.ErrUnavailable) || errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), "option was refused") {
		t.Errorf("a call while the plugin is down: %v", err)
	}
	if st := p.Status(); st.Calls != st.Errors+1 || st.Errors != 1 { // Configure went well
		t.Errorf("%d calls, %d errors", st.Calls, st.Errors)
	}
}

// TestPluginThatCannotStart never gets through the handshake.
func TestPluginThatCannotStart(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for role, why := range map[string]string{
		"mute": "no line on standard output within 5s", "garbage": "handshake: it has 1 fields",
		"later": "too new: it speaks version 3 to 5 of the plugin protocol",
	} {
		if _, err := s.Start(t.Context(), spec(role)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want an error with %q", role, err, why)
		}
	}
	absent := spec("well")
	absent.Path = "/nonexistent/plugin"
	if _, err := s.Start(t.Context(), absent); err == nil {
		t.Error("a plugin that does not exist was started")
	}
	pinned := spec("well")
	pinned.SHA256 = strings.Repeat("0", 64)
	if _, err := s.Start(t.Context(), pinned); err == nil || !strings.Contains(err.Error(), "it is not started") {
		t.Errorf("a file with another sum: %v", err)
	}
	other := spec("well")
	other.Kind = sdk.KindPolicy
	if _, err := s.Start(t.Context(), other); err == nil || !strings.Contains(err.Error(), "it is a driver") {
		t.Errorf("a driver in place of a policy: %v", err)
	}
	if list := s.List(); len(list) != 0 {
		t.Errorf("%d plugins are kept", len(list))
	}
}

func TestConfigurationRefused(t *testing.T) {
	s := newStage(t)
	p := s.play(t, "well")
	err := p.Configure(t.Context(), sdk.Settings{Options: sdk.Config{"greeting": "refuse"}})
	if !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), "nobody greets like that") {
		t.Errorf("got %v", err)
	}
}

// TestNotes shows what a plugin says of itself, also after a restart.
func TestNotes(t *testing.T) {
	s := newStage(t)
	p := s.play(t, "well")
	if notes := p.Status().Notes; len(notes) != 0 {
		t.Errorf("its notes are %q, want none", notes)
	}
	want := []string{"it counts twice now and then"}
	if err := p.Configure(t.Context(), sdk.Settings{Options: sdk.Config{"note": want[0]}}); err != nil {
		t.Fatal(err)
	}
	if notes := p.Status().Notes; !slices.Equal(notes, want) {
		t.Errorf("its notes are %q, want %q", notes, want)
	}
	if err := syscall.Kill(p.Status().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "it runs again with its notes", func() bool {
		st := p.Status()
		return st.Restarts == 1 && slices.Equal(st.Notes, want)
	})
}

// TestNothingIsInherited puts a secret into the host's environment.
func TestNothingIsInherited(t *testing.T) {
	t.Setenv("IMGCACHE_TEST_SECRET", "canary")
	s := newStage(t)
	err := s.play(t, "environment").Driver().Apply(t.Context(), now())
	if err == nil || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "PATH=") {
		t.Errorf("the plugin sees %v", err)
	}
}

// TestFloodIsLimited has a plugin write 200 000 lines that look like ours.
func TestFloodIsLimited(t *testing.T) {
	s := newStage(t)
	flood := spec("flood")
	flood.Timeout = patience // the pipe is read as fast as the machine can, and no faster
	p := s.start(t, flood)
	if err := p.Driver().Apply(t.Context(), now()); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the flood is over", func() bool { return strings.Contains(s.log.String(), "lines were dropped") })
	if n := strings.Count(s.log.String(), "forged"); n < logBurst || n > 20*logBurst {
		t.Errorf("%d lines were logged, a burst has %d", n, logBurst)
	}
	for line := range strings.Lines(s.log.String()) {
		if !strings.HasPrefix(line, `{"time":`) || strings.Contains(line, "\x1b") {
			t.Errorf("a line that the host did not write: %q", line)
		}
	}
}

// TestBreaker kills a plugin again and again.
func TestBreaker(t *testing.T) {
	s := newStage(t)
	p := s.play(t, "well")
	pid := 0
	until(t, "the plugin is called broken", func() bool {
		st := p.Status()
		if st.State == stateRunning && st.PID != pid {
			pid = st.PID
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return st.State == stateBroken
	})
	st := p.Status()
	if st.Restarts < breakerTrips-2 || st.Breaker != breakerOpen || st.StandIn == "" {
		t.Errorf("a broken plugin: %+v", st)
	}
	p.mu.Lock()
	p.state = stateRunning // as after an attempt that went well
	p.mu.Unlock()
	if st := p.Status(); st.Breaker != breakerHalfOpen {
		t.Errorf("a plugin that proves itself: %+v", st)
	}
	if err := p.Reload(t.Context(), accept); err != nil {
		t.Error(err)
	}
	if st := p.Status(); st.Breaker != breakerClosed {
		t.Errorf("after a reload: %+v", st)
	}
}

// TestNoOrphans kills a host, which is this binary in another role, and wants
// its plugin to end too.
func TestNoOrphans(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "ic")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	host := exec.Command(os.Args[0])
	host.Env = append(os.Environ(), actAs+"=host", "IMGCACHE_TEST_DIR="+dir)
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	until(t, "the host has started its plugin", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "pid"))
		pid, _ = strconv.Atoi(string(b))
		return pid > 0
	})
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait()
	until(t, "the plugin is gone", func() bool { return syscall.Kill(pid, 0) != nil })
}

// certificate returns one that is valid, and was not asked for.
func certificate() []byte {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1)}
	b, err := x509.CreateCertificate(nil, of, of, public, private)
	if err != nil {
		panic(err)
	}
	return b
}

func actAsHost() {
	dir := os.Getenv("IMGCACHE_TEST_DIR")
	s, err := New(Config{RunDir: dir})
	if err != nil {
		panic(err)
	}
	p, err := s.Start(context.Background(), spec("well"))
	if err != nil {
		panic(err)
	}
	tmp := filepath.Join(dir, "pid.new")
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(p.Status().PID)), 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, "pid")); err != nil {
		panic(err)
	}
	select {}
}

func TestFind(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	for _, path := range []string{first + "/lru.wasm", second + "/lru.wasm", second + "/imgcache-driver-x", second + "/notes.txt"} {
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &Supervisor{cfg: Config{Dirs: []string{first, second}}}
	if spec, err := s.Find(sdk.KindPolicy, "lru"); err != nil || spec.Path != first+"/lru.wasm" || spec.runtime() != runtimeWasm {
		t.Errorf("lru is %+v, %v", spec, err)
	}
	if spec, err := s.Find(sdk.KindDriver, "x"); err != nil || spec.runtime() != runtimeProcess {
		t.Errorf("x is %+v, %v", spec, err)
	}
	if _, err := s.Find(sdk.KindDriver, "lru"); !errors.Is(err, sdk.ErrNotFound) || !strings.Contains(err.Error(), second) {
		t.Errorf("a driver lru: %v", err)
	}
	if got := s.Available(sdk.KindPolicy); strings.Join(got, " ") != "lru" {
		t.Errorf("policies are %v", got)
	}
}
