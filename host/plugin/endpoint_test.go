package plugin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// newPlace returns an endpoint in a new directory, at which any process may
// listen.
func newPlace(t *testing.T) *endpoint {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ic") // a socket has a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	e, err := newEndpoint(dir, func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	return e
}

// connect dials the socket of an endpoint once.
func connect(t *testing.T, e *endpoint) error {
	t.Helper()
	conn, err := e.dial(t.Context(), "")
	if err != nil {
		return err
	}
	return conn.Close()
}

// TestExchangedSocket: what stands under the name of a socket after it was
// looked at is never dialled, nor is another directory under the name of its
// own.
func TestExchangedSocket(t *testing.T) {
	e := newPlace(t)
	path := filepath.Join(e.path, "s")
	first, second := newCounter(t, "unix", path), newCounter(t, "unix", filepath.Join(e.path, "other"))
	if err := e.take(path); err != nil {
		t.Fatal(err)
	}
	exchanges := []func() error{
		func() error { return os.Remove(path) },
		func() error { return os.Symlink(second.Addr().String(), path) },
		func() error { return os.Rename(second.Addr().String(), path) },
		func() error { return os.Rename(e.path, e.path+"x") },
		func() error { return os.Symlink("/tmp", e.path) },
	}
	t.Cleanup(func() { os.RemoveAll(e.path + "x") })
	for i, exchange := range exchanges {
		if err := exchange(); err != nil {
			t.Fatal(err)
		}
		if err := connect(t, e); err != nil {
			t.Errorf("after exchange %d: %v", i, err)
		}
		until(t, "the connection is counted", func() bool { return first.connections.Load() == int64(i+1) })
	}
	if n := second.connections.Load(); n != 0 {
		t.Errorf("the other socket was dialled %d times", n)
	}
}

// TestExchangedAllTheTime takes a path at which a socket and a link to another
// one stand by turns.
func TestExchangedAllTheTime(t *testing.T) {
	e := newPlace(t)
	path, socket, link := filepath.Join(e.path, "s"), filepath.Join(e.path, "socket"), filepath.Join(e.path, "link")
	right, wrong := newCounter(t, "unix", socket), newCounter(t, "unix", filepath.Join(e.path, "wrong"))
	if err := os.Symlink(wrong.Addr().String(), link); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			for _, thing := range []string{socket, link} {
				err := errors.Join(os.Rename(thing, path), os.Rename(path, thing))
				select {
				case <-stop:
					stopped <- err
					return
				default:
				}
			}
		}
	}()
	const attempts = 100 // that find the socket
	for taken := 0; taken < attempts; {
		if e.take(path) != nil {
			continue
		}
		taken++
		if err := connect(t, e); err != nil {
			t.Error(err)
		}
		_ = e.socket.Close()
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	until(t, "all are counted", func() bool { return right.connections.Load() == attempts })
	wrong.wantNone(t)
}

// TestSocketOfAnother: neither a socket of another user nor one at which another
// user or process listens is that of the plugin.
func TestSocketOfAnother(t *testing.T) {
	e := newPlace(t)
	c := newCounter(t, "unix", filepath.Join(e.path, "s"))
	e.uid++
	if err := e.take(c.Addr().String()); err == nil || !strings.Contains(err.Error(), "belongs to the user") {
		t.Errorf("a socket of another user: %v", err)
	}
	e.uid--
	if err := e.take(c.Addr().String()); err != nil {
		t.Fatal(err)
	}
	e.uid++
	if err := connect(t, e); err == nil || !strings.Contains(err.Error(), "belongs to a process of the user") {
		t.Errorf("another user listens: %v", err)
	}
	e.uid--
	e.belongs = func(int) error { return (&child{}).leads(0) }
	if err := connect(t, e); err == nil || !strings.Contains(err.Error(), "to another process: it is not a process of this system") {
		t.Errorf("nobody knows who listens: %v", err)
	}
	e.close()
	if err := connect(t, e); err == nil {
		t.Errorf("after the end: %v", err)
	}
	if n := c.bytes.Load(); n != 0 {
		t.Errorf("%d bytes were sent", n)
	}
}

// TestNoSocketTaken: before a socket is named there is nothing to dial.
func TestNoSocketTaken(t *testing.T) {
	if err := connect(t, newPlace(t)); err == nil {
		t.Error("something was dialled")
	}
	if _, err := newEndpoint(filepath.Join(t.TempDir(), "absent"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	for _, network := range []string{"tcp", "unix"} {
		if _, _, err := (&child{}).PluginToHost(network, "127.0.0.1:1"); err == nil {
			t.Errorf("an address of %s is taken", network)
		}
	}
	if _, _, err := (&child{}).HostToPlugin("unix", "/socket"); err == nil {
		t.Error("the host listens for a plugin")
	}
}
