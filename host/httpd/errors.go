package httpd

import (
	"context"
	"errors"
	"math"
	"net/http"
	"os"
	"strconv"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/sdk"
)

// What can be wrong with a request itself.
var (
	errBadRequest  = errors.New("bad request")
	errTooLarge    = errors.New("body too large")
	errBodyBroken  = errors.New("the body broke off")
	errBodyStalled = errors.New("the body stalled")
)

// failures are what can go wrong: the status that stands for an error, and the
// sentence that the public is told. The errors themselves name origins and files,
// so that only the log and the native API have them. The first match decides. It
// is the only such list of the service.
var failures = []struct {
	err    error
	status int
	public string
}{
	{errTooLarge, http.StatusRequestEntityTooLarge, "the body is too large"},
	{errNotCached, http.StatusGatewayTimeout, "the image is not cached"}, // RFC 9111, section 5.2.1.7
	{errBodyStalled, http.StatusRequestTimeout, "the body stalled"},
	{errBodyBroken, http.StatusBadRequest, "the body broke off"},
	{errBadRequest, http.StatusBadRequest, "bad request"},
	{origin.ErrQuery, http.StatusBadRequest, "a query is no part of an image's name here: ask for it without one"},
	{cache.ErrBadID, http.StatusBadRequest, "this is no name of an image"}, // store.ErrBadID too
	{cache.ErrConflict, http.StatusConflict, "the image is in use"},
	{cache.ErrNoSpace, http.StatusInsufficientStorage, "no space for the image"},
	{cache.ErrVerify, http.StatusUnprocessableEntity, "the origin did not deliver the image"},
	{origin.ErrDenied, http.StatusForbidden, "the origin denies access to this image"},
	{context.DeadlineExceeded, http.StatusGatewayTimeout, timedOut},
	{os.ErrDeadlineExceeded, http.StatusGatewayTimeout, timedOut},
	{origin.ErrUnavailable, http.StatusBadGateway, "the origin did not deliver the image"},
	{origin.ErrChanged, http.StatusBadGateway, "the origin did not deliver the image"},
	{cache.ErrNotFound, http.StatusNotFound, "no such image"}, // origin.ErrNotFound too
	{sdk.ErrInvalid, http.StatusBadRequest, "bad request"},
	{sdk.ErrUnsupported, http.StatusNotImplemented, "this is not supported"},
	{sdk.ErrUnavailable, http.StatusServiceUnavailable, "the image is not available now"},
}

const (
	timedOut = "the origin did not answer in time"
	ourFault = "the service failed; its log says why"
)

// failureOf returns the status of an error, and what the public is told of it.
func failureOf(err error) (status int, public string) {
	for _, f := range failures {
		if errors.Is(err, f.err) {
			return f.status, f.public
		}
	}
	return http.StatusInternalServerError, ourFault
}

// statusOf returns the status of an error of the native API.
func statusOf(err error) int {
	status, _ := failureOf(err)
	return status
}

// failDownload answers a download that failed before its first byte.
func (a answerer) failDownload(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		cut(r) // nobody waits for an answer, and no answer must look like one
	}
	status, public := failureOf(err)
	if errors.Is(err, cache.ErrVerify) {
		status = http.StatusBadGateway // the wrong bytes are the origin's, not the client's
	}
	if status >= http.StatusInternalServerError && !errors.Is(err, errNotCached) {
		a.log.WarnContext(r.Context(), "download failed", "path", logPath(r), "status", status, "error", err)
	}
	var f *origin.Failure
	if errors.As(err, &f) && f.RetryAfter > 0 {
		if status == http.StatusBadGateway {
			status, public = http.StatusServiceUnavailable, "the origin asks for some time"
		}
		w.Header().Set("Retry-After", strconv.FormatInt(int64(math.Ceil(f.RetryAfter.Seconds())), 10))
	}
	writeError(w, status, public)
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
