package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// drainTimeout is how long running calls of a driver may take when it is
	// reloaded. After that they fail, and the callers repeat them.
	drainTimeout = 10 * time.Second
	// trialTimeout bounds the trial of a new process, in which a driver lists
	// all its records.
	trialTimeout = listTimeout
)

// ErrBusy says that a plugin is being reloaded already.
var ErrBusy = errors.New("it is already being reloaded")

// Trial tries a new process of a plugin. Calls of next reach the new process, and
// calls of the plugin itself still reach the old one. take makes all calls reach the
// new process; it may be called once, as the last step. If it is not called, that
// happens when the trial returns nil. After an error the new process is not used.
type Trial func(ctx context.Context, next *Plugin, take func()) error

// reload is a request to start a plugin again.
type reload struct {
	try  Trial
	done chan<- error // buffered
}

// Reload starts the plugin from its current file, tries it, and replaces the running
// process.
//
// A new policy is started beside the running one, which stays if the new one is
// refused. Only one process of a driver may use its store: new calls wait until the
// running ones have ended, the old process is stopped, and the new one is started and
// tried; if that fails, the old binary is started again.
//
// The error says why the old plugin stays; [Plugin.Status] shows it. It wraps ErrBusy
// if the plugin is being reloaded already. A reload that has begun goes on when the
// context ends.
func (p *Plugin) Reload(ctx context.Context, try Trial) error {
	if p.spec.Reattach != nil {
		return fmt.Errorf("%s: %w: it is being debugged; whoever started it must restart it", p.spec, sdk.ErrUnsupported)
	}
	if !p.reloading.CompareAndSwap(false, true) {
		return fmt.Errorf("%s: %w", p.spec, ErrBusy)
	}
	done := make(chan error, 1)
	var err error
	select {
	case p.reloads <- reload{try, done}:
		select {
		case err = <-done:
		case <-ctx.Done():
			err = fmt.Errorf("the reload continues: %w", context.Cause(ctx))
		}
	case <-ctx.Done():
		p.reloading.Store(false)
		err = context.Cause(ctx)
	case <-p.ended:
		p.reloading.Store(false)
		err = fmt.Errorf("%w: it was stopped", sdk.ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.spec, err)
	}
	return nil
}

// reload replaces the process, which is nil while the plugin is down, and
// returns the one that runs afterwards.
func (p *Plugin) reload(ctx context.Context, old *process, r reload) *process {
	replace := p.replaceBeside
	if p.spec.Kind == sdk.KindDriver {
		replace = p.replaceAlone
	}
	proc, err := replace(ctx, old, r.try)
	p.mu.Lock()
	if err != nil {
		p.lastErr = fmt.Errorf("reload: %w", err)
	} else {
		p.lastErr, p.lastPanic, p.failures = nil, nil, 0
	}
	p.mu.Unlock()
	if err != nil {
		p.log.Error("the plugin was not replaced", "error", err)
	}
	p.reloading.Store(false)
	r.done <- err
	return proc
}

// replaceBeside starts the new process while the old one works.
func (p *Plugin) replaceBeside(ctx context.Context, old *process, try Trial) (*process, error) {
	next, err := p.tried(ctx, try)
	if err == nil && old != nil {
		old.kill()
	}
	p.keepBinary(old, err)
	if err != nil {
		return old, err
	}
	return next, nil
}

// replaceAlone starts the new process when the old one has gone.
func (p *Plugin) replaceAlone(ctx context.Context, old *process, try Trial) (*process, error) {
	idle := p.hold()
	defer p.release()
	if old != nil {
		select {
		case <-idle:
		case <-time.After(drainTimeout):
		case <-ctx.Done():
		}
		p.replacing()
		old.kill()
	}
	proc, err := p.tried(ctx, try)
	p.keepBinary(old, err)
	if err != nil && old != nil {
		proc, err = p.goBack(ctx, err)
	}
	if proc != nil && p.up != nil {
		p.up()
	}
	return proc, err
}

// tried starts a process of the current file, and makes it the plugin if the trial
// succeeds.
func (p *Plugin) tried(ctx context.Context, try Trial) (*process, error) {
	next, err := p.launch(ctx, nil)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	taken := false
	take := func() {
		taken = true
		p.runs(next)
	}
	if err := try(limited, p.candidate(next), take); err != nil && !taken {
		next.kill()
		next.bin.remove()
		return nil, next.explain(err)
	}
	if !taken {
		take()
	}
	return next, nil
}

// candidate returns a Plugin whose calls reach a process that is being tried.
func (p *Plugin) candidate(proc *process) *Plugin {
	return &Plugin{
		spec: p.spec, sup: p.sup, log: p.log, meter: p.meter,
		proc: proc, manifest: proc.manifest, state: stateRunning, epoch: 1,
	}
}

// hold makes new calls wait until release. The channel is closed when the running
// calls have ended.
func (p *Plugin) hold() (idle <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held, p.idle = make(chan struct{}), make(chan struct{})
	idle = p.idle
	if p.active == 0 {
		close(p.idle)
		p.idle = nil
	}
	return idle
}

func (p *Plugin) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.held)
	p.held = nil
}

// replacing notes that the process is being stopped for another.
func (p *Plugin) replacing() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proc, p.state = nil, stateReloading
}

// keepBinary keeps the binary of the old process for later starts if that of the
// file was refused because of err, and frees it otherwise.
func (p *Plugin) keepBinary(old *process, err error) {
	switch {
	case err == nil && old != nil && old.bin != p.kept:
		old.bin.remove()
		fallthrough
	case err == nil:
		p.useFile()
	case old != nil:
		p.kept = old.bin
	}
}

// goBack starts the old binary again after the new one was refused because of err.
func (p *Plugin) goBack(ctx context.Context, err error) (*process, error) {
	again, worse := p.launch(ctx, p.kept)
	if worse != nil {
		p.failed(ctx, worse)
		return nil, errors.Join(err, fmt.Errorf("start the old plugin again: %w", worse))
	}
	p.runs(again)
	return again, err
}
