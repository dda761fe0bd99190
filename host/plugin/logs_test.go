package plugin

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
)

// TestNoLineIsForged has a plugin say what looks like lines of the host and of
// other plugins, in both formats of the log. Each line of its is one of the log
// and bears its name.
func TestNoLineIsForged(t *testing.T) {
	said := []string{
		`{"time":"2026-01-01T00:00:00Z","level":"INFO","msg":"the disk works again","plugin":"sqlite"}`,
		`time=2026-01-01T00:00:00Z level=INFO msg="the disk works again" plugin=sqlite`,
		`{"@message":"a\ntime=x level=ERROR msg=forged","@level":"info","plugin":"sqlite","msg":"forged","x\ny":"\r\nz","level":{"a":"\u2028"}}`,
		"a\r\x1b[2K\x00\xff\xfe b",
		`" plugin=sqlite msg="`,
		"\u2028\u2029\u0085 next",
	}
	for format, handler := range map[string]func(io.Writer, *slog.HandlerOptions) slog.Handler{
		"json": func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(w, o) },
		"text": func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(w, o) },
	} {
		var log bytes.Buffer
		begin := map[string]string{"json": `{"time":`, "text": "time="}[format]
		names := map[string]string{"json": `,"plugin":"`, "text": " plugin="}[format]
		l := lines{to: newTranscript(slog.New(handler(&log, nil)).With("plugin", "actor"))}
		for _, line := range said {
			fmt.Fprintln(&l, line)
		}
		text := log.String()
		if got := strings.Count(text, "\n"); got != len(said) {
			t.Errorf("%s: %d lines were said, %d logged:\n%s", format, len(said), got, text)
		}
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			bare := line // in JSON a quote within quotes has a backslash before it
			if format == "text" {
				bare = unquoted(line)
			}
			_, name, _ := strings.Cut(bare, names)
			if !strings.HasPrefix(line, begin) || strings.Count(bare, names) != 1 || !strings.HasPrefix(name, "actor") {
				t.Errorf("%s: a line that the host did not write: %s", format, line)
			}
			if strings.ContainsAny(line, "\r\x1b\x00\u2028\u2029\u0085") {
				t.Errorf("%s: a line that a terminal would take for something else: %q", format, line)
			}
		}
	}
}

// unquoted returns a line of the text format without what stands in quotes.
func unquoted(line string) string {
	var b strings.Builder
	quoted, escaped := false, false
	for _, r := range line {
		switch {
		case escaped:
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted = !quoted
		case !quoted:
			b.WriteRune(r)
		}
	}
	return b.String()
}
