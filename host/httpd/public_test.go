package httpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/sdk"
)

// secret is what no answer of the public face may have.
const secret = "/srv/hidden-place 10.1.2.3:8080"

// tells reports where an answer tells the secret, or a part of it; "": nowhere.
func tells(w *httptest.ResponseRecorder) string {
	where := map[string]string{"the body": w.Body.String()}
	for field, values := range w.Header() {
		where[field] = strings.Join(values, " ")
	}
	for name, text := range where {
		if strings.Contains(text, "hidden-place") || strings.Contains(text, "10.1.2.3") {
			return name + ": " + text
		}
	}
	return ""
}

// TestPublicErrors walks everything that can go wrong, and holds what clients are
// told to the sentences of the list.
func TestPublicErrors(t *testing.T) {
	sentences := map[string]bool{ourFault: true, "the origin asks for some time": true}
	var all []error
	for _, f := range failures {
		sentences[f.public] = true
		all = append(all, f.err)
	}
	all = append(all, errTest, io.ErrUnexpectedEOF, os.ErrPermission, sdk.ErrInvalid,
		&os.PathError{Op: "open", Path: secret, Err: os.ErrNotExist})
	for _, err := range all {
		err = fmt.Errorf("open %s: %w", secret, err)
		for _, method := range []string{"GET", "HEAD"} {
			e := newEngine()
			e.images["img"] = newContent(content(100)).failAt(0, err)
			h := newService(e).Handler(Faces{Images: true})
			late := do(h, method, "/images/img")
			e.fail = err
			for when, w := range map[string]*httptest.ResponseRecorder{"early": do(h, method, "/images/img"), "late": late} {
				if where := tells(w); where != "" {
					t.Errorf("%s, %s with %v: %s", method, when, err, where)
				}
				told := strings.TrimSuffix(strings.TrimPrefix(w.Body.String(), `{"error":"`), "\"}\n")
				if w.Code != 200 && !sentences[told] {
					t.Errorf("%s, %s with %v: %q is none of the sentences", method, when, err, told)
				}
			}
		}
	}
}

// TestPublicOutcomes walks every outcome, and one that nobody knows.
func TestPublicOutcomes(t *testing.T) {
	for _, detail := range append(cache.Details(), "", "open "+secret+": not a directory") {
		for _, request := range [][]string{nil, {"Range", "bytes=0-1"}, {"Range", "bytes=9-"}, {"If-None-Match", `"v1"`}, {"If-Match", `"x"`}} {
			for _, method := range []string{"GET", "HEAD"} {
				e := newEngine()
				e.images["img"] = newContent("abc")
				e.images["img"].outcome = cache.Outcome{Detail: detail}
				w := do(newService(e).Handler(Faces{Images: true}), method, "/images/img", request...)
				if where := tells(w); where != "" {
					t.Errorf("%s with %v: %s", method, request, where)
				}
				if known := strings.HasSuffix(w.Header().Get("Cache-Status"), "detail="+string(detail)); known != isDetail(detail) {
					t.Errorf("%s with %v: Cache-Status: %s, the detail is %q", method, request, w.Header().Get("Cache-Status"), detail)
				}
			}
		}
	}
}

// TestOddRequestsAreTold checks what else the public face answers.
func TestOddRequestsAreTold(t *testing.T) {
	s := newService(newEngine(), func(c *Config) {
		c.Resolve = func(path, query string) (string, error) {
			if query != "" {
				return "", fmt.Errorf("%w: see %s", origin.ErrQuery, secret)
			}
			return ResolveImages(path, query)
		}
		c.Ready = func() []Lack { return []Lack{{"disk", secret}} }
	})
	h := s.Handler(Faces{Images: true, Metrics: true})
	for target, want := range map[string]int{
		"/images/a?x=y": 400, "/images/%2e%2e": 400, "/nowhere": 404, "/readyz": 503, "/images//a": 400, "/v1/usage": 404,
	} {
		if w := do(h, "GET", target); w.Code != want || tells(w) != "" {
			t.Errorf("%s: %d %s, want %d", target, w.Code, w.Body, want)
		}
	}
}

// TestStoredIsSaidWithTheFirstByte: what is known when the header leaves counts.
func TestStoredIsSaidWithTheFirstByte(t *testing.T) {
	for _, late := range []cache.Outcome{{Stored: true}, {Detail: cache.DetailNoRoom}, {Collapsed: true}} {
		e := newEngine()
		c := newContent("abc")
		c.outcome = cache.Outcome{}
		c.step = func(context.Context, int64) error {
			c.outcome = late
			return nil
		}
		e.images["img"] = c
		w := do(newService(e).Handler(Faces{Images: true}), "GET", "/images/img")
		if got := w.Header().Get("Cache-Status"); got != cacheStatus(late) {
			t.Errorf("Cache-Status: %s, want %s", got, cacheStatus(late))
		}
	}
}

// TestStaleHasAnAge: a hit that could not be confirmed says for how long.
func TestStaleHasAnAge(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent("abc")
	h := newService(e).Handler(Faces{Images: true})
	for ago, want := range map[time.Duration]string{-time.Hour: "0", 90 * time.Minute: "5400", 49 * time.Hour: "176400"} {
		e.images["img"].outcome = cache.Outcome{Hit: true, Detail: cache.DetailStale, Confirmed: time.Now().Add(-ago)}
		if got := do(h, "GET", "/images/img").Header().Get("Age"); got != want {
			t.Errorf("Age: %s, want %s", got, want)
		}
	}
	e.images["img"].outcome = cache.Outcome{Hit: true}
	if got := do(h, "GET", "/images/img").Header().Get("Age"); got != "" {
		t.Errorf("a fresh hit has an Age: %s", got)
	}
}

// TestRetryAfter hands on for how long the origin wants to be left alone.
func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		wait   time.Duration
		status int
		want   string
	}{{0, 502, ""}, {time.Second, 503, "1"}, {90*time.Second + 1, 503, "91"}, {time.Hour, 503, "3600"}} {
		e := newEngine()
		e.fail = fmt.Errorf("fetch: %w", errors.Join(&origin.Failure{Status: 503, RetryAfter: c.wait}, origin.ErrUnavailable))
		w := do(newService(e).Handler(Faces{Images: true}), "GET", "/images/img")
		if w.Code != c.status || w.Header().Get("Retry-After") != c.want {
			t.Errorf("after %v: %d, Retry-After %q, want %d, %q", c.wait, w.Code, w.Header().Get("Retry-After"), c.status, c.want)
		}
	}
}

// TestFreshIsAskedFor: a client may have the origin asked now.
func TestFreshIsAskedFor(t *testing.T) {
	for _, c := range []struct {
		header []string
		fresh  bool
	}{
		{nil, false},
		{[]string{"Cache-Control", "no-cache"}, true},
		{[]string{"Cache-Control", "no-store, No-Cache"}, true},
		{[]string{"Cache-Control", "max-age=0"}, true},
		{[]string{"Cache-Control", "max-age=10"}, false},
		{[]string{"Cache-Control", "no-transform"}, false},
		{[]string{"Pragma", "no-cache"}, true},
		{[]string{"Pragma", "no-cache", "Cache-Control", "max-age=60"}, false},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			e := newEngine()
			e.images["img"] = newContent("abc")
			do(newService(e).Handler(Faces{Images: true}), method, "/images/img", c.header...)
			if got := strings.HasPrefix(e.calls[0], "fresh "); got != c.fresh {
				t.Errorf("%s with %q is %q", method, c.header, e.calls)
			}
		}
	}
}

// TestNamesOfTheNativeAPI: each route takes the name of an image, and the id of
// one that no origin has. Who wants an origin asked needs one that has it.
func TestNamesOfTheNativeAPI(t *testing.T) {
	names := map[string]string{
		"noble/current/x.img": "web.1", "/m/noble/current/x.img": "web.1", "grö ß+a%2Bb": "web.2", "web/a": "web.3", "a?v=1": "web.4",
	}
	e := newEngine()
	s := newService(e, func(c *Config) {
		c.Find = func(text string) (string, error) {
			if id := names[text]; id != "" {
				return id, nil
			}
			return "", fmt.Errorf("%w: no origin has %s", origin.ErrNotFound, text)
		}
	})
	h := s.Handler(everything)
	segment := map[string]string{ // as a client writes them into a path
		"noble/current/x.img": "noble%2Fcurrent%2Fx.img", "/m/noble/current/x.img": "%2Fm%2Fnoble%2Fcurrent%2Fx.img",
		"grö ß+a%2Bb": "gr%C3%B6%20%C3%9F+a%252Bb", "web/a": "web%2Fa", "a?v=1": "a%3Fv=1", "orphan": "orphan", "no such/name": "no%20such%2Fname",
	}
	for name, text := range segment {
		id := names[name]
		for _, route := range []struct {
			method, before, after string
			wanted                bool // an origin is to be asked
			call                  string
		}{
			{"GET", "/v1/images/", "", false, ""},
			{"DELETE", "/v1/images/", "", false, "delete "},
			{"GET", "/v1/images/", "/data", false, "open cached "},
			{"POST", "/v1/images/", "/refresh", true, "refresh "},
			{"PUT", "/v1/queue/", "", true, "queue "},
			{"DELETE", "/v1/queue/", "", false, "unqueue "},
			{"PUT", "/v1/pins/", "", false, "pin "},
			{"DELETE", "/v1/pins/", "", false, "unpin "},
		} {
			want, found := id, true
			if id == "" {
				want, found = text, text == "orphan" && !route.wanted
			}
			e.calls = nil
			w := call(h, route.method, route.before+text+route.after, "")
			switch {
			case !found && (w.Code != http.StatusNotFound || len(e.calls) > 0):
				t.Errorf("%s %s%s: %d, calls %q, want 404", route.method, name, route.after, w.Code, e.calls)
			case found && route.call != "" && (len(e.calls) != 1 || e.calls[0] != route.call+want):
				t.Errorf("%s %s%s: calls %q, want %q", route.method, name, route.after, e.calls, route.call+want)
			}
		}
	}
	w := call(h, "POST", "/v1/verify", `{"ids": ["noble/current/x.img", "orphan"]}`)
	if !strings.Contains(w.Body.String(), `"id":"orphan"`) || !strings.Contains(w.Body.String(), `"images":2`) {
		t.Errorf("verify: %s", w.Body)
	}
	if w := call(h, "POST", "/v1/writes", `{"id": "web/a"}`); w.Code != 201 || !strings.Contains(w.Body.String(), "wweb.3") {
		t.Errorf("writes: %d %s", w.Code, w.Body)
	}
}
