package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/imgcache/imgcache-host/host/wasm"
	"github.com/imgcache/imgcache-host/pluginproto"
	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

const (
	// handshakeTimeout is how long a process may take to say where it listens.
	// go-plugin's default, a minute, would be an outage.
	handshakeTimeout = 5 * time.Second
	// loadTimeout is how long it may take to compile a module, which the runner
	// does before the handshake. A Go guest takes a second on an idle machine
	// and twenty under the race detector. The compiled code is kept for the
	// next time.
	loadTimeout = time.Minute
	// configureTimeout is how long a driver may take to open its store.
	configureTimeout = 30 * time.Second
	// killTimeout is how long to wait for the end of a killed process. It takes
	// longer only if the kernel cannot end it, for example during a read from a
	// disk that hangs; then it is left behind.
	killTimeout = 5 * time.Second
)

// fewWords bounds what a plugin says about itself, which is kept, logged and shown.
var fewWords = grpc.MaxCallRecvMsgSize(64 << 10)

// process is one running instance of a plugin.
type process struct {
	bin      *binary
	walls    []Wall
	client   *goplugin.Client // nil: somebody else has started it
	child    life
	conn     *grpc.ClientConn
	pid      int
	lifeline *os.File // the end that the host holds
	said     *transcript
	limit    func(time.Duration) time.Duration // see Spec.limit
	manifest sdk.Manifest
	notes    []string // what the plugin says about its configuration
	options  sdk.Config
	started  time.Time

	condemned error // why the host killed it in the middle of a call; guarded by Plugin.mu
}

// life is what the operating system knows of a process.
type life interface {
	running() bool
	ended() <-chan struct{} // closed when it has ended
	end() error             // says how; valid when ended is closed
	kill() error            // does not wait
}

// start runs the plugin and asks what it is. The process ends with the context. The
// caller's OS thread must stay alive as long as the process: the kernel kills the
// child when the thread that started it ends, so that no plugin outlives the host.
// The caller must remove the binary.
func (s *Supervisor) start(ctx context.Context, spec Spec, bin *binary, g grants) (*process, error) {
	rules := s.rules(spec, bin, g)
	var walls []Wall
	if s.confined() {
		var err error
		if walls, err = s.walls(rules); err != nil {
			return nil, err
		}
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make lifeline: %w", err)
	}
	defer theirs.Close()
	said := newTranscript(s.cfg.Log.With("plugin", spec.label()))
	cmd := s.command(ctx, spec, bin)
	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3: serve.LifelineFD
	if bin.file != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, bin.file) // descriptor 4: binaryFD
	}
	child, err := newChild(cmd, said)
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	p := &process{bin: bin, walls: walls, child: child, lifeline: ours, said: said, limit: spec.limit, started: time.Now()}
	p.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: serve.Handshake,
		Plugins:         goplugin.PluginSet{serve.PluginName: noPlugin{}},
		RunnerFunc: func(_ hclog.Logger, handshake *exec.Cmd, dir string) (runner.Runner, error) {
			cmd.Env = append(cmd.Env, handshake.Env...)
			err := child.listenIn(dir)
			if err == nil && s.confined() {
				err = s.wrap(cmd, rules, dir)
			}
			return child, err
		},
		SkipHostEnv:      true,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		StartTimeout:     startTimeout(spec),
		Logger:           hclog.NewNullLogger(), // it would only repeat what the supervisor logs
		SyncStdout:       &lines{to: said},      // what Go code prints after the handshake
		SyncStderr:       &lines{to: said},
		GRPCDialOptions:  append(dialOptions(), child.dialOptions()...),
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: s.sockets},
	})
	if err := p.connect(ctx, cmd); err != nil {
		p.kill()
		return nil, p.explain(err)
	}
	return p, nil
}

// dialOptions returns the options of a connection to a plugin.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(serve.MaxMessage)),
		grpc.WithInitialWindowSize(serve.Window), grpc.WithInitialConnWindowSize(serve.Window),
	}
}

// dialOptions returns the options of a connection to this process: the socket that
// was checked, and no broker. Through a broker a plugin could make the host connect
// to other addresses, and what it announces there would stay in memory for seconds.
func (c *child) dialOptions() []grpc.DialOption {
	const broker = "/plugin.GRPCBroker/"
	return []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return c.place.dial(ctx, addr) }),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			if strings.HasPrefix(method, broker) {
				return nil, status.Error(codes.Unimplemented, "this host has no broker")
			}
			return open(ctx, desc, conn, method, opts...)
		}),
	}
}

func startTimeout(spec Spec) time.Duration {
	if spec.runtime() == runtimeWasm {
		return loadTimeout
	}
	return handshakeTimeout
}

// command returns the command line of a plugin with its environment, which contains
// few variables and none of the host's.
func (s *Supervisor) command(ctx context.Context, spec Spec, bin *binary) *exec.Cmd {
	program, args := bin.argv(spec.Args)
	cmd := exec.CommandContext(ctx, program)
	cmd.Args = args
	env := map[string]string{
		"PATH":            "/usr/local/bin:/usr/bin:/bin",
		"LANG":            "C.UTF-8",
		serve.LifelineEnv: "1",
	}
	if spec.runtime() == runtimeWasm {
		cmd = exec.CommandContext(ctx, s.cfg.Executable, "wasm-runner", spec.Path)
		maps.Copy(env, wasm.RunnerEnv(bin.path, wasm.Options{
			CacheDir: s.cfg.CacheDir, Memory: spec.Memory, State: spec.State, Grants: spec.Grants,
		}))
	}
	maps.Copy(env, spec.Env)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, name+"="+env[name])
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (p *process) connect(ctx context.Context, cmd *exec.Cmd) error {
	if _, err := p.client.Start(); err != nil {
		return fmt.Errorf("start: %w", p.bin.named(err))
	}
	p.pid = cmd.Process.Pid
	rpc, err := p.client.Client()
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	p.conn = rpc.(*goplugin.GRPCClient).Conn
	return p.describe(ctx)
}

// describe asks the process what it is.
func (p *process) describe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.limit(handshakeTimeout))
	defer cancel()
	out, err := pluginv1.NewPluginServiceClient(p.conn).Describe(ctx, &pluginv1.DescribeRequest{}, fewWords)
	if err != nil {
		return fmt.Errorf("describe: %w", pluginproto.ToError(err))
	}
	p.manifest = pluginproto.ToManifest(out)
	if err := p.manifest.Speaks(sdk.Protocol); err != nil {
		return err
	}
	return checkManifest(p.manifest)
}

func (p *process) configure(ctx context.Context, s sdk.Settings) error {
	ctx, cancel := context.WithTimeout(ctx, p.limit(configureTimeout))
	defer cancel()
	out, err := pluginv1.NewPluginServiceClient(p.conn).Configure(ctx, pluginproto.FromSettings(s), fewWords)
	p.notes, p.options = fewNotes(out.GetNotes()), s.Options
	return pluginproto.ToError(err)
}

// alive asks the process for a sign of life.
func (p *process) alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := pluginv1.NewPluginServiceClient(p.conn).Describe(ctx, &pluginv1.DescribeRequest{}, fewWords)
	return pluginproto.ToError(err)
}

// kill ends the process and frees what belongs to it. It sends the signal first,
// because go-plugin's own Kill waits without limit for a process that is stopped. It
// closes the connection before that Kill, which would otherwise ask the process to
// shut down.
func (p *process) kill() {
	_ = p.child.kill()
	if p.conn != nil {
		_ = p.conn.Close()
	}
	if p.client == nil {
		return
	}
	_ = p.lifeline.Close()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		p.client.Kill()
	}()
	select {
	case <-gone:
	case <-time.After(killTimeout):
	}
}

// explain adds what the process last said to an error.
func (p *process) explain(err error) error {
	said := p.said.summary()
	if said == "" {
		return err
	}
	return fmt.Errorf("%w; its last words: %s", err, said)
}

// noPlugin is the client that go-plugin requires. The host uses the connection
// directly.
type noPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (noPlugin) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error { return errors.ErrUnsupported }

func (noPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}
