package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"

	"github.com/imgcache/imgcache-host/sdk"
)

// lastWords is how long the outputs of a process are still read after its end. They
// end by themselves, unless another process that it has started holds them.
const lastWords = 500 * time.Millisecond

// child is a process of the operating system, and the runner with which go-plugin
// works. The runner of go-plugin is not used: it would let plugins read the host's
// standard input, leave their sockets in the directory for temporary files, and wait
// without limit if another process holds the outputs of a plugin that has ended.
type child struct {
	cmd            *exec.Cmd
	output, stderr io.ReadCloser
	stdout         io.ReadCloser // what go-plugin reads of the output
	place          *endpoint     // where it may listen
	said           *transcript
	heard          chan struct{} // closed when standard error has ended
	zombie         chan struct{} // closed when the process has ended
	reported       chan struct{} // closed when both have ended and status is set

	mu     sync.Mutex
	reaped bool  // it was, or is being reaped: its id may belong to another process
	status error // how it ended; nil: with exit code 0
}

var _ runner.Runner = (*child)(nil)

// newChild prepares a command, which ends with its context. Its standard error goes
// to said.
func newChild(cmd *exec.Cmd, said *transcript) (*child, error) {
	c := &child{cmd: cmd, said: said, heard: make(chan struct{}), zombie: make(chan struct{}), reported: make(chan struct{})}
	cmd.Cancel = c.kill
	var err error
	if c.output, err = cmd.StdoutPipe(); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	if c.stderr, err = cmd.StderrPipe(); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	return c, nil
}

// listenIn says in which directory the process may listen. It is called before
// the process is started.
func (c *child) listenIn(dir string) (err error) {
	c.place, err = newEndpoint(dir, c.leads)
	return err
}

// leads returns an error unless a process belongs to the process group of this one,
// with which it is killed.
func (c *child) leads(pid int) error {
	if pid <= 0 {
		return errors.New("it is not a process of this system")
	}
	group, err := unix.Getpgid(pid)
	if err != nil {
		return fmt.Errorf("find process %d: %w", pid, err)
	}
	if own := c.cmd.Process.Pid; group != own {
		return fmt.Errorf("process %d is in the process group %d; expected %d, that of the plugin", pid, group, own)
	}
	return nil
}

// Start implements [runner.Runner]. It returns when the process has said where it
// listens. If the process does not, or may not listen there, Start kills it and
// returns an error.
func (c *child) Start(ctx context.Context) error {
	if err := c.cmd.Start(); err != nil {
		c.place.close()
		return err
	}
	go c.awaitEnd()
	go c.hear()
	err := c.handshake(ctx)
	if err != nil { // go-plugin does not wait for a process whose start failed
		_ = c.kill()
		go func() { _ = c.Wait(ctx) }()
		select {
		case <-c.ended():
		case <-time.After(killTimeout):
		}
	}
	return err
}

// hear reads standard error to its end.
func (c *child) hear() {
	defer close(c.heard)
	l := &lines{to: c.said}
	_, _ = io.Copy(l, c.stderr)
	l.flush()
	c.said.end()
}

// awaitEnd waits for the process without reaping it, so that no other process can
// get its id while its process group is killed.
func (c *child) awaitEnd() {
	defer close(c.zombie)
	for errors.Is(unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	_ = c.kill()
	for _, out := range []io.ReadCloser{c.output, c.stderr} {
		if f, ok := out.(interface{ SetReadDeadline(time.Time) error }); ok {
			_ = f.SetReadDeadline(time.Now().Add(lastWords))
		}
	}
}

// Wait implements [runner.Runner]. It is called when standard output was read to its
// end.
func (c *child) Wait(context.Context) error {
	<-c.zombie
	<-c.heard
	c.mu.Lock()
	c.reaped = true
	c.mu.Unlock()
	c.place.close()
	status := c.cmd.Wait() // not under the lock: it may wait for Cancel, which is kill
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
	close(c.reported)
	return status
}

// running reports whether the process has not ended yet.
func (c *child) running() bool {
	select {
	case <-c.zombie:
		return false
	default:
		return true
	}
}

// ended returns a channel that is closed when the process has ended and its standard
// error was read.
func (c *child) ended() <-chan struct{} { return c.reported }

// end says how the process ended. It is valid when ended is closed.
func (c *child) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == nil {
		return errors.New("the process ended")
	}
	return fmt.Errorf("the process ended: %w", c.status)
}

// kill kills the process and all others in its process group. It does not wait.
func (c *child) kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped || c.cmd.Process == nil {
		return nil
	}
	return syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
}

// Kill implements [runner.Runner].
func (c *child) Kill(context.Context) error { return c.kill() }

// Stdout implements [runner.Runner]. It has only the line that go-plugin must read,
// and nothing that the process prints after its own first line.
func (c *child) Stdout() io.ReadCloser { return c.stdout }

// Stderr implements [runner.Runner]. It is empty for go-plugin.
func (c *child) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name implements [runner.Runner].
func (c *child) Name() string { return c.cmd.Path }

// ID implements [runner.Runner].
func (c *child) ID() string {
	if c.cmd.Process == nil {
		return "none"
	}
	return strconv.Itoa(c.cmd.Process.Pid)
}

// Diagnose implements [runner.Runner]. It adds nothing; [process.explain] adds what
// the plugin has said.
func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost implements [runner.Runner]. It accepts the address of the handshake,
// and refuses all others, which a plugin could name to the broker of go-plugin.
func (c *child) PluginToHost(network, addr string) (string, string, error) {
	if network != "unix" || addr != agreedAddr {
		return "", "", fmt.Errorf("%w: a plugin may not name addresses; got %s %s", sdk.ErrInvalid, quoted(network), quoted(addr))
	}
	return network, addr, nil
}

// HostToPlugin implements [runner.Runner]. The host does not listen for plugins.
func (c *child) HostToPlugin(string, string) (string, string, error) {
	return "", "", errors.ErrUnsupported
}
