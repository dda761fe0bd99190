package wasm

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

const (
	// maxLine is how much is kept of a line that a module logs or prints, in
	// bytes.
	maxLine = 1 << 10

	// maxLines is how many lines of a module are logged in one second: enough
	// for the trace of a Go panic, too few to drown the log.
	maxLines = 100

	// maxPrinted is how much of what was printed during a call is kept to
	// explain a trap, in bytes.
	maxPrinted = 4 << 10
)

// output takes what a module logs and prints. Calls come one at a time, and so
// does output.
type output struct {
	log *slog.Logger
	now func() time.Time

	second  time.Time // beginning of the current second
	lines   int       // logged in that second
	dropped int       // not logged in that second

	partial []byte // printed, without an end of line so far
	printed []byte // lines of this call
}

func newOutput(log *slog.Logger) *output { return &output{log: log, now: time.Now} }

// begin is called before a call of the module.
func (o *output) begin() { o.partial, o.printed = o.partial[:0], o.printed[:0] }

// Write takes what the module prints.
func (o *output) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		text, after, complete := bytes.Cut(rest, []byte("\n"))
		o.partial = append(o.partial, text[:min(len(text), maxLine-min(len(o.partial), maxLine))]...)
		rest = after
		if complete {
			o.print(o.partial)
			o.partial = o.partial[:0]
		}
	}
	return len(p), nil
}

// print handles a line that was printed.
func (o *output) print(line []byte) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	if len(o.printed)+len(line) < maxPrinted {
		o.printed = append(append(o.printed, line...), '\n')
	}
	o.line(slog.LevelInfo, line)
}

// line logs a line, unless too many were logged in this second.
func (o *output) line(level slog.Level, text []byte) {
	if now := o.now(); now.Sub(o.second) >= time.Second || now.Before(o.second) {
		if o.dropped > 0 {
			o.log.Warn("the module logs too much", "dropped", o.dropped)
		}
		o.second, o.lines, o.dropped = now, 0, 0
	}
	if o.lines >= maxLines {
		o.dropped++
		return
	}
	o.lines++
	clean := strings.ToValidUTF8(string(text[:min(len(text), maxLine)]), "\uFFFD")
	o.log.Log(context.Background(), level, clean)
}

// trap says that the instance cannot be used any more: it trapped, exited, was
// interrupted, or returned an address outside of its memory.
type trap struct {
	text  string
	cause error
}

func (t *trap) Error() string { return fmt.Sprintf("%v: %s", sdk.ErrUnavailable, t.text) }

// Unwrap makes the error sdk.ErrUnavailable, and lets errors.Is find the end of
// a context.
func (t *trap) Unwrap() []error { return []error{sdk.ErrUnavailable, t.cause} }

// trap shortens wazero's error, which has a stack, to its first line, and adds
// what the module printed about it.
func (o *output) trap(step string, cause error) *trap {
	if len(o.partial) > 0 {
		o.print(o.partial)
		o.partial = o.partial[:0]
	}
	text, _, _ := strings.Cut(cause.Error(), "\n")
	if said := o.lastWords(); said != "" {
		text += ": " + said
	}
	return &trap{text: step + ": " + text, cause: cause}
}

// lastWords is the most useful line that was printed during the call: the first
// of a Go panic, or else the last.
func (o *output) lastWords() string {
	last := ""
	for line := range strings.Lines(string(o.printed)) {
		line = strings.ToValidUTF8(strings.TrimSuffix(line, "\n"), "\uFFFD")
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line
		}
		last = line
	}
	return last
}
