package httpd

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// progressEvery is how often a client is told how far long work is: a bar
// that moves, and few lines for a cache of terabytes.
const progressEvery = 250 * time.Millisecond

// streamLine is a line of an answer that tells how far work is. The last line
// has the report, and the error if that is not whole.
type streamLine[P, R any] struct {
	Progress *P     `json:"progress,omitempty"`
	Report   *R     `json:"report,omitempty"`
	Error    string `json:"error,omitempty"`
}

// stream works and tells how far it is, a JSON object on each line. It ends
// when the client leaves or the service stops.
func stream[P, R any](a answerer, w http.ResponseWriter, r *http.Request, work func(ctx context.Context, tell func(P)) (R, error)) {
	var told time.Time // zero: no line was sent
	line := func(l streamLine[P, R]) {
		if told.IsZero() {
			w.Header().Set("Content-Type", "application/jsonl")
			w.Header().Set("X-Content-Type-Options", "nosniff")
		}
		told = time.Now()
		// Errors are the client's departure, with which the context ends.
		_ = json.NewEncoder(w).Encode(l)
		_ = http.NewResponseController(w).Flush()
	}
	ctx, cancel := untilStop(r)
	defer cancel()
	var last *P
	report, err := work(ctx, func(p P) {
		last = &p
		if time.Since(told) >= progressEvery {
			line(streamLine[P, R]{Progress: last})
		}
	})
	switch {
	case err != nil && r.Context().Err() != nil:
		cut(r)
	case err != nil && told.IsZero():
		a.fail(w, r, err)
	case err != nil:
		line(streamLine[P, R]{Progress: last, Report: &report, Error: err.Error()})
	default:
		line(streamLine[P, R]{Progress: last, Report: &report})
	}
}
