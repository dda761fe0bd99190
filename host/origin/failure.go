package origin

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Failure says that an origin did not answer, or answered with something else than
// an image. Use it with [errors.As]. It wraps an error such as [ErrUnavailable].
type Failure struct {
	Status     int           // of HTTP; 0: no answer came, or the origin does not use HTTP
	RetryAfter time.Duration // how long the origin asks not to be asked again, at most MaxRetryAfter; 0: it does not say
	Temporary  bool          // the same request may succeed soon
	Credential bool          // the origin refuses our credential, which is missing, wrong or expired; this says nothing about the image

	elsewhere bool // the answer came from another host, to which the origin redirected the request
	err       error
}

// Error implements error.
func (f *Failure) Error() string { return f.err.Error() }

// Unwrap implements the interface of package errors.
func (f *Failure) Unwrap() error { return f.err }

// MaxRetryAfter bounds how long an origin can ask not to be asked again: an hour is
// enough for maintenance, and a mistake must not last a year.
const MaxRetryAfter = time.Hour

// retryAfter reads the field Retry-After: a number of seconds, or a time on the
// clock of the server, which the field Date shows. It returns 0 if the field is
// malformed or in the past.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v != "" && strings.Trim(v, "0123456789") == "" {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil { // it has too many digits
			return MaxRetryAfter
		}
		return min(time.Duration(n)*time.Second, MaxRetryAfter)
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter)
}

// temporary reports whether a request that was answered with this status is worth
// trying again.
func temporary(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusInsufficientStorage,
		http.StatusLoopDetected, http.StatusNotExtended, http.StatusNetworkAuthenticationRequired:
		return false // these will not be different in a moment
	}
	return status >= 500
}
