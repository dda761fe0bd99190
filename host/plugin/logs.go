package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxLine is how many bytes of a line are read: enough for every line that
	// a person wrote.
	maxLine = 64 << 10
	// maxLogged is how many bytes of a message and of each attribute are logged.
	maxLogged = 4 << 10
	// logBurst and logRate bound the logged lines of a plugin: a burst at its
	// start, and then so many a second that a person can still read them.
	logBurst = 200
	logRate  = 20
	// maxSaid is how many bytes are kept of the line that explains the end of a
	// process.
	maxSaid = 300
	// maxPanic is how many lines of a panic are kept: what it was, and where.
	maxPanic = 12
)

// transcript logs what a process says, and remembers what explains its end. It reads
// standard error itself, because go-plugin would panic, in the host, at a line such
// as {"@message":1}.
type transcript struct {
	log *slog.Logger

	mu        sync.Mutex
	allowance float64 // lines that may still be logged
	at        time.Time
	dropped   int
	panicked  []string // the first lines of a panic
	last      string   // the last line that is not a structured log
}

func newTranscript(log *slog.Logger) *transcript {
	return &transcript{log: log, allowance: logBurst, at: time.Now()}
}

// line logs one line.
func (t *transcript) line(text []byte) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := parseLine(text)
	if !r.structured {
		t.remember(&r)
	}
	if !t.allowed() {
		t.dropped++
		return
	}
	t.tellDropped()
	t.log.LogAttrs(context.Background(), r.level, cut(r.message, maxLogged), r.attrs...)
}

// remember keeps a line if it may explain the end of the process. Lines that follow
// the first line of a panic are logged as errors too.
func (t *transcript) remember(r *logLine) {
	t.last = cut(r.message, maxSaid)
	if len(t.panicked) == 0 && !tellsOfPanic(r.message) {
		return
	}
	r.level = slog.LevelError
	if len(t.panicked) < maxPanic {
		t.panicked = append(t.panicked, t.last)
	}
}

// tellsOfPanic reports whether a line is the first line of a panic of Go, Rust or
// Python.
func tellsOfPanic(line string) bool {
	for _, begin := range []string{"panic:", "fatal error:", "Traceback (most recent call last)"} {
		if strings.HasPrefix(line, begin) {
			return true
		}
	}
	return strings.HasPrefix(line, "thread '") && strings.Contains(line, "' panicked at ")
}

func (t *transcript) allowed() bool {
	now := time.Now()
	t.allowance = min(logBurst, t.allowance+logRate*now.Sub(t.at).Seconds())
	t.at = now
	if t.allowance < 1 {
		return false
	}
	t.allowance--
	return true
}

func (t *transcript) tellDropped() {
	if t.dropped > 0 {
		t.log.Warn("the plugin logs too much; lines were dropped", "lines", t.dropped)
		t.dropped = 0
	}
}

// end is called when the process will not say anything more.
func (t *transcript) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tellDropped()
}

// summary returns the line that best explains the end of the process: that of a
// panic, or the last one that is not a structured log.
func (t *transcript) summary() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.panicked) > 0 && !strings.HasPrefix(t.panicked[0], "Traceback") { // the last line of a traceback says what it was
		return t.panicked[0]
	}
	return t.last
}

// panicText returns the first lines of the panic of the process, or "".
func (t *transcript) panicText() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.panicked, "\n")
}

// logLine is a line to be logged. The handler of slog escapes it, so that a plugin
// cannot forge a line of the host.
type logLine struct {
	structured bool
	level      slog.Level
	message    string
	attrs      []slog.Attr
}

// parseLine reads the JSON of serve.Logger and of hclog. Any other line is a message.
func parseLine(text []byte) logLine {
	var fields map[string]any
	if json.Unmarshal(text, &fields) != nil {
		return logLine{message: string(text)}
	}
	message, ok := fields["@message"].(string)
	if !ok {
		return logLine{message: string(text)}
	}
	r := logLine{structured: true, message: message}
	switch fields["@level"] {
	case "trace", "debug":
		r.level = slog.LevelDebug
	case "warn":
		r.level = slog.LevelWarn
	case "error":
		r.level = slog.LevelError
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !strings.HasPrefix(name, "@") {
			r.attrs = append(r.attrs, slog.Any(foreign(name), bounded(fields[name])))
		}
	}
	return r
}

// foreign returns the name under which an attribute of a plugin is logged. It differs
// from the names that the host uses, so that a plugin cannot pretend to be another.
func foreign(name string) string {
	switch name {
	case "plugin", slog.TimeKey, slog.LevelKey, slog.MessageKey, slog.SourceKey:
		return name + "_"
	}
	return cut(name, maxSaid)
}

// bounded limits the value of an attribute.
func bounded(value any) any {
	switch value.(type) {
	case bool, float64, nil:
		return value
	}
	return cut(fmt.Sprint(value), maxLogged)
}

// cut shortens a text to limit bytes, and marks that.
func cut(s string, limit int) string {
	if len(s) > limit {
		return s[:limit] + " …"
	}
	return s
}

// lines splits a stream into lines for a transcript. Of a line that is longer than
// maxLine the end is dropped.
type lines struct {
	to      *transcript
	partial []byte
}

// Write takes the next bytes of the stream.
func (l *lines) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		text, after, complete := bytes.Cut(rest, []byte("\n"))
		l.partial = append(l.partial, text[:min(len(text), maxLine-len(l.partial))]...)
		rest = after
		if complete {
			l.flush()
		}
	}
	return len(p), nil
}

// flush ends the current line.
func (l *lines) flush() {
	l.to.line(l.partial)
	l.partial = l.partial[:0]
}
