// Package schedule does work at set times or at intervals. No work runs twice
// at once. The package knows nothing about the work itself.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// Schedule is work and when it is done.
type Schedule struct {
	Name   string
	When   Timetable
	Jitter time.Duration // each run is delayed by a random time below this
	Steps  []Step        // done one after the other
}

// Step is a part of the work of a schedule.
type Step struct {
	Name string
	// Do does the work, and says in a few words what it did.
	Do func(ctx context.Context) (did string, err error)
}

// Status says how a schedule is doing.
type Status struct {
	Name    string    `json:"name"`
	When    string    `json:"when"`
	Run     []string  `json:"run"`
	Running bool      `json:"running"`
	LastRun time.Time `json:"last_run,omitzero"` // its beginning; zero: none yet
	Result  string    `json:"result,omitempty"`  // of the last run that ended
	Error   string    `json:"error,omitempty"`   // of the last run that ended
	NextRun time.Time `json:"next_run,omitzero"` // zero: never
}

// Config is what a scheduler works with.
type Config struct {
	Schedules []Schedule
	// State is the directory, made when there is none, that keeps when each
	// schedule last ran. When it cannot be read or written, runs that are
	// missed while the service is down are not made up.
	State string
	Log   *slog.Logger
}

// Scheduler runs schedules. Its methods may be called at any time.
type Scheduler struct {
	log     *slog.Logger
	state   state
	entries []*entry

	now    func() time.Time                  // the clock on the wall
	random func(time.Duration) time.Duration // up to, and without, the argument
}

const (
	// glance is how often the clock is looked at, at least: somebody may set
	// it, and timers stand still while the machine sleeps.
	glance = time.Minute
	// setBack is how far the clock must go back before runs are repeated when
	// it passes their time again. A smaller step is a correction.
	setBack = time.Minute
	// settle is the time between the start and making up a missed run: the
	// service serves first, and has read its records by then.
	settle = time.Minute
)

// New returns a scheduler. [Scheduler.Run] begins its work.
func New(c Config) *Scheduler {
	s := &Scheduler{
		log: c.Log, state: state(c.State),
		now:    func() time.Time { return time.Now().Round(0) },
		random: func(d time.Duration) time.Duration { return rand.N(d) },
	}
	for _, one := range c.Schedules {
		s.entries = append(s.entries, &entry{Schedule: one})
	}
	return s
}

// Run does the work that is due until the context ends, and returns when the
// last work has ended.
func (s *Scheduler) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, e := range s.entries {
		all.Go(func() {
			s.begin(e)
			s.follow(ctx, e)
		})
	}
	all.Wait()
}

// Status returns how the schedules are doing, in their order.
func (s *Scheduler) Status() []Status {
	list := []Status{}
	for _, e := range s.entries {
		list = append(list, e.status())
	}
	return list
}

// entry is a schedule at work.
type entry struct {
	Schedule

	// Used only by the goroutine that follows the schedule.
	base   time.Time     // the timetable continues from here
	makeUp time.Time     // when a missed run is made up; zero: none was missed
	jitter time.Duration // of the next run

	mu      sync.Mutex
	running bool
	next    time.Time
	last    record
}

func (e *entry) status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := Status{
		Name: e.Name, When: e.When.String(), Running: e.running,
		LastRun: e.last.Began, Result: e.last.Result, Error: e.last.Error, NextRun: e.next,
	}
	for _, step := range e.Steps {
		st.Run = append(st.Run, step.Name)
	}
	return st
}

// begin continues where an earlier run of the service ended.
func (s *Scheduler) begin(e *entry) {
	now := s.now()
	e.base = now
	s.shake(e)
	last, err := s.state.load(e.Name)
	if err != nil {
		s.log.Warn("could not read when a schedule last ran; a missed run is not made up", "schedule", e.Name, "error", err)
	}
	if last.Began.IsZero() {
		return
	}
	last.Began = last.Began.In(now.Location())
	e.mu.Lock()
	e.last = last
	e.mu.Unlock()
	if last.When != e.When.String() {
		return // the timetable is new, so nothing was missed
	}
	e.base = last.Began
	if due := e.When.Next(e.base); !due.IsZero() && due.Before(now) {
		s.log.Info("a scheduled run was missed and will be made up", "schedule", e.Name, "due", due)
		e.makeUp = now.Add(settle)
	}
}

// shake draws the jitter of the next run.
func (s *Scheduler) shake(e *entry) {
	if e.Jitter > 0 {
		e.jitter = s.random(e.Jitter)
	}
}

// follow does the work of one schedule whenever it is due.
func (s *Scheduler) follow(ctx context.Context, e *entry) {
	for {
		now := s.now()
		due := e.due(now)
		if !due.IsZero() && !due.After(now) && ctx.Err() == nil {
			s.run(ctx, e)
			continue
		}
		wait := glance
		if !due.IsZero() {
			wait = min(wait, due.Sub(now))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// due says when the next run is, by the clock as it is now.
func (e *entry) due(now time.Time) time.Time {
	if e.base.After(now.Add(setBack)) {
		e.base = now
	}
	next := e.makeUp
	if next.IsZero() {
		next = e.When.Next(e.base)
	}
	if !next.IsZero() {
		next = next.Add(e.jitter)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next = next
	return next
}

// run does the work once. Runs that become due meanwhile are left out.
func (s *Scheduler) run(ctx context.Context, e *entry) {
	began := s.now()
	e.mu.Lock()
	e.running, e.last.Began, e.last.When = true, began, e.When.String()
	last := e.last
	e.mu.Unlock()
	s.keep(e.Name, last) // before the work: work that crashes the service must not run again at each start

	result, err := e.do(ctx)

	ended := s.now()
	last.Result, last.Error = result, ""
	switch {
	case err != nil && ctx.Err() != nil:
		last.Error = "the service was stopped"
	case err != nil:
		last.Error = err.Error()
		s.log.Error("scheduled work failed", "schedule", e.Name, "done", result, "error", err)
	default:
		s.log.Info("scheduled work is done", "schedule", e.Name, "done", result, "duration", ended.Sub(began))
	}
	s.keep(e.Name, last)
	e.mu.Lock()
	e.running, e.last = false, last
	e.mu.Unlock()

	e.base, e.makeUp = ended, time.Time{}
	s.shake(e)
}

// do runs the steps. When one fails, the others are run all the same.
func (e *entry) do(ctx context.Context) (result string, err error) {
	var did []string
	var failed []error
	for _, step := range e.Steps {
		if ctx.Err() != nil {
			failed = append(failed, context.Cause(ctx))
			break
		}
		said, err := step.Do(ctx)
		if said != "" {
			did = append(did, step.Name+": "+said)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", step.Name, err))
		}
	}
	return strings.Join(did, "; "), errors.Join(failed...)
}

// keep stores the record of a schedule.
func (s *Scheduler) keep(name string, r record) {
	if err := s.state.store(name, r); err != nil {
		s.log.Warn("could not store when a schedule ran", "schedule", name, "error", err)
	}
}
