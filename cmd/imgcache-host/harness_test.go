package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/client"
)

// patience bounds every wait of a test. It is far more than anything takes,
// also on a busy machine under the race detector.
const patience = 2 * time.Minute

// quietRace spares each process the second for which the race detector waits
// at its end for reports of others.
const (
	quietRace        = "GORACE=" + quietRaceOptions
	quietRaceOptions = "atexit_sleep_ms=0"
)

// shared is a directory that outlives a test.
var shared = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "imgcache-test") })

// built is the directory of the program and its plugins. IMGCACHE_BIN names
// it; else they are built once.
var built = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("IMGCACHE_BIN"); dir != "" {
		return dir, nil
	}
	dir, err := shared()
	if err != nil {
		return "", err
	}
	out, err := exec.Command("make", "-C", "../..", "build", "BIN="+dir, "RACE=1").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return dir, nil
})

// compiled is the directory of compiled modules that all daemons share, so that
// they do not all compile the same.
var compiled = sync.OnceValues(func() (string, error) {
	dir, err := shared()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "wasm")
	return dir, os.Mkdir(dir, 0o700)
})

// tidy runs the tests and removes what they shared.
type tidy struct{ *testing.M }

func (t tidy) Run() int {
	defer func() {
		if dir, err := shared(); err == nil {
			_ = os.RemoveAll(dir)
		}
	}()
	return t.M.Run()
}

// setup says what is particular to a daemon. The zero value is a cache with
// its defaults that knows no image.
type setup struct {
	origin string // origin blocks; default: an empty directory
	cache  string // more lines of the cache block
	node   string // more lines of the node block
	more   string // more blocks
	config string // instead of all these: a whole configuration
	dir    string // cache directory; default: a new one
	bin    string // directory of program and plugins; default: the built one
	uid    uint32 // user that it runs as; default: that of the test
	env    string // one more variable of its environment
}

// daemon is a service that runs as a process of its own. It ends with the
// test, which fails unless it ends well.
type daemon struct {
	t      *testing.T
	bin    string
	uid    uint32
	env    []string            // more variables
	config string              // path of the configuration
	dir    string              // cache directory
	user   *syscall.Credential // that the service runs as; nil: as the tests
	runDir string
	socket string         // of the native API
	api    *client.Client // over the socket
	web    *http.Client   // for the public listener
	admin  *http.Client   // for raw requests over the socket
	public string         // host:port of the public listener
	p      *process       // nil: it does not run
	logs   []*logBuffer   // of all processes, oldest first
}

// process is one run of the daemon.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and err stands
	err  error
}

// start starts a daemon and returns when it is ready.
func start(t *testing.T, s setup) *daemon {
	t.Helper()
	d := prepare(t, s)
	d.launch()
	return d
}

// prepare makes all that a daemon needs, without starting it.
func prepare(t *testing.T, s setup) *daemon {
	t.Helper()
	d := &daemon{t: t, bin: s.bin, uid: s.uid, env: []string{quietRace, s.env}, dir: s.dir, web: &http.Client{Transport: &http.Transport{
		DisableCompression: true, DialContext: dialQuiet,
	}}}
	if d.bin == "" {
		var err error
		if d.bin, err = built(); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if d.runDir, err = os.MkdirTemp("/tmp", "ic"); err != nil { // a socket has a short path
		t.Fatal(err)
	}
	if d.dir == "" {
		d.dir = filepath.Join(t.TempDir(), "images")
	}
	d.config = filepath.Join(d.runDir, "config.hcl")
	d.socket = filepath.Join(d.runDir, "admin.sock")
	writeFile(t, d.config, cmp.Or(s.config, d.compose(s)))
	if d.uid != 0 {
		if err := os.Chown(d.runDir, int(d.uid), int(d.uid)); err != nil {
			t.Fatal(err)
		}
	}
	d.api = client.New(d.socket)
	d.admin = &http.Client{Transport: &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
		},
	}}
	t.Cleanup(d.cleanup)
	return d
}

// compose writes a configuration. The data directory is one for all daemons,
// so that the modules are compiled once: under the race detector that takes
// ten seconds.
func (d *daemon) compose(s setup) string {
	origin := s.origin
	if origin == "" {
		origin = directoryOrigin(d.t.TempDir())
	}
	return fmt.Sprintf(`
node {
  data_dir = %q
  run_dir  = %q
  %s
}
listener "tcp" "public" {
  address = "127.0.0.1:0"
  serve   = ["images", "metrics"]
}
cache "default" {
  dir = %q
  %s
}
log {
  level = "debug"
}
shutdown {
  drain_timeout = "10s"
}
%s
%s
`, filepath.Join(d.bin, "data"), d.runDir, s.node, d.dir, s.cache, origin, s.more)
}

// directoryOrigin is an origin of files that are images as soon as they are
// there: tests put them there whole.
func directoryOrigin(path string) string {
	return fmt.Sprintf("origin \"directory\" \"files\" {\n  path   = %q\n  settle = \"0s\"\n}\n", path)
}

// dialQuiet makes a connection of which the race detector does not note each
// byte that is read. That would be most of the work of a test with gigabytes.
func dialQuiet(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &quietConn{Conn: c, raw: raw}, nil
}

type quietConn struct {
	net.Conn
	raw syscall.RawConn
}

// Read implements [net.Conn].
func (c *quietConn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var errno syscall.Errno
	err = c.raw.Read(func(fd uintptr) bool {
		var r uintptr
		r, _, errno = syscall.Syscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		n = int(r)
		return errno != syscall.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// launch starts the process and waits until it is ready for everything.
func (d *daemon) launch() {
	d.t.Helper()
	d.launchLame()
	d.eventually("the daemon is ready", func() bool {
		resp, err := d.admin.Get("http://d/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// launchLame starts the process and waits until it listens.
func (d *daemon) launchLame() {
	d.t.Helper()
	d.spawn()
	log := d.logs[len(d.logs)-1]
	d.eventually("the daemon listens", func() bool {
		d.public = log.address("public")
		return d.public != ""
	})
	d.eventually("the daemon answers", func() bool {
		resp, err := d.admin.Get("http://d/healthz")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	})
}

// spawn starts the process.
func (d *daemon) spawn() {
	d.t.Helper()
	log := &logBuffer{}
	p := &process{cmd: exec.Command(filepath.Join(d.bin, "imgcache-host"), "serve", "--config", d.config), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), d.env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: d.user}
	if d.uid != 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: d.uid, Gid: d.uid}
	}
	if err := p.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.p, d.logs, d.public = p, append(d.logs, log), ""
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
}

// eventually waits until a condition holds, and fails the test when it does
// not, or when the daemon ends meanwhile.
func (d *daemon) eventually(what string, holds func() bool) {
	d.t.Helper()
	eventually(d.t, what, func() bool {
		if d.p != nil {
			select {
			case <-d.p.done:
				d.t.Fatalf("the daemon ended (%v) before this held: %s", d.p.err, what)
			default:
			}
		}
		return holds()
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// pid returns the process id of the running daemon.
func (d *daemon) pid() int { return d.p.cmd.Process.Pid }

// stop ends the daemon as an operator does. It must end well.
func (d *daemon) stop() {
	d.t.Helper()
	d.closeIdle()
	_ = d.p.cmd.Process.Signal(syscall.SIGTERM) // of one that has ended, wait tells
	if err := d.wait(); err != nil {
		d.t.Errorf("the daemon ended with %v", err)
	}
}

// kill9 ends the daemon, and nothing but the daemon, at once.
func (d *daemon) kill9() {
	d.t.Helper()
	if err := d.p.cmd.Process.Kill(); err != nil {
		d.t.Fatalf("SIGKILL: %v", err)
	}
	_ = d.wait() // always an error
	d.closeIdle()
}

// restart starts the daemon again after it has ended.
func (d *daemon) restart() {
	d.t.Helper()
	d.launch()
}

// wait returns how the process ended.
func (d *daemon) wait() error {
	d.t.Helper()
	select {
	case <-d.p.done:
	case <-time.After(patience):
		_ = syscall.Kill(-d.pid(), syscall.SIGABRT) // a dump of all goroutines
		d.t.Fatalf("the daemon does not end")
	}
	err := d.p.err
	d.p = nil
	return err
}

func (d *daemon) closeIdle() {
	d.api.Close()
	d.web.CloseIdleConnections()
	d.admin.CloseIdleConnections()
}

// cleanup ends the daemon if the test has not, and judges its log.
func (d *daemon) cleanup() {
	defer func() { _ = os.RemoveAll(d.runDir) }()
	defer d.judgeLogs()
	if d.p != nil {
		pid := d.pid()
		defer func() { _ = syscall.Kill(-pid, syscall.SIGKILL) }() // if it did not end
		d.stop()
	}
	d.closeIdle()
}

// judgeLogs fails the test when a process wrote what must never happen, and
// shows everything when the test has failed.
func (d *daemon) judgeLogs() {
	for _, log := range d.logs {
		text := log.String()
		for _, bad := range []string{"DATA RACE", "panic: ", "fatal error: "} {
			if strings.Contains(text, bad) {
				d.t.Errorf("the log holds %q", bad)
			}
		}
		if d.t.Failed() {
			d.t.Logf("log of the daemon:\n%s", tail(text, 20_000))
		}
	}
}

// tail returns the end of a text.
func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// plugins returns the process ids of the plugins by their names.
func (d *daemon) plugins() map[string]int {
	d.t.Helper()
	list, err := d.api.Plugins(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	pids := map[string]int{}
	for _, p := range list {
		pids[p.Name] = p.PID
	}
	return pids
}

// state returns what the service knows of an image.
func (d *daemon) state(id string) cache.ImageInfo {
	d.t.Helper()
	info, err := d.api.Image(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return info
}

// usage returns how full the cache is.
func (d *daemon) usage() cache.Usage {
	d.t.Helper()
	u, err := d.api.Usage(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return u
}

// waitState waits until an image has a state.
func (d *daemon) waitState(id string, want cache.State) {
	d.t.Helper()
	var last cache.ImageInfo
	defer func() {
		if last.State != want {
			d.t.Logf("the last that was known of it: %+v", last)
		}
	}()
	d.eventually(fmt.Sprintf("image %s is %s", id, want), func() bool {
		last = d.state(id)
		return last.State == want
	})
}

// url returns the URL of an image.
func (d *daemon) url(id string) string { return "http://" + d.public + "/images/" + id }

// request sends a request for an image and returns the response, whose body
// is the caller's to close. Fields are name and value in turn.
func (d *daemon) request(ctx context.Context, method, id string, fields ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, d.url(id), nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	return d.web.Do(req)
}

// get downloads an image, or fails the test.
func (d *daemon) get(id string, fields ...string) answer {
	d.t.Helper()
	return d.do(http.MethodGet, id, fields...)
}

// do sends a request for an image and reads the whole answer.
func (d *daemon) do(method, id string, fields ...string) answer {
	d.t.Helper()
	resp, err := d.request(d.t.Context(), method, id, fields...)
	if err != nil {
		d.t.Fatal(err)
	}
	return read(resp)
}

// call sends a request to the native API and reads the whole answer.
func (d *daemon) call(method, path, body string) answer {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://d"+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := d.admin.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	return read(resp)
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // of reading the body: nil is a clean end
}

func read(resp *http.Response) answer {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body, err}
}

// cacheStatus returns what the answer says of the cache.
func (a answer) cacheStatus() string { return a.header.Get("Cache-Status") }

// decode reads the JSON of an answer into v, or fails the test.
func (a answer) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%v in answer %d: %s", err, a.status, a.body)
	}
}

// command runs the program to its end and returns its exit code.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "imgcache-host"), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), quietRace)
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// writeSecret is writeFile for what nobody else may read.
func writeSecret(t *testing.T, path, content string) {
	t.Helper()
	writeFile(t, path, content)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// files returns the names in a directory below the cache directory.
func (d *daemon) files(dir string) []string {
	d.t.Helper()
	entries, err := os.ReadDir(filepath.Join(d.dir, dir))
	if err != nil {
		d.t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// logBuffer takes what a process writes.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// address returns where a listener listens, or "" if it does not yet.
func (b *logBuffer) address(listener string) string {
	for line := range strings.Lines(b.String()) {
		var record struct{ Msg, Listener, Address string }
		if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "listening" && record.Listener == listener {
			return record.Address
		}
	}
	return ""
}
