package sdktest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// T is what a case needs of the test that it is part of. *testing.T and
// *Report have it.
type T interface {
	Helper()
	Context() context.Context
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any) // ends the case
}

// Runner is a [T] that runs named cases. *testing.T is a Runner[*testing.T],
// *Report a Runner[*Report].
type Runner[S any] interface {
	T
	Run(name string, f func(S)) bool
}

// Report runs a suite outside of a test and keeps what failed. Its zero value
// is ready. Cases run one after the other.
type Report struct {
	// Observe, if not nil, is called after each case that has none below it.
	Observe func(name string, failures []string)

	// Only, if not nil, says which cases are run; those below one are run with
	// it. A case that is not run counts as passed.
	Only func(name string) bool

	// Timeout, if not 0, is how long a case of this report may take. One that
	// takes longer has failed, and is left behind if it does not end when its
	// context does.
	Timeout time.Duration

	// Parent, if not nil, is the context of all cases. When it has ended, no
	// more of them run.
	Parent context.Context

	name     string
	mu       sync.Mutex
	failures []string
	cleanups []func()
	parts    int
}

var _ Runner[*Report] = (*Report)(nil)

// Failures returns a line for each failure so far: the names of its cases,
// joined by slashes, and what was seen.
func (r *Report) Failures() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.failures)
}

// Helper does nothing.
func (r *Report) Helper() {}

// Context returns a context that ends with the case.
func (r *Report) Context() context.Context {
	if r.Parent == nil {
		return context.Background()
	}
	return r.Parent
}

// Errorf records a failure and lets the case go on.
func (r *Report) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if r.name != "" {
		text = r.name + ": " + text
	}
	r.failures = append(r.failures, text)
}

// Fatalf records a failure and ends the case.
func (r *Report) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// Cleanup registers a function to call after the case, last first.
func (r *Report) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

// Run runs a case to its end and reports whether it passed. A case that
// panics has failed, and one that Only leaves out has passed.
func (r *Report) Run(name string, f func(*Report)) bool {
	r.mu.Lock()
	r.parts++
	r.mu.Unlock()
	ctx, cancel := r.limited()
	defer cancel()
	if ctx.Err() != nil || r.Only != nil && !r.Only(name) {
		return true
	}
	c := &Report{Observe: r.Observe, Parent: ctx, name: name}
	if r.name != "" {
		c.name = r.name + "/" + name
	}
	if done := c.start(func() { f(c) }); !endsInTime(ctx, done) {
		c.Errorf("%s", r.late())
	}
	cancel()
	<-c.start(c.cleanup)
	failures := c.Failures()
	if r.Observe != nil && c.isLeaf() {
		r.Observe(c.name, failures)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, failures...)
	return len(failures) == 0
}

func (r *Report) isLeaf() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parts == 0
}

// late says why a case of this report did not end in time.
func (r *Report) late() string {
	if r.Context().Err() != nil {
		return "interrupted"
	}
	return fmt.Sprintf("it takes longer than %v", r.Timeout)
}

// limited returns the context of a case.
func (r *Report) limited() (context.Context, context.CancelFunc) {
	if r.Timeout == 0 {
		return context.WithCancel(r.Context())
	}
	return context.WithTimeout(r.Context(), r.Timeout)
}

// start runs a part of the case in a goroutine, which Fatalf ends, and returns
// what is closed when that has ended.
func (r *Report) start(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				r.Errorf("panic: %v", p)
			}
		}()
		f()
	}()
	return done
}

func (r *Report) cleanup() {
	r.mu.Lock()
	cleanups := r.cleanups
	r.mu.Unlock()
	for _, f := range slices.Backward(cleanups) {
		f()
	}
}

// lastWords is how long a case may take to say what it saw when its context
// has ended.
const lastWords = 2 * time.Second

// endsInTime waits for the end of a case, and a moment longer than its context.
// It reports whether the case ended before its context.
func endsInTime(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return ctx.Err() == nil
	case <-ctx.Done():
	}
	select {
	case <-done:
	case <-time.After(lastWords):
	}
	return false
}
