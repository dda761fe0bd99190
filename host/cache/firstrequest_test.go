package cache

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

// TestFirstRequest: what passes is asked for again before the client's first byte,
// after the pause that the origin wants.
func TestFirstRequest(t *testing.T) {
	right := image(oldImage, "ETag", `"a"`)
	inAWhile := func(w http.ResponseWriter, r *http.Request) {
		at := time.Now().Add(2 * time.Second).UTC()
		status(http.StatusServiceUnavailable, "Date", time.Now().UTC().Format(http.TimeFormat), "Retry-After", at.Format(http.TimeFormat))(w, r)
	}
	for _, tt := range []struct {
		what  string
		begin http.HandlerFunc
		times int
		waits time.Duration // at least
	}{
		{"500", status(http.StatusInternalServerError), 1, 0},
		{"504 twice", status(http.StatusGatewayTimeout), 2, 0},
		{"408", status(http.StatusRequestTimeout), 1, 0},
		{"425", status(http.StatusTooEarly), 1, 0},
		{"four reset connections", reset, 4, 0},
		{"503 with seconds", status(http.StatusServiceUnavailable, "Retry-After", "3"), 1, 3 * time.Second},
		{"503 with a date", inAWhile, 1, 2 * time.Second},
	} {
		t.Run(tt.what, func(t *testing.T) {
			inWeb(t, webConfig{}, first(tt.times, tt.begin, right), func(t *testing.T, w *web) {
				begun := time.Now()
				w.wants("cold", "image", oldImage)
				if waited := time.Since(begun); waited < tt.waits || waited > 10*time.Second {
					t.Errorf("the client waited for %v, expected at least %v", waited, tt.waits)
				}
			})
		})
	}
}

// TestFirstRequestThatFails tells the client why, and when to come back. What no
// second question would change is asked once.
func TestFirstRequestThatFails(t *testing.T) {
	for _, tt := range []struct {
		what  string
		down  http.HandlerFunc
		after time.Duration
		once  bool
		err   error
	}{
		{"503 for good", status(http.StatusServiceUnavailable, "Retry-After", "2"), 2 * time.Second, false, origin.ErrUnavailable},
		{"429 for an hour", status(http.StatusTooManyRequests, "Retry-After", "3600"), time.Hour, true, origin.ErrUnavailable},
		{"503 for a year", status(http.StatusServiceUnavailable, "Retry-After", "31536000"), origin.MaxRetryAfter, true, origin.ErrUnavailable},
		{"501", status(http.StatusNotImplemented), 0, true, origin.ErrUnavailable},
		{"404", status(http.StatusNotFound), 0, true, origin.ErrNotFound},
		{"403", status(http.StatusForbidden), 0, true, origin.ErrDenied},
	} {
		t.Run(tt.what, func(t *testing.T) {
			inWeb(t, webConfig{}, tt.down, func(t *testing.T, w *web) {
				err := w.fails("cold", "image", tt.err)
				var f *origin.Failure
				if !errors.As(err, &f) || f.RetryAfter != tt.after {
					t.Errorf("%+v, expected it to tell the client to come back after %v", f, tt.after)
				}
				if tt.once {
					w.wantAsked("cold", "GET")
				}
			})
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		inWeb(t, webConfig{}, image(oldImage), func(t *testing.T, w *web) {
			w.pipe.SetAway(true)
			time.AfterFunc(time.Second, func() { w.pipe.SetAway(false) })
			w.wants("after a second", "image", oldImage)
		})
	})
}
