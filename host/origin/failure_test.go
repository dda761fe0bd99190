package origin_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

// failure returns how a question failed.
func failure(t *testing.T, o origin.Origin) *origin.Failure {
	t.Helper()
	_, _, err := o.Open(t.Context(), origin.Request{Name: "a", Length: -1})
	var f *origin.Failure
	if !errors.As(err, &f) {
		t.Fatalf("%v is no Failure", err)
	}
	return f
}

func TestFailures(t *testing.T) {
	token := map[string]string{"Authorization": "Bearer x"}
	agent := map[string]string{"User-Agent": "x", "host": "y"}
	for _, c := range []struct {
		status                int
		retryAfter            string
		headers               map[string]string
		temporary, credential bool
		pause                 time.Duration
	}{
		{status: 400},
		{status: 401, credential: true},
		{status: 403},
		{status: 403, headers: agent},
		{status: 403, headers: token, credential: true},
		{status: 404, headers: token},
		{status: 408, temporary: true},
		{status: 416},
		{status: 425, temporary: true},
		{status: 429, retryAfter: "7", temporary: true, pause: 7 * time.Second},
		{status: 500, temporary: true},
		{status: 501},
		{status: 502, temporary: true},
		{status: 503, retryAfter: "120", temporary: true, pause: 2 * time.Minute},
		{status: 503, retryAfter: "99999999999999999999", temporary: true, pause: origin.MaxRetryAfter},
		{status: 503, retryAfter: "soon", temporary: true},
		{status: 504, temporary: true},
	} {
		url, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if c.retryAfter != "" {
				w.Header().Set("Retry-After", c.retryAfter)
			}
			w.WriteHeader(c.status)
		})
		f := failure(t, at(t, url, func(cfg *origin.HTTPConfig) { cfg.Headers = c.headers }))
		if f.Status != c.status || f.Temporary != c.temporary || f.Credential != c.credential || f.RetryAfter != c.pause {
			t.Errorf("%+v: %+v", c, *f)
		}
	}
}

func TestFailuresWithoutAnAnswer(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	cut, _ := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	away, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
	})
	secret := httptest.NewTLSServer(nil)
	defer secret.Close()
	for what, c := range map[string]struct {
		url       string
		temporary bool
	}{
		"nobody listens":                {gone.URL, true},
		"the connection is cut":         {cut, true},
		"a redirect to another host":    {away, false},
		"a certificate of nobody known": {secret.URL, false},
	} {
		if f := failure(t, at(t, c.url)); f.Status != 0 || f.Temporary != c.temporary || f.RetryAfter != 0 || !errors.Is(f, origin.ErrUnavailable) {
			t.Errorf("%s: %+v", what, *f)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var f *origin.Failure
	if _, err := at(t, gone.URL).Stat(ctx, "a"); errors.As(err, &f) {
		t.Errorf("the end of the context is the origin's failure: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		value, date string
		want        time.Duration
	}{
		{"", "", 0},
		{"0", "", 0},
		{"5", "", 5 * time.Second},
		{" 5 ", "", 5 * time.Second},
		{"-5", "", 0},
		{"5.5", "", 0},
		{"+5", "", 0},
		{"3600", "", time.Hour},
		{"3601", "", time.Hour},
		{"4294967296", "", time.Hour},
		{"Tue, 03 Nov 2026 10:00:30 GMT", "", 30 * time.Second},
		{"Tuesday, 03-Nov-26 10:00:30 GMT", "", 30 * time.Second},
		{"Tue, 03 Nov 2026 09:59:30 GMT", "", 0},
		{"Wed, 03 Nov 2027 10:00:00 GMT", "", time.Hour},
		{"Tue, 03 Nov 2020 10:00:30 GMT", "Tue, 03 Nov 2020 10:00:00 GMT", 30 * time.Second}, // its clock is slow
		{"Tue, 03 Nov 2026 10:00:30 GMT", "today", 30 * time.Second},
		{"5, 7", "", 0},
	} {
		h := http.Header{"Retry-After": {c.value}, "Date": {c.date}}
		if got := origin.RetryAfter(h, now); got != c.want {
			t.Errorf("Retry-After %q, Date %q: %v, want %v", c.value, c.date, got, c.want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("5", "")
	f.Add("Tue, 03 Nov 2026 10:00:30 GMT", "Tue, 03 Nov 0001 10:00:00 GMT")
	f.Fuzz(func(t *testing.T, value, date string) {
		d := origin.RetryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, time.Unix(1e9, 0))
		if d < 0 || d > origin.MaxRetryAfter {
			t.Errorf("Retry-After %q, Date %q: %v", value, date, d)
		}
	})
}
