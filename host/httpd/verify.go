package httpd

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
)

// progressEvery is how often a client is told how far a verification is: a bar
// that moves, and few lines for a cache of terabytes.
const progressEvery = 250 * time.Millisecond

// verifyLine is a line of the answer to POST /v1/verify. The last line has the
// report, and the error if that is not whole.
type verifyLine struct {
	Progress *cache.ScrubProgress `json:"progress,omitempty"`
	Report   *cache.ScrubReport   `json:"report,omitempty"`
	Error    string               `json:"error,omitempty"`
}

// verify reads images and tells how far it is, a JSON object on each line. It
// ends when the client leaves or the service stops.
func (s *Service) verify(w http.ResponseWriter, r *http.Request) {
	var o struct {
		IDs []string `json:"ids"`
	}
	if err := decode(w, r, &o); err != nil {
		s.fail(w, r, err)
		return
	}
	var told time.Time // zero: no line was sent
	line := func(l verifyLine) {
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
	var last *cache.ScrubProgress
	report, err := s.engine.Verify(ctx, o.IDs, func(p cache.ScrubProgress) {
		last = &p
		if time.Since(told) >= progressEvery {
			line(verifyLine{Progress: last})
		}
	})
	switch {
	case err != nil && r.Context().Err() != nil:
		cut(r)
	case err != nil && told.IsZero():
		s.fail(w, r, err)
	case err != nil:
		line(verifyLine{Progress: last, Report: &report, Error: err.Error()})
	default:
		line(verifyLine{Progress: last, Report: &report})
	}
}
