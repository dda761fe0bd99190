package httpd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/sdk"
)

// call sends a request with a body to a handler.
func call(h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, target, nil)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// session is a session with the native API. Each answer must be the JSON that
// is wanted; a want of "*" leaves it open.
var session = []struct {
	method, target, body string
	status               int
	want                 string
}{
	{"GET", "/v1/images", "", 200, `{"images": []}`},
	{"GET", "/v1/images/img", "", 200, `{"id": "img", "state": "absent", "size": 0, "hits": 0, "verified": false}`},
	{"GET", "/v1/images/img/data", "", 404, "*"},
	{"HEAD", "/v1/images/img/data", "", 404, "*"},
	{"DELETE", "/v1/images/img", "", 204, ""},

	{"POST", "/v1/writes", `{"id": "img", "size": 6}`, 201, `{"write": "wimg", "offset": 0, "expires": "2026-03-04T05:06:07.0000008Z"}`},
	{"PUT", "/v1/writes/wimg/data", "abc", 204, ""},
	{"GET", "/v1/writes/wimg", "", 200, `{"write": "wimg", "offset": 3, "expires": "2026-03-04T05:06:07.0000008Z"}`},
	{"PUT", "/v1/writes/wimg/data?offset=2", "x", 409, `{"error": "conflict: the write is at 3", "offset": 3}`},
	{"PUT", "/v1/writes/wimg/data?offset=3", "def", 204, ""},
	{"PUT", "/v1/writes/none/data", "x", 404, "*"},
	{"POST", "/v1/writes/wimg/commit", "", 200, "*"},
	{"POST", "/v1/writes/wimg/commit", "", 404, "*"},
	{"POST", "/v1/writes", `{"id": "img"}`, 409, `{"error": "conflict: image \"img\" is cached"}`},
	{"POST", "/v1/writes", `{"id": "bad", "size": 7}`, 201, "*"},
	{"POST", "/v1/writes/wbad/commit", "", 422, `{"error": "verification failed: 0 bytes, not 7"}`},
	{"POST", "/v1/writes", `{"id": "off"}`, 201, "*"},
	{"POST", "/v1/writes/woff/abort", "", 204, ""},
	{"POST", "/v1/writes/woff/abort", "", 404, "*"},

	{"GET", "/v1/images/img/data", "", 200, "abcdef"},
	{"PUT", "/v1/queue/b", "", 200, `{"queued": true}`},
	{"PUT", "/v1/queue/a", "", 200, `{"queued": true}`},
	{"PUT", "/v1/queue/a", "", 200, `{"queued": false}`},
	{"PUT", "/v1/queue/img", "", 200, `{"queued": false}`},
	{"GET", "/v1/queue", "", 200, `{"queue": ["b", "a"], "entries": [
		{"id": "b", "tries": 3, "error": "away", "next": "2026-03-04T05:06:07.0000008Z"}, {"id": "a", "running": true}]}`},
	{"POST", "/v1/queue", "", 200, `{"queued": 2}`},
	{"DELETE", "/v1/queue/b", "", 204, ""},
	{"DELETE", "/v1/queue/b", "", 204, ""},
	{"DELETE", "/v1/queue", "", 200, `{"deleted": 1}`},
	{"GET", "/v1/queue", "", 200, `{"queue": [], "entries": []}`},

	{"POST", "/v1/images/img/refresh", "", 200, `{"id": "img", "state": "cached", "size": 6, "hits": 0, "verified": true, "sha256": "` + strings.Repeat("ab", 32) + `"}`},
	{"POST", "/v1/images/none/refresh", "", 404, `{"error": "image \"none\": not found"}`},
	{"GET", "/v1/images/img/refresh", "", 405, `{"error": "method not allowed"}`},
	{"GET", "/v1/pins", "", 200, `{"pins": []}`},
	{"PUT", "/v1/pins/img", "", 200, `{"id": "img", "from": "a request", "cached": true}`},
	{"PUT", "/v1/pins/new", `{"until": "2026-04-01T02:00:00+02:00"}`, 200, `{"id": "new", "until": "2026-04-01T02:00:00+02:00", "from": "a request", "cached": false}`},
	{"GET", "/v1/pins", "", 200, `{"pins": [{"id": "img", "from": "a request", "cached": true}, {"id": "new", "until": "2026-04-01T02:00:00+02:00", "from": "a request", "cached": false}]}`},
	{"PUT", "/v1/pins/new", `{"until": "2026-01-01T00:00:00Z"}`, 400, `{"error": "invalid: it would have ended"}`},
	{"DELETE", "/v1/pins/new", "", 204, ""},
	{"DELETE", "/v1/pins/new", "", 204, ""},
	{"DELETE", "/v1/pins/gold", "", 409, `{"error": "conflict: image \"gold\" is pinned by the configuration"}`},
	{"GET", "/v1/pins", "", 200, `{"pins": [{"id": "img", "from": "a request", "cached": true}]}`},

	{"GET", "/v1/usage", "", 200, "*"},
	{"GET", "/v1/fills", "", 200, `{"fills": [{"id": "new", "phase": "streaming", "size": 9, "written": 3, "rate": 2, "clients": 1, "started": "2026-03-04T05:06:07.0000008Z"}]}`},
	{"GET", "/v1/victims?limit=3", "", 200, `{"victims": []}`},
	{"POST", "/v1/prune", "", 200, `{"files": 3, "bytes": 300}`},
	{"POST", "/v1/clean", "{}", 200, `{"files": 1, "bytes": 10}`},
	{"POST", "/v1/verify", "", 200, `{"report": {"images": 0, "adopted": 0, "bytes": 0, "bad": [], "unread": []}}`},
	{"POST", "/v1/verify", `{"id": "a"}`, 400, `{"error": "bad request: unknown field \"id\"; there are ids"}`},
	{"GET", "/v1/plugins", "", 200, `{"plugins": []}`},
	{"GET", "/v1/schedules", "", 200, `{"schedules": []}`},
	{"DELETE", "/v1/images", "", 200, `{"deleted": 1}`},

	{"GET", "/readyz", "", 200, `{"ready": true, "reasons": []}`},
	{"GET", "/debug/pprof/cmdline", "", 200, "*"},
	{"GET", "/v1/nothing", "", 404, `{"error": "no such path"}`},
	{"GET", "/v1/images/", "", 404, `{"error": "no such path"}`},
	{"POST", "/v1/images", "", 405, `{"error": "method not allowed"}`},
	{"PATCH", "/v1/prune", "", 405, `{"error": "method not allowed"}`},
	{"GET", "/v1/prune", "", 405, `{"error": "method not allowed"}`},
}

func TestNativeAPI(t *testing.T) {
	h := newService(newEngine()).Handler(everything)
	for _, test := range session {
		w := call(h, test.method, test.target, test.body)
		if w.Code != test.status {
			t.Errorf("%s %s: %d, want %d: %s", test.method, test.target, w.Code, test.status, w.Body)
			continue
		}
		if got := w.Body.String(); test.want != "*" && !sameJSON(got, test.want) {
			t.Errorf("%s %s: %s, want %s", test.method, test.target, got, test.want)
		}
	}
}

// TestHistoryOfImage: the native API tells what happened to an image.
func TestHistoryOfImage(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent("abc")
	e.images["img"].info = cache.ImageInfo{State: cache.StateAbsent, Size: -1, History: []cache.Event{
		{Time: modified, Event: cache.NotFetched, Reason: "away", Times: 3}, {Time: modified, Event: cache.Queued},
	}}
	w := call(newService(e).Handler(everything), "GET", "/v1/images/img", "")
	want := `{"id": "img", "state": "absent", "size": -1, "hits": 0, "verified": false, "history": [
		{"time": "2026-03-04T05:06:07.0000008Z", "event": "not fetched", "reason": "away", "times": 3},
		{"time": "2026-03-04T05:06:07.0000008Z", "event": "queued"}]}`
	if !sameJSON(w.Body.String(), want) {
		t.Errorf("%s, want %s", w.Body, want)
	}
}

func sameJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return a == b
	}
	return cmp.Equal(x, y)
}

func TestMethodsOfNativeAPI(t *testing.T) {
	h := newService(newEngine()).Handler(everything)
	for target, allow := range map[string]string{
		"/v1/images":             "GET, HEAD, DELETE",
		"/v1/images/img":         "GET, HEAD, DELETE",
		"/v1/queue":              "GET, HEAD, POST, DELETE",
		"/v1/queue/img":          "PUT, DELETE",
		"/v1/prune":              "POST",
		"/v1/pins":               "GET, HEAD",
		"/v1/pins/img":           "PUT, DELETE",
		"/v1/writes/w/data":      "PUT",
		"/debug/pprof/profile":   "GET, HEAD",
		"/debug/pprof/symbol":    "GET, HEAD, POST",
		"/metrics":               "GET, HEAD",
		"/v1/images/img/data":    "GET, HEAD",
		"/v1/writes/w/commit":    "POST",
		"/debug/pprof/heap":      "GET, HEAD",
		"/v1/images/%2e%2e/data": "GET, HEAD",
	} {
		w := call(h, "OPTIONS", target, "")
		if w.Code != 405 || w.Header().Get("Allow") != allow {
			t.Errorf("OPTIONS %s: %d, Allow %q, want %q", target, w.Code, w.Header().Get("Allow"), allow)
		}
	}
}

func TestBadBodies(t *testing.T) {
	h := newService(newEngine()).Handler(everything)
	for _, test := range []struct {
		target, body string
		status       int
		says         string
	}{
		{"/v1/prune", `{"maxsize": 1}`, 400, `unknown field "maxsize"; there are max_size, dry_run`},
		{"/v1/prune", `{"max_size": "1GiB"}`, 400, `"max_size" cannot be a JSON string`},
		{"/v1/prune", `{"max_size": 1.5}`, 400, `"max_size" cannot be a JSON number 1.5`},
		{"/v1/prune", `{"max_size": -1}`, 400, "max_size must not be negative"},
		{"/v1/prune", `{"max_size": 99999999999999999999}`, 400, "max_size"},
		{"/v1/prune", `[1]`, 400, "the body must be a JSON object"},
		{"/v1/prune", `{"max_size": 1} {}`, 400, "something follows"},
		{"/v1/prune", `{"max_size": 1`, 400, "the body is no JSON"},
		{"/v1/prune", `max_size=1`, 400, "the body is no JSON"},
		{"/v1/prune", `{"dry_run": ` + strings.Repeat(" ", maxJSON), 413, "at most 1048576 bytes"},
		{"/v1/prune", strings.Repeat("[", maxJSON), 400, "exceeded max depth"},
		{"/v1/prune", `{"max_size": ` + strings.Repeat(`{"a":`, maxJSON/8), 400, "exceeded max depth"},
		{"/v1/clean", `{"stall_time": -0.5}`, 400, "stall_time must be"},
		{"/v1/clean", `{"stall_time": 1e300}`, 400, "stall_time must be"},
		{"/v1/clean", `{"stall_time": 9223372037}`, 400, "stall_time must be"},
		{"/v1/clean", `{"stall": 1}`, 400, `unknown field "stall"; there are stall_time`},
		{"/v1/writes", ``, 400, "id is missing"},
		{"/v1/writes", `{"id": "../x"}`, 400, "bad image id"},
		{"/v1/writes", `{"id": "x", "size": -1}`, 400, "size must not be negative"},
		{"/v1/writes", `{"id": "x", "md5": "ab"}`, 400, "md5 must be 32 hexadecimal digits"},
		{"/v1/writes", `{"id": "x", "sha256": "` + strings.Repeat("zz", 32) + `"}`, 400, "sha256 must be 64 hexadecimal digits"},
		{"/v1/writes", `{"id": "x", "sha512": "` + strings.Repeat("ab", 65) + `"}`, 400, "sha512 must be 128 hexadecimal digits"},
	} {
		w := call(h, "POST", test.target, test.body)
		var answer struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		if w.Code != test.status || !strings.Contains(answer.Error, test.says) {
			t.Errorf("POST %s %.60s: %d %q, want %d %q", test.target, test.body, w.Code, answer.Error, test.status, test.says)
		}
	}
	for _, target := range []string{"/v1/victims?limit=", "/v1/victims?limit=0", "/v1/victims?limit=-1", "/v1/victims?limit=x", "/v1/victims?limit=10001"} {
		if w := call(h, "GET", target, ""); w.Code != 400 {
			t.Errorf("GET %s: %d", target, w.Code)
		}
	}
	for _, target := range []string{"/v1/writes/w/data?offset=", "/v1/writes/w/data?offset=-1", "/v1/writes/w/data?offset=1e3"} {
		if w := call(h, "PUT", target, "x"); w.Code != 400 {
			t.Errorf("PUT %s: %d", target, w.Code)
		}
	}
}

func TestOptionsReachTheEngine(t *testing.T) {
	e := newEngine()
	h := newService(e).Handler(everything)
	size := int64(5120)
	for body, want := range map[string]cache.PruneOptions{
		``:                   {},
		`null`:               {},
		`{}`:                 {},
		`{"max_size": 5120}`: {MaxSize: &size},
		`{"dry_run": true}`:  {DryRun: true},
	} {
		if w := call(h, "POST", "/v1/prune", body); w.Code != 200 {
			t.Errorf("prune %s: %d", body, w.Code)
		}
		if diff := cmp.Diff(want, e.pruned); diff != "" {
			t.Errorf("prune %s:\n%s", body, diff)
		}
	}
	second, none := 1500*time.Millisecond, time.Duration(0)
	for body, want := range map[string]*time.Duration{``: nil, `{"stall_time": 1.5}`: &second, `{"stall_time": 0}`: &none} {
		call(h, "POST", "/v1/clean", body)
		if diff := cmp.Diff(want, e.cleaned); diff != "" {
			t.Errorf("clean %s:\n%s", body, diff)
		}
	}
	for target, want := range map[string]int{"/v1/victims": defaultVictims, "/v1/victims?limit=10000": 10000} {
		call(h, "GET", target, "")
		if e.limit != want {
			t.Errorf("%s asks for %d, want %d", target, e.limit, want)
		}
	}
}

// TestErrorsOfNativeAPI crosses every route that can fail with every error.
func TestErrorsOfNativeAPI(t *testing.T) {
	routes := []struct{ method, target, body string }{
		{"GET", "/v1/images/img", ""},
		{"DELETE", "/v1/images/img", ""},
		{"DELETE", "/v1/images", ""},
		{"HEAD", "/v1/images/img/data", ""},
		{"GET", "/v1/queue", ""},
		{"POST", "/v1/queue", ""},
		{"PUT", "/v1/queue/img", ""},
		{"DELETE", "/v1/queue/img", ""},
		{"DELETE", "/v1/queue", ""},
		{"GET", "/v1/victims", ""},
		{"POST", "/v1/prune", "{}"},
		{"POST", "/v1/clean", "{}"},
		{"POST", "/v1/writes", `{"id": "img"}`},
		{"PUT", "/v1/writes/w/data", "x"},
		{"GET", "/v1/writes/w", ""},
		{"POST", "/v1/writes/w/commit", ""},
		{"POST", "/v1/writes/w/abort", ""},
	}
	for err, want := range map[error]int{
		cache.ErrBadID:        400,
		cache.ErrNotFound:     404,
		cache.ErrConflict:     409,
		cache.ErrNoSpace:      507,
		cache.ErrVerify:       422,
		sdk.ErrInvalid:        400,
		sdk.ErrUnsupported:    501,
		sdk.ErrUnavailable:    503,
		origin.ErrUnavailable: 502,
		origin.ErrDenied:      403,
		errTest:               500,
	} {
		e := newEngine()
		e.fail = fmt.Errorf("step: %w", err)
		h := newService(e).Handler(everything)
		for _, route := range routes {
			status := want
			if route.target == "/v1/images/img" && route.method == "GET" && want == 404 {
				status = 200 // that an image is absent is an answer
			}
			w := call(h, route.method, route.target, route.body)
			if w.Code != status {
				t.Errorf("%s %s with %q: %d, want %d", route.method, route.target, err, w.Code, status)
			}
			if status != 200 && w.Body.Len() > 0 && !strings.Contains(w.Body.String(), "step: ") {
				t.Errorf("%s %s with %q: %s", route.method, route.target, err, w.Body)
			}
		}
	}
}

// TestHeadOfDataCountsAsNothing: HEAD must neither open nor copy.
func TestHeadOfDataCountsAsNothing(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent("abc")
	w := call(newService(e).Handler(everything), "HEAD", "/v1/images/img/data", "")
	if w.Code != 200 || w.Header().Get("Content-Length") != "3" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if diff := cmp.Diff([]string{"stat img"}, e.calls); diff != "" {
		t.Error(diff)
	}
}

// TestReadiness: what is missing is a word for everybody, and a sentence for who
// may administer the service.
func TestReadiness(t *testing.T) {
	var lacks []Lack
	s := newService(newEngine(), func(c *Config) { c.Ready = func() []Lack { return lacks } })
	faces := map[string]Faces{
		"socket": everything, "token": {Admin: true, Tokens: []string{"secret"}},
		"public": {Images: true, Metrics: true}, "both": {Metrics: true, Admin: true, Tokens: []string{"secret"}},
	}
	check := func(status int, long, short string) {
		t.Helper()
		for name, f := range faces {
			want := long
			if f.Metrics {
				want = short
			}
			if w := do(s.Handler(f), "GET", "/readyz", "Authorization", "Bearer secret"); w.Code != status || !sameJSON(w.Body.String(), want) {
				t.Errorf("%s: %d %s, want %s", name, w.Code, w.Body, want)
			}
		}
	}
	check(200, `{"ready": true, "reasons": []}`, `{"ready": true, "reasons": []}`)
	lacks = []Lack{{"disk", "mkdir /srv/images: read-only"}, {"pins", "too many"}}
	check(503, `{"ready": false, "reasons": ["disk: mkdir /srv/images: read-only", "pins: too many"]}`, `{"ready": false, "reasons": ["disk", "pins"]}`)
}
