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

// lastWords is how long the outputs of a process are still read after its end.
// They end by themselves, unless a process that it left behind holds them.
const lastWords = 500 * time.Millisecond

// child is the operating system's side of a process: the runner that go-plugin
// works with. Its own one would let plugins read the host's standard input,
// leave their sockets in the directory for temporary files, and wait without
// limit for whoever holds the outputs of a plugin that has ended.
type child struct {
	cmd            *exec.Cmd
	output, stderr io.ReadCloser
	stdout         io.ReadCloser // what go-plugin reads of the output
	place          *endpoint     // where it may listen
	said           *transcript
	heard          chan struct{} // closed when standard error has ended
	zombie         chan struct{} // closed when the process has ended
	reported       chan struct{} // closed after all of it

	mu     sync.Mutex
	reaped bool  // or about to be: its id may belong to another process
	status error // how it ended; nil: with exit code 0
}

var _ runner.Runner = (*child)(nil)

// newChild prepares a command whose end is that of its context, too. What it
// says on standard error goes to said.
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

// leads says why a process is none that this one leads, and that ends with it.
func (c *child) leads(pid int) error {
	if pid <= 0 {
		return errors.New("it is not a process of this system")
	}
	group, err := unix.Getpgid(pid)
	if err != nil {
		return fmt.Errorf("find process %d: %w", pid, err)
	}
	if own := c.cmd.Process.Pid; group != own {
		return fmt.Errorf("process %d is of the process group %d, expected %d, that of the plugin", pid, group, own)
	}
	return nil
}

// Start implements [runner.Runner]. It returns when the process has said where
// it listens, or has been killed because it did not, or may not listen there.
func (c *child) Start(ctx context.Context) error {
	if err := c.cmd.Start(); err != nil {
		c.place.close()
		return err
	}
	go c.awaitEnd()
	go c.hear()
	err := c.handshake(ctx)
	if err != nil { // go-plugin waits only for what has been started
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

// awaitEnd waits for the process without reaping it, so that its id stays its
// own while what it has started is killed.
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

// Wait implements [runner.Runner]. It is called when standard output is read.
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

// ended is closed when the process has ended and all that it said was heard.
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

// kill ends the process and all that it has started in its process group. It
// does not wait.
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

// Stdout implements [runner.Runner]. It has the line that go-plugin is to know,
// and nothing of what the process prints after its own.
func (c *child) Stdout() io.ReadCloser { return c.stdout }

// Stderr implements [runner.Runner]. There is nothing in it for go-plugin.
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

// Diagnose implements [runner.Runner]. What a plugin said itself is told by
// [process.explain].
func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost implements [runner.Runner]. It is asked about the handshake, and
// would be about each address that a plugin names to the broker of go-plugin.
func (c *child) PluginToHost(network, addr string) (string, string, error) {
	if network != "unix" || addr != agreedAddr {
		return "", "", fmt.Errorf("%w: a plugin names no addresses: got %s %s", sdk.ErrInvalid, quoted(network), quoted(addr))
	}
	return network, addr, nil
}

// HostToPlugin implements [runner.Runner]. The host listens for no plugin.
func (c *child) HostToPlugin(string, string) (string, string, error) {
	return "", "", errors.ErrUnsupported
}
