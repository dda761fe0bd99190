package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/imgcache/imgcache-host/pluginproto"
	pluginv1 "github.com/imgcache/imgcache-host/pluginproto/imgcache/plugin/v1"
	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// firstBackoff and maxBackoff bound the pause before a restart, which
	// doubles each time: a plugin that was killed is back before anybody
	// notices, and one that cannot start costs little.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 30 * time.Second
	// healthyAfter is how long a plugin must run until its earlier failures are
	// forgotten.
	healthyAfter = time.Minute
	// forgivenAfter is how long it must run until its last panic is no longer
	// shown.
	forgivenAfter = 24 * time.Hour
	// breakerTrips is how many failures in a row open the breaker. From then on
	// the plugin is called broken and tried each maxBackoff.
	breakerTrips = 6
	// probeEvery and probeTimeout say how a plugin that hangs is found while it
	// is not called.
	probeEvery   = 3 * time.Second
	probeTimeout = 2 * time.Second
)

// The states of a plugin.
const (
	stateStarting   = "starting" // for the first time
	stateRunning    = "running"
	stateRestarting = "restarting"
	stateBroken     = "broken"
	stateReloading  = "reloading" // only a driver, since only one process of it can run at a time
	stateStopped    = "stopped"
)

// The states of the breaker of a plugin.
const (
	breakerClosed   = "closed"
	breakerOpen     = "open"
	breakerHalfOpen = "half-open"
)

// standIns say what does a plugin's work while it is away.
var standIns = map[sdk.Kind]string{
	sdk.KindDriver: "the record log keeps the records",
	sdk.KindPolicy: "the host lets the least recently used image leave",
}

// Plugin is a plugin that is kept running. Its methods may be called concurrently.
type Plugin struct {
	spec  Spec
	sup   *Supervisor
	log   *slog.Logger
	setup Setup  // nil: Configure sets the settings
	up    func() // called after each start; may be nil
	stop  context.CancelFunc
	first chan error    // how the first start went
	ended chan struct{} // closed when supervise has returned

	reloads   chan reload
	reloading atomic.Bool
	kept      *binary // the last accepted binary, started while that of the file is refused; nil: the file is started. Only supervise uses it

	mu       sync.Mutex
	proc     *process // nil while the plugin is down
	settings *sdk.Settings
	granted  grants // of the next process
	manifest sdk.Manifest
	state    string
	epoch    uint64
	restarts uint64
	failures int // in a row
	lastErr  error
	// lastPanic is the last panic that ended a process.
	lastPanic *Panic
	held      chan struct{} // calls wait until it is closed; nil: they do not wait
	idle      chan struct{} // closed when no call is active; nil: nobody waits for that
	active    int           // number of calls without an answer yet
	calls     uint64
	meter     *meter
}

// First returns a channel that gets the result of the first start once: nil, or why
// the plugin did not run.
func (p *Plugin) First() <-chan error { return p.first }

// Name returns the name by which the configuration refers to the plugin.
func (p *Plugin) Name() string { return p.spec.Name }

// Manifest returns what the plugin says about itself.
func (p *Plugin) Manifest() sdk.Manifest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.manifest
}

// Running reports whether there is a process that calls reach.
func (p *Plugin) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proc != nil
}

// Epoch returns how often the plugin was started. When it changes, a stateful policy
// has lost its state.
func (p *Plugin) Epoch() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch
}

// Identity identifies the running program and its options. Another process with the
// same identity can use its state.
func (p *Plugin) Identity() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proc == nil {
		return ""
	}
	return fmt.Sprintf("%s %s %s %v", p.manifest.Name, p.manifest.Version, p.proc.bin.sum, p.proc.options)
}

// Discard kills the process, whose state cannot be trusted because of why. Another
// one is started.
func (p *Plugin) Discard(why error) {
	p.mu.Lock()
	proc := p.proc
	p.mu.Unlock()
	if proc != nil {
		p.condemn(proc, why)
	}
}

// Status returns what is known about the plugin.
func (p *Plugin) Status() Status {
	s := p.status()
	s.Memory, s.CPU = footprint(s.PID)
	s.Methods = p.meter.methods()
	var latency Latency
	for _, m := range s.Methods {
		s.Calls += m.Calls
		s.Errors += m.Errors
		latency.add(m.Latency)
	}
	s.P99 = latency.within(.99).Seconds()
	return s
}

func (p *Plugin) status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{
		Name: p.spec.label(), Kind: p.spec.Kind, Shadow: p.spec.Shadow, Runtime: p.spec.runtime(), Path: p.spec.Path,
		Version: p.manifest.Version, State: p.state, Restarts: p.restarts, Breaker: p.breaker(), StandIn: standIns[p.spec.Kind],
		LastPanic: p.lastPanic, Reattached: p.spec.Reattach != nil,
	}
	if p.proc != nil {
		s.PID, s.Started, s.Notes = p.proc.pid, p.proc.started, p.proc.notes
		s.Walls = p.proc.walls
		s.SHA256, s.Signature = p.proc.bin.sum, p.proc.bin.signature
		if time.Since(s.Started) > forgivenAfter {
			s.LastPanic = nil
		}
	}
	if p.lastErr != nil {
		s.LastError = p.lastErr.Error()
	}
	return s
}

// breaker returns the state of the breaker. The caller holds mu.
func (p *Plugin) breaker() string {
	switch {
	case p.failures < breakerTrips:
		return breakerClosed
	case p.state == stateBroken:
		return breakerOpen
	}
	return breakerHalfOpen
}

// Configure gives the plugin its settings, now and after each restart. After an error
// it keeps the settings of before.
func (p *Plugin) Configure(ctx context.Context, s sdk.Settings) error {
	// They are remembered first, so that a restart during the call uses them.
	before := p.remember(&s)
	err := p.call(ctx, "Configure", configureTimeout, func(ctx context.Context, conn *grpc.ClientConn) error {
		out, err := pluginv1.NewPluginServiceClient(conn).Configure(ctx, pluginproto.FromSettings(s), fewWords)
		p.note(fewNotes(out.GetNotes()))
		return err
	})
	if err != nil {
		p.remember(before)
	}
	return err
}

// remember sets the settings for later starts, and returns those of before.
func (p *Plugin) remember(s *sdk.Settings) (before *sdk.Settings) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, p.settings = p.settings, s
	return before
}

// note keeps what the running plugin says about itself.
func (p *Plugin) note(notes []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proc != nil {
		p.proc.notes = notes
	}
}

// Close stops the plugin and returns when its process has gone.
func (p *Plugin) Close() error {
	p.stop()
	<-p.ended
	return nil
}

// supervise runs the plugin until the context ends. Unless keep is set, it also ends
// if the first start fails.
//
// It locks its OS thread, because the kernel kills a child when the thread that
// started it ends.
func (p *Plugin) supervise(ctx context.Context, keep bool) {
	runtime.LockOSThread()
	defer close(p.ended)
	defer p.useFile()
	proc, err := p.begin(ctx)
	p.first <- err
	if err != nil && !keep {
		return
	}
	for {
		switch {
		case proc != nil:
			proc = p.attend(ctx, proc)
		case err != nil:
			p.failed(ctx, err)
			err = nil
		case ctx.Err() != nil:
			return
		default:
			proc, err = p.rest(ctx)
		}
	}
}

// begin starts a process and makes it the plugin.
func (p *Plugin) begin(ctx context.Context) (*process, error) {
	proc, err := p.launch(ctx, p.kept)
	if err != nil {
		return nil, err
	}
	p.runs(proc)
	if p.up != nil {
		p.up()
	}
	return proc, nil
}

// attend watches a process until it ends or is replaced. It returns the process that
// has replaced it, or nil.
func (p *Plugin) attend(ctx context.Context, proc *process) *process {
	r, err := p.watch(ctx, proc)
	if r != nil {
		return p.reload(ctx, proc, *r)
	}
	p.down(ctx, proc, err)
	proc.kill()
	if proc.bin != p.kept {
		proc.bin.remove()
	}
	return nil
}

// tryAgain notes that the next attempt begins, and reports whether the plugin was
// broken.
func (p *Plugin) tryAgain() (broken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	broken, p.state = p.state == stateBroken, stateRestarting
	return broken
}

// useFile makes the next start use the plugin's file.
func (p *Plugin) useFile() {
	if p.kept != nil {
		p.kept.remove()
		p.kept = nil
	}
}

// rest waits until it is time for another attempt, and makes it.
func (p *Plugin) rest(ctx context.Context) (*process, error) {
	select {
	case <-time.After(p.backoff()):
		if p.tryAgain() {
			p.useFile() // the kept binary does not run either
		}
		return p.begin(ctx)
	case r := <-p.reloads:
		return p.reload(ctx, nil, r), nil
	case <-ctx.Done():
		return nil, nil
	}
}

// launch starts a process of the binary, or of the plugin's file if that is nil, and
// configures it if its settings are known.
func (p *Plugin) launch(ctx context.Context, bin *binary) (*process, error) {
	if bin != nil || p.spec.Reattach != nil {
		return p.launchBinary(ctx, bin)
	}
	bin, err := p.sup.stage(p.spec)
	if err != nil {
		return nil, err
	}
	proc, err := p.launchBinary(ctx, bin)
	if err != nil {
		bin.remove()
	}
	return proc, err
}

func (p *Plugin) launchBinary(ctx context.Context, bin *binary) (*process, error) {
	p.mu.Lock()
	granted := p.granted
	p.mu.Unlock()
	proc, err := p.obtain(ctx, bin, granted)
	if err != nil {
		return nil, err
	}
	if m := proc.manifest; m.Kind != p.spec.Kind && p.spec.Kind != "" {
		err = proc.explain(fmt.Errorf("it is a %s; expected a %s", m.Kind, p.spec.Kind))
	} else if p.spec.runtime() == runtimeProcess && m.Name != p.spec.Name {
		p.log.Debug("the plugin has another name in its manifest", "name", m.Name)
	}
	p.mu.Lock()
	settings := p.settings
	p.mu.Unlock()
	configure := func(s sdk.Settings) error {
		if g := p.spec.grants(proc.manifest, s); !granted.cover(g) {
			p.tellUngranted(proc.manifest, s)
			p.mu.Lock()
			p.granted = g
			p.mu.Unlock()
			return errors.Join(prepare(s), errGranted)
		}
		if err := proc.configure(ctx, s); err != nil {
			return proc.explain(err)
		}
		return nil
	}
	switch {
	case err != nil:
	case p.setup != nil:
		err = p.setup(proc.manifest, configure)
	case settings != nil:
		err = configure(*settings)
	}
	if err != nil {
		proc.kill()
		if errors.Is(err, errGranted) {
			return p.launchBinary(ctx, bin)
		}
		return nil, err
	}
	return proc, nil
}

// obtain starts a process, or attaches to the one that is running already.
func (p *Plugin) obtain(ctx context.Context, bin *binary, granted grants) (*process, error) {
	if p.spec.Reattach != nil {
		return p.sup.attach(ctx, p.spec)
	}
	return p.sup.start(ctx, p.spec, bin, granted)
}

// errGranted says that a plugin was granted the files in its settings, and has to be
// started again to get access to them.
var errGranted = errors.New("more is granted")

// runs makes proc the process of the plugin.
func (p *Plugin) runs(proc *process) {
	p.mu.Lock()
	p.proc, p.manifest, p.state = proc, proc.manifest, stateRunning
	p.epoch++
	start := p.epoch
	if start > 1 && !p.reloading.Load() {
		p.restarts++
	}
	p.mu.Unlock()
	p.log.Info("the plugin is running", "pid", proc.pid, "version", proc.manifest.Version, "start", start)
}

// watch waits until the process ends or hangs, the context ends, or a reload is
// requested, which it returns.
func (p *Plugin) watch(ctx context.Context, proc *process) (*reload, error) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	healthy := time.After(healthyAfter)
	for {
		select {
		case <-proc.child.ended():
			return nil, proc.explain(proc.child.end())
		case <-tick.C:
			if err := p.probe(ctx, proc); err != nil {
				return nil, proc.explain(err)
			}
		case r := <-p.reloads:
			return &r, nil
		case <-healthy:
			p.mu.Lock()
			p.failures = 0
			p.mu.Unlock()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// probe returns an error if the process does not answer although it is not being
// called.
//
// Compiled guest code stops the garbage collector of its process, which stops
// everything else. So a module that is being called, or was called during the probe,
// is not judged by the probe but by the deadline of the call.
func (p *Plugin) probe(ctx context.Context, proc *process) error {
	calls := p.computing()
	if calls.active || p.spec.Reattach != nil {
		return nil
	}
	err := proc.alive(ctx)
	if err == nil || ctx.Err() != nil || !proc.child.running() || p.computing() != calls {
		return nil
	}
	return fmt.Errorf("no sign of life within %v: %w", probeTimeout, err)
}

// load says how busy a module is.
type load struct {
	active bool   // it is being called
	begun  uint64 // number of calls so far
}

// computing returns the load of a module. For a process it is always zero: its
// runtime answers a probe even while it works.
func (p *Plugin) computing() load {
	if p.spec.runtime() != runtimeWasm {
		return load{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return load{active: p.active > 0, begun: p.calls}
}

// down notes that the process has ended because of err, or because condemn killed it.
func (p *Plugin) down(ctx context.Context, proc *process, err error) {
	p.mu.Lock()
	if p.proc == proc {
		p.proc = nil
	}
	if proc.condemned != nil {
		err = proc.condemned
	}
	if text := proc.said.panicText(); text != "" {
		p.lastPanic = &Panic{Time: time.Now(), Text: text}
	}
	p.mu.Unlock()
	p.failed(ctx, err)
}

// failed notes why the plugin is down.
func (p *Plugin) failed(ctx context.Context, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		p.state = stateStopped
		return
	}
	p.failures++
	p.state = stateRestarting
	if p.failures >= breakerTrips {
		p.state = stateBroken
	}
	p.lastErr = err
	p.log.Error("the plugin is down", "failures", p.failures, "state", p.state, "error", p.lastErr)
}

func (p *Plugin) backoff() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failures == 0 {
		return 0
	}
	d := min(firstBackoff<<min(p.failures-1, 16), maxBackoff)
	if p.state == stateBroken {
		d = maxBackoff
	}
	return d/2 + rand.N(d/2) // so that several hosts do not come back at the same time
}

// away returns the error of a call while the plugin is down.
func (p *Plugin) away() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lastErr == nil {
		return fmt.Errorf("%s: %w: %s", p.spec, sdk.ErrUnavailable, p.state)
	}
	// lastErr is not wrapped, since it is not an answer to this call: an
	// sdk.ErrInvalid of the configuration must not look like a gap in batches.
	return fmt.Errorf("%s: %w: %v", p.spec, sdk.ErrUnavailable, p.lastErr)
}

// call makes one call with a deadline. If the plugin does not answer until then, it is
// killed, but not if the caller gives up sooner.
func (p *Plugin) call(ctx context.Context, name string, limit time.Duration, f func(context.Context, *grpc.ClientConn) error) error {
	proc, err := p.enter(ctx)
	if err == nil {
		err = p.callProcess(ctx, proc, name, limit, f)
	}
	p.leave()
	p.meter.count(name, err)
	return err
}

// enter begins a call, which waits while the process is being replaced.
func (p *Plugin) enter(ctx context.Context) (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	for p.held != nil {
		held := p.held
		p.mu.Unlock()
		var err error
		select {
		case <-held:
		case <-ctx.Done():
			err = fmt.Errorf("%s: %w: it is being reloaded: %w", p.spec, sdk.ErrUnavailable, context.Cause(ctx))
		}
		p.mu.Lock()
		if err != nil {
			p.active++ // for leave
			return nil, err
		}
	}
	p.active++
	return p.proc, nil
}

// leave ends a call.
func (p *Plugin) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active--
	if p.active == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

func (p *Plugin) callProcess(ctx context.Context, proc *process, name string, limit time.Duration, f func(context.Context, *grpc.ClientConn) error) error {
	if proc == nil {
		return p.away()
	}
	begun, limit := time.Now(), p.spec.limit(limit)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := pluginproto.ToError(f(limited, proc.conn))
	p.meter.took(name, time.Since(begun))
	if err == nil {
		return nil
	}
	hung := limited.Err() != nil || ranOut(err, time.Since(begun), limit)
	if !hung || ctx.Err() != nil {
		return fmt.Errorf("%s: %s: %w", p.spec, name, err)
	}
	p.condemn(proc, fmt.Errorf("it did not answer %s within %v and was killed", name, limit))
	return fmt.Errorf("%s: %w: %s: no answer within %v", p.spec, sdk.ErrUnavailable, name, limit)
}

// condemn kills a process because of why. New calls no longer reach it.
func (p *Plugin) condemn(proc *process, why error) {
	p.mu.Lock()
	if p.proc == proc {
		p.proc, p.state, p.lastErr, proc.condemned = nil, stateRestarting, why, why
	}
	p.mu.Unlock()
	_ = proc.child.kill()
}

// ranOut reports whether a call ended because of the deadline although our own timer
// has not fired yet: gRPC sends the deadline to the plugin, whose timer ends the
// stream and may be a moment faster.
func ranOut(err error, took, limit time.Duration) bool {
	cut := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	return cut && took > limit*9/10
}
