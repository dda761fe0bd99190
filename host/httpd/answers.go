package httpd

import (
	"encoding/json"
	"log/slog"
	"net/http"
)

// answerer answers requests; every group of handlers has it.
type answerer struct {
	log  *slog.Logger                             // of what failed
	find func(text string) (id string, err error) // see [Config]
}

// answer answers with v unless there is an error.
func (a answerer) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		a.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, v)
}

// answerNothing says that what was asked for is done.
func (a answerer) answerNothing(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		a.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// answerDeleted says how many things were deleted.
func (a answerer) answerDeleted(w http.ResponseWriter, r *http.Request, n int, err error) {
	if err != nil {
		a.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"deleted": n})
}

// writeJSON answers with v. An error of writing is the client's departure.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// list makes JSON write an empty list instead of null.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
