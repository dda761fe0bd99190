package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// drainTimeout is how long the calls of a driver may go on when it is
	// reloaded. They are cut then, and made again by who made them.
	drainTimeout = 10 * time.Second
	// trialTimeout bounds the trial of a new process: a driver lists all its
	// records.
	trialTimeout = listTimeout
)

// ErrBusy says that a plugin is being reloaded already.
var ErrBusy = errors.New("it is already being reloaded")

// Trial tries a plugin that was started anew: calls of next reach the new
// process, calls of the plugin itself the earlier one. Take, which may be
// called once and last, lets them all reach the new process from then on;
// without it that happens when the trial has returned nil. An error keeps the
// new process from being used.
type Trial func(ctx context.Context, next *Plugin, take func()) error

// reload is a request to start a plugin anew.
type reload struct {
	try  Trial
	done chan<- error // buffered
}

// Reload starts the plugin anew from its file as it is now, has it tried, and
// replaces the process that runs.
//
// A policy is started beside the one that runs, which stays when the new one is
// not accepted. A driver is alone with its store: calls wait while the running
// ones end, the old process is stopped and the new one is started and tried; if
// that fails, the old bytes are started again.
//
// The error says why the old one stays; [Plugin.Status] keeps it. It wraps
// ErrBusy when the plugin is being reloaded already. A reload that has begun
// goes on when the context ends.
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

// tried starts a process from the file as it is now and makes it the plugin
// when the trial has gone well.
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

// candidate returns a process that is not the plugin yet, as a plugin.
func (p *Plugin) candidate(proc *process) *Plugin {
	return &Plugin{
		spec: p.spec, sup: p.sup, log: p.log, meter: p.meter,
		proc: proc, manifest: proc.manifest, state: stateRunning, epoch: 1,
	}
}

// hold lets calls wait until release. The channel is closed when those that
// have begun are over.
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

// goBack starts the old bytes again after the new ones were not accepted because
// of err.
func (p *Plugin) goBack(ctx context.Context, err error) (*process, error) {
	again, worse := p.launch(ctx, p.kept)
	if worse != nil {
		p.failed(ctx, worse)
		return nil, errors.Join(err, fmt.Errorf("start the old plugin again: %w", worse))
	}
	p.runs(again)
	return again, err
}
