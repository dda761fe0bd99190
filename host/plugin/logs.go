package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// maxLogLine is what is kept of a line that a plugin logs.
	maxLogLine = 4 << 10
	// logBurst and logRate bound the lines of a plugin: a burst at its start,
	// and then as many in a second as somebody may still want to read.
	logBurst = 200
	logRate  = 20
	// tailSize is how much of standard error is kept to explain an end.
	tailSize = 8 << 10
)

// newLogger returns a logger for go-plugin, which reads the plugin's standard
// error, that writes to log.
func newLogger(log *slog.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Level: hclog.Debug, JSONFormat: true, Output: &logWriter{log: log, allowance: logBurst, at: time.Now()},
	})
}

// logWriter turns hclog's JSON lines into records of slog, which escapes what
// it writes, so that no plugin can forge a line.
type logWriter struct {
	log *slog.Logger

	mu        sync.Mutex
	allowance float64 // lines that may still be written
	at        time.Time
	dropped   int
}

// Write takes one line.
func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.allowance = min(logBurst, w.allowance+logRate*now.Sub(w.at).Seconds())
	w.at = now
	if w.allowance < 1 {
		w.dropped++
		return len(p), nil
	}
	w.allowance--
	if w.dropped > 0 {
		w.log.Warn("the plugin logs too much; lines were dropped", "lines", w.dropped)
		w.dropped = 0
	}
	w.emit(p)
	return len(p), nil
}

func (w *logWriter) emit(p []byte) {
	var line map[string]any
	if json.Unmarshal(p, &line) != nil {
		line = map[string]any{"@message": string(p)}
	}
	message, _ := line["@message"].(string)
	level := slog.LevelDebug
	_, theirs := line["@module"] // go-plugin's own lines repeat what the supervisor says
	switch {
	case !theirs:
	case line["@level"] == "info":
		level = slog.LevelInfo
	case line["@level"] == "warn":
		level = slog.LevelWarn
	case line["@level"] == "error":
		level = slog.LevelError
	}
	var attrs []slog.Attr
	for name, value := range line {
		if !strings.HasPrefix(name, "@") && name != "timestamp" {
			attrs = append(attrs, slog.Any(name, value))
		}
	}
	if len(message) > maxLogLine {
		message = message[:maxLogLine] + " …"
	}
	w.log.LogAttrs(context.Background(), level, message, attrs...)
}

// tail keeps what explains the end of a process: the line of a panic, and the
// last bytes that it wrote to standard error.
type tail struct {
	mu    sync.Mutex
	panic string // the first line that looks like one
	buf   []byte
}

// Write takes what the process says.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if t.panic == "" {
		t.panic = panicLine(t.buf)
	}
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func panicLine(b []byte) string {
	for line := range bytes.Lines(b) {
		if bytes.HasPrefix(line, []byte("panic:")) || bytes.HasPrefix(line, []byte("fatal error:")) {
			return strings.TrimSpace(string(line))
		}
	}
	return ""
}

// summary returns the line that explains most: that of a panic, or the last
// one that is no structured log.
func (t *tail) summary() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.panic != "" {
		return short(t.panic)
	}
	var last string
	for line := range bytes.Lines(t.buf) {
		if text := strings.TrimSpace(string(line)); text != "" && !strings.HasPrefix(text, "{") {
			last = text
		}
	}
	return short(last)
}

func short(s string) string {
	const limit = 300
	if len(s) > limit {
		return s[:limit] + " …"
	}
	return s
}
