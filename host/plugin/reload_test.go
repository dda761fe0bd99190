package plugin

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/sdk"
)

// accept is the trial of a driver that has nothing to prove.
func accept(context.Context, *Plugin, func()) error { return nil }

// startFile starts this binary in a role, from a file that a test exchanges.
func (s *stage) startFile(t *testing.T, kind sdk.Kind, role string) (p *Plugin, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "plugin")
	putRole(t, path, role)
	p, err := s.Start(t.Context(), Spec{Name: "actor", Kind: kind, Path: path, Read: []string{filepath.Dir(os.Args[0])}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Configure(t.Context(), sdk.Settings{Options: sdk.Config{"greeting": "hello"}}); err != nil {
		t.Fatal(err)
	}
	return p, path
}

// putRole puts a script in place that is this binary in a role.
func putRole(t *testing.T, path, role string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\n" + actAs + "='" + role + "' exec " + self + "\n"
	if err := os.WriteFile(path+".new", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestReloadDriver: calls wait for the exchange, the old process has gone when
// the new one starts, and a second reload is told to wait.
func TestReloadDriver(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p, path := s.startFile(t, sdk.KindDriver, "well")
	putRole(t, path, "notfound")
	old, called := p.Status(), make(chan error, 1)
	err := p.Reload(t.Context(), func(ctx context.Context, next *Plugin, _ func()) error {
		if err := p.Reload(ctx, accept); !errors.Is(err, ErrBusy) {
			t.Errorf("a second reload: %v", err)
		}
		if st := p.Status(); st.State != stateReloading || st.PID != 0 {
			t.Errorf("while the new driver is tried: %+v", st)
		}
		given, cancel := context.WithCancel(ctx)
		cancel()
		if err := p.Driver().Apply(given, now()); !errors.Is(err, sdk.ErrUnavailable) {
			t.Errorf("a call that does not wait: %v", err)
		}
		go func() { called <- p.Driver().Apply(t.Context(), now()) }()
		return next.Driver().List(ctx, func([]sdk.Entry) error { return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-called; !errors.Is(err, sdk.ErrNotFound) {
		t.Errorf("the call that waited: %v, want an answer of the new driver", err)
	}
	if st := p.Status(); st.State != stateRunning || st.PID == old.PID || st.Restarts != 0 {
		t.Errorf("after the reload: %+v", st)
	}
}

// TestReloadIsRejected: what runs goes on, and is what is started from then on,
// until its file is good again.
func TestReloadIsRejected(t *testing.T) {
	t.Parallel()
	for kind, role := range map[sdk.Kind]string{sdk.KindDriver: "well", sdk.KindPolicy: "sieve"} {
		s := newStage(t)
		p, path := s.startFile(t, kind, role)
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho no more >&2\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		old := p.Status()
		err := p.Reload(t.Context(), accept)
		if err == nil || !strings.Contains(err.Error(), "no more") || !strings.Contains(p.Status().LastError, "no more") {
			t.Errorf("%s: %v; status %+v", kind, err, p.Status())
		}
		refused := errors.New("it fails its trial")
		putRole(t, path, role)
		err = p.Reload(t.Context(), func(context.Context, *Plugin, func()) error { return refused })
		if !errors.Is(err, refused) {
			t.Errorf("%s: %v, want %v", kind, err, refused)
		}
		st := p.Status()
		if st.State != stateRunning || (st.PID == old.PID) != (kind == sdk.KindPolicy) {
			t.Errorf("%s: %+v, was %+v", kind, st, old)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho no more >&2\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(p.Status().PID, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		until(t, "the old bytes run again", func() bool { return p.Status().Restarts == 1 })
		putRole(t, path, role)
		if err := p.Reload(t.Context(), accept); err != nil {
			t.Errorf("%s: reload of a good file: %v", kind, err)
		}
		if st := p.Status(); st.LastError != "" || st.Restarts != 1 {
			t.Errorf("%s: %+v", kind, st)
		}
	}
}

// TestReloadWhileDown brings a plugin up that waits for its next attempt.
func TestReloadWhileDown(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	path := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := s.Plugin(Spec{Name: "actor", Kind: sdk.KindDriver, Path: path, Read: []string{filepath.Dir(os.Args[0])}}, nil)
	p.Run(nil)
	if err := <-p.First(); err == nil {
		t.Fatal("it runs")
	}
	until(t, "it waits for long", func() bool { return p.Status().State == stateBroken })
	if err := p.Reload(t.Context(), accept); err == nil {
		t.Error("a reload of what does not start went well")
	}
	putRole(t, path, "well")
	if err := p.Reload(t.Context(), accept); err != nil {
		t.Error(err)
	}
	if st := p.Status(); st.State != stateRunning || st.LastError != "" {
		t.Errorf("%+v", st)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Reload(t.Context(), accept); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("a reload after the end: %v", err)
	}
}
