// Package conformance checks the plugin in a file against the contract. The
// plugin runs behind the supervisor, as in the service, so that its author
// finds a fault before an operator does.
package conformance

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// Check says what to check.
type Check struct {
	Path       string // of the plugin: an executable or a module
	Executable string // imgcache-host itself, which runs modules

	// Options returns the values of the options that the plugin declares.
	Options func([]sdk.Option) (sdk.Config, error)

	Only    string        // run only the cases whose names contain it
	Dir     string        // where cache directories are made; empty: the directory for temporary files
	Timeout time.Duration // of a case; 0: [Timeout]
	Entries int           // records of the largest case of a driver; 0: see [sdktest.Subject]
	Budget  time.Duration // how long a policy may take for the largest batch; 0: [Budget]
	Log     *slog.Logger  // for what the plugin writes; nil: it is dropped
}

// Case is one thing that a plugin has to do, and the result.
type Case struct {
	Name     string        `json:"name"`
	Sentence string        `json:"sentence"`           // of the contract, which requires it
	Failures []string      `json:"failures,omitempty"` // what was seen instead; none: the plugin passes
	Took     time.Duration `json:"took_ns"`
}

// Timeout bounds a case, so that a plugin that hangs fails one case and the
// check continues. The longest case takes seconds, or a minute over a slow
// network.
const Timeout = 2 * time.Minute

// Run checks a plugin against every sentence of the contract of its kind, and
// calls tell after each. The plugin runs in a process of its own, as in the
// service. The error says why it could not be checked: it does not start, or is
// not a plugin.
func (c Check) Run(ctx context.Context, tell func(Case)) error {
	w, err := c.workshop()
	if err != nil {
		return err
	}
	defer w.clear()
	first, err := w.open(ctx) // a fault that would fail all cases is reported once
	if err != nil {
		return err
	}
	m := first.p.Manifest()
	w.kind = m.Kind
	if err := first.close(); err != nil {
		return err
	}
	begun := time.Now()
	report := &sdktest.Report{
		Observe: func(name string, failures []string) {
			tell(Case{Name: name, Sentence: sentence(name), Failures: withoutName(name, failures), Took: time.Since(begun)})
			begun = time.Now()
		},
		Only:   func(name string) bool { return strings.Contains(name, c.Only) },
		Parent: ctx, Timeout: cmp.Or(c.Timeout, Timeout),
	}
	sdktest.Manifest(report, m)
	switch {
	case m.Kind == sdk.KindDriver:
		w.driver(report)
	case m.Has(sdk.CapScore):
		w.scorer(report)
	default:
		w.stateful(report)
	}
	return context.Cause(ctx)
}

// sentence returns the sentence of the contract that a case is about.
func sentence(name string) string {
	if name == inBudget {
		return budgetSentence
	}
	return sdktest.Sentence(name)
}

// withoutName removes the name of the case from each failure.
func withoutName(name string, failures []string) []string {
	for i, f := range failures {
		failures[i] = strings.TrimPrefix(f, name+": ")
	}
	return failures
}
