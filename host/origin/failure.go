package origin

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Failure is what an origin answered that is no image, or that it did not
// answer: use it with [errors.As]. It wraps one of the errors above.
type Failure struct {
	Status     int           // of HTTP; 0: no answer came, or the origin speaks no HTTP
	RetryAfter time.Duration // for how long the origin asks to be left alone, at most MaxRetryAfter; 0: it does not say
	Temporary  bool          // the same question may well be answered soon
	Credential bool          // the origin refuses us, which says nothing about the image: our credential is missing, wrong or has expired

	elsewhere bool // the answer is that of another host, to which the origin has sent us
	err       error
}

// Error implements error.
func (f *Failure) Error() string { return f.err.Error() }

// Unwrap implements the interface of package errors.
func (f *Failure) Unwrap() error { return f.err }

// MaxRetryAfter bounds what an origin can ask for: a maintenance lasts an hour,
// and a slip of the pen must not last a year.
const MaxRetryAfter = time.Hour

// retryAfter reads the field Retry-After: seconds, or a time by the clock of
// the server, which is that of its field Date. What is malformed or past says
// nothing.
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

// temporary reports whether a question that was answered with this status is
// worth asking again.
func temporary(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusInsufficientStorage,
		http.StatusLoopDetected, http.StatusNotExtended, http.StatusNetworkAuthenticationRequired:
		return false // what the server lacks it will lack in a moment too
	}
	return status >= 500
}
