package sdktest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
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

	name     string
	ctx      context.Context
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
	if r.ctx == nil {
		return context.Background()
	}
	return r.ctx
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
// panics has failed.
func (r *Report) Run(name string, f func(*Report)) bool {
	if r.Only != nil && !r.Only(name) {
		return true
	}
	ctx, cancel := context.WithCancel(r.Context())
	c := &Report{Observe: r.Observe, name: name, ctx: ctx}
	if r.name != "" {
		c.name = r.name + "/" + name
	}
	r.parts++
	done := make(chan struct{})
	go func() { // Fatalf ends the goroutine
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				c.Errorf("panic: %v", p)
			}
		}()
		defer func() {
			cancel()
			for _, f := range slices.Backward(c.cleanups) {
				f()
			}
		}()
		f(c)
	}()
	<-done
	if r.Observe != nil && c.parts == 0 {
		r.Observe(c.name, c.Failures())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, c.failures...)
	return len(c.failures) == 0
}
