package httpd

import (
	"context"
	"errors"
	"net/http"
	"os"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// What can be wrong with a request itself.
var (
	errBadRequest  = errors.New("bad request")
	errTooLarge    = errors.New("body too large")
	errBodyBroken  = errors.New("the body broke off")
	errBodyStalled = errors.New("the body stalled")
)

// statuses maps errors to HTTP statuses; the first match decides. It is the
// only such mapping of the service.
var statuses = []struct {
	err    error
	status int
}{
	{errTooLarge, http.StatusRequestEntityTooLarge},
	{errNotCached, http.StatusGatewayTimeout}, // RFC 9111, section 5.2.1.7
	{errBodyStalled, http.StatusRequestTimeout},
	{errBodyBroken, http.StatusBadRequest},
	{errBadRequest, http.StatusBadRequest},
	{cache.ErrBadID, http.StatusBadRequest},
	{store.ErrBadID, http.StatusBadRequest},
	{cache.ErrConflict, http.StatusConflict},
	{cache.ErrNoSpace, http.StatusInsufficientStorage},
	{cache.ErrVerify, http.StatusUnprocessableEntity},
	{origin.ErrDenied, http.StatusForbidden},
	{context.DeadlineExceeded, http.StatusGatewayTimeout},
	{os.ErrDeadlineExceeded, http.StatusGatewayTimeout},
	{origin.ErrUnavailable, http.StatusBadGateway},
	{origin.ErrChanged, http.StatusBadGateway},
	{cache.ErrNotFound, http.StatusNotFound}, // origin.ErrNotFound too
	{sdk.ErrInvalid, http.StatusBadRequest},
	{sdk.ErrUnsupported, http.StatusNotImplemented},
	{sdk.ErrUnavailable, http.StatusServiceUnavailable},
}

// statusOf returns the status of an error of the native API.
func statusOf(err error) int {
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.status
		}
	}
	return http.StatusInternalServerError
}

// downloadStatus returns the status of an error of a download. There the
// bytes that fail verification are the origin's, not the client's.
func downloadStatus(err error) int {
	if errors.Is(err, cache.ErrVerify) {
		return http.StatusBadGateway
	}
	return statusOf(err)
}

// downloadErrors are what the public is told. The errors themselves name
// origins and files, so they go to the log only.
var downloadErrors = map[int]string{
	http.StatusBadRequest:          "this is no image id",
	http.StatusForbidden:           "the origin denies access to this image",
	http.StatusNotFound:            "no such image",
	http.StatusBadGateway:          "the origin did not deliver the image",
	http.StatusGatewayTimeout:      "the origin did not answer in time",
	http.StatusServiceUnavailable:  "the image is not available now",
	http.StatusInsufficientStorage: "no space for the image",
}

// failDownload answers a download that failed before its first byte.
func (a answerer) failDownload(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		cut(r) // nobody waits for an answer, and no answer must look like one
	}
	status := downloadStatus(err)
	if status >= http.StatusInternalServerError && !errors.Is(err, errNotCached) {
		a.log.WarnContext(r.Context(), "download failed", "path", logPath(r), "status", status, "error", err)
	}
	message, ok := downloadErrors[status]
	if !ok {
		message = http.StatusText(status)
	}
	writeError(w, status, message)
}

// fail answers a request of the native API that failed.
func (a answerer) fail(w http.ResponseWriter, r *http.Request, err error) {
	if status := statusOf(err); status == http.StatusInternalServerError {
		a.log.ErrorContext(r.Context(), "request failed", "path", logPath(r), "error", err)
	}
	failWith(w, err, errorBody{Error: err.Error()})
}

// failWith answers with a body that says more than the error.
func failWith(w http.ResponseWriter, err error, body any) {
	writeJSON(w, statusOf(err), body)
}

// errorBody is the body of every answer that is an error.
type errorBody struct {
	Error string `json:"error"`
}

func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, errorBody{Error: message})
}
