package httpd

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// loggedPath is how much of a path the log shows: an id has at most 128
// characters, a path that is much longer is an attack.
const loggedPath = 256

// logPath is the path of a request as the log shows it: escaped, cut, and
// without the query.
func logPath(r *http.Request) string {
	p := r.URL.EscapedPath()
	return p[:min(len(p), loggedPath)]
}

// faceOf names the face that a request is for, in metrics and levels of logs.
func faceOf(path string) string {
	switch {
	case path == "/healthz" || path == "/readyz" || path == "/metrics":
		return "health"
	case strings.HasPrefix(path, "/v1/") || strings.HasPrefix(path, "/debug/"):
		return "admin"
	default:
		return "images"
	}
}

// recorder notes what a handler answers.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom passes a file on, for the kernel to send.
func (w *recorder) ReadFrom(r io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := io.Copy(w.ResponseWriter, r)
	w.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// observe counts and logs each request. A handler that panics fails its own
// request only.
func (s *Service) observe(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec, start, face := &recorder{ResponseWriter: w}, time.Now(), faceOf(r.URL.Path)
		s.metrics.running.WithLabelValues(face).Inc()
		defer func() {
			cause := recover()
			if cause != nil && cause != http.ErrAbortHandler {
				s.log.ErrorContext(r.Context(), "handler panicked", "path", logPath(r), "panic", cause, "stack", string(debug.Stack()))
				if rec.status == 0 {
					clear(w.Header())
					writeError(rec, http.StatusInternalServerError, "internal error")
					cause = nil
				}
			}
			if r.Method == http.MethodHead {
				rec.bytes = 0 // net/http throws them away
			}
			s.metrics.running.WithLabelValues(face).Dec()
			s.metrics.count(face, rec, cause != nil)
			s.logAccess(r, rec, face, time.Since(start), cause != nil)
			if cause != nil {
				panic(http.ErrAbortHandler)
			}
		}()
		h.ServeHTTP(rec, r)
	})
}

// logAccess writes a line for each request: downloads as information, the rest,
// which monitoring repeats all day, for debugging.
func (s *Service) logAccess(r *http.Request, rec *recorder, face string, took time.Duration, aborted bool) {
	level := slog.LevelDebug
	if face == "images" {
		level = slog.LevelInfo
	}
	// The context of an aborted request has ended; the line is still due.
	s.log.LogAttrs(context.WithoutCancel(r.Context()), level, "request",
		slog.String("method", r.Method),
		slog.String("path", logPath(r)),
		slog.String("remote", r.RemoteAddr),
		slog.Int("status", rec.status),
		slog.Int64("bytes", rec.bytes),
		slog.Duration("duration", took),
		slog.String("cache", rec.Header().Get("Cache-Status")),
		slog.Bool("aborted", aborted),
	)
}
