package httpd

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// do sends one request to a handler, with headers in pairs.
func do(h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/", nil)
	r.RequestURI = target
	path, query, _ := strings.Cut(target, "?")
	r.URL.Opaque, r.URL.RawQuery = "", query
	r.URL.RawPath = path
	r.URL.Path = unescape(path)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// unescape is what net/http makes of a path.
func unescape(path string) string {
	r, err := http.NewRequest(http.MethodGet, "http://h"+path, nil)
	if err != nil {
		return path
	}
	return r.URL.Path
}

func TestDownloadHeaders(t *testing.T) {
	body := content(1000)
	sum := sha256.Sum256([]byte(body))
	e := newEngine()
	e.images["img"] = newContent(body)
	e.images["img"].info.SHA256 = hex.EncodeToString(sum[:])
	h := newService(e).Handler(Faces{Images: true})

	want := http.Header{
		"Accept-Ranges":          {"bytes"},
		"Cache-Status":           {"imgcache; hit"},
		"Content-Length":         {"1000"},
		"Content-Type":           {"application/octet-stream"},
		"Etag":                   {`"v1"`},
		"Last-Modified":          {"Wed, 04 Mar 2026 05:06:07 GMT"},
		"Repr-Digest":            {"sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"},
		"X-Content-Type-Options": {"nosniff"},
	}
	get := do(h, "GET", "/images/img", "Accept-Encoding", "gzip, deflate", "Content-Type", "application/octet-stream")
	if get.Code != 200 || get.Body.String() != body {
		t.Fatalf("GET: %d with %d bytes", get.Code, get.Body.Len())
	}
	if diff := cmp.Diff(want, get.Header()); diff != "" {
		t.Errorf("header of GET (-want +got):\n%s", diff)
	}
	head := do(h, "HEAD", "/images/img", "Range", "bytes=1-2")
	if head.Code != 200 || head.Body.Len() != 0 {
		t.Errorf("HEAD: %d with %d bytes", head.Code, head.Body.Len())
	}
	if diff := cmp.Diff(want, head.Header()); diff != "" {
		t.Errorf("header of HEAD (-want +got):\n%s", diff)
	}
	part := do(h, "GET", "/images/img", "Range", "bytes=16-19")
	want.Set("Content-Range", "bytes 16-19/1000")
	want.Set("Content-Length", "4")
	if part.Code != 206 || part.Body.String() != "0123" {
		t.Errorf("range: %d %q", part.Code, part.Body)
	}
	if diff := cmp.Diff(want, part.Header()); diff != "" {
		t.Errorf("header of a range (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"open img", "stat img", "open img"}, e.calls); diff != "" {
		t.Errorf("calls of the engine (-want +got):\n%s", diff)
	}
	if c := e.images["img"]; c.copies != 2 || !c.closed {
		t.Errorf("%d copies, closed: %v", c.copies, c.closed)
	}
}

func TestUnknownSizeHasNoRanges(t *testing.T) {
	e := newEngine()
	c := newContent("abc")
	c.info.Size, c.info.SHA256, c.etag, c.modTime, c.outcome = -1, "", "", time.Time{}, cache.Outcome{Stored: true}
	e.images["img"] = c
	h := newService(e).Handler(Faces{Images: true})
	w := do(h, "GET", "/images/img", "Range", "bytes=1-1")
	if w.Code != 200 || w.Body.String() != "abc" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	for _, name := range []string{"Accept-Ranges", "Content-Length", "ETag", "Last-Modified", "Repr-Digest"} {
		if v := w.Header().Get(name); v != "" {
			t.Errorf("%s: %s", name, v)
		}
	}
}

func TestEmptyImage(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent("")
	h := newService(e).Handler(Faces{Images: true})
	for _, header := range []string{"", "bytes=0-", "bytes=-1"} {
		w := do(h, "GET", "/images/img", "Range", header)
		if w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "0" {
			t.Errorf("Range %q: %d, header %v", header, w.Code, w.Header())
		}
	}
}

// Times around that of the image, as headers have them.
const (
	exact  = "Wed, 04 Mar 2026 05:06:07 GMT"
	before = "Wed, 04 Mar 2026 05:06:06 GMT"
)

var conditionalRequests = []struct {
	header []string
	want   int
}{
	{[]string{"If-None-Match", `"v1"`}, 304},
	{[]string{"If-None-Match", `W/"v1"`}, 304},
	{[]string{"If-None-Match", `"x", "a,b" , W/"v1"`}, 304},
	{[]string{"If-None-Match", `"x"`, "If-None-Match", `"v1"`}, 304},
	{[]string{"If-None-Match", "*"}, 304},
	{[]string{"If-None-Match", `"v2"`}, 200},
	{[]string{"If-None-Match", `v1`}, 200},
	{[]string{"If-None-Match", `"v1`}, 200},
	{[]string{"If-None-Match", ``}, 200},
	{[]string{"If-None-Match", `"v2"`, "If-Modified-Since", exact}, 200},
	{[]string{"If-Modified-Since", exact}, 304},
	{[]string{"If-Modified-Since", before}, 200},
	{[]string{"If-Modified-Since", "yesterday"}, 200},
	{[]string{"If-Match", `"v1"`}, 200},
	{[]string{"If-Match", "*"}, 200},
	{[]string{"If-Match", `W/"v1"`}, 412},
	{[]string{"If-Match", `"v2"`}, 412},
	{[]string{"If-Match", `"v2"`, "If-None-Match", `"v1"`}, 412},
	{[]string{"If-Unmodified-Since", exact}, 200},
	{[]string{"If-Unmodified-Since", before}, 412},
	{[]string{"If-Match", `"v1"`, "If-Unmodified-Since", before}, 200},
	{[]string{"Range", "bytes=0-9"}, 206},
	{[]string{"Range", "bytes=0-9", "If-None-Match", `"v1"`}, 304},
	{[]string{"Range", "bytes=0-9", "If-Range", `"v1"`}, 206},
	{[]string{"Range", "bytes=0-9", "If-Range", `"v2"`}, 200},
	{[]string{"Range", "bytes=0-9", "If-Range", `W/"v1"`}, 200},
	{[]string{"Range", "bytes=0-9", "If-Range", exact}, 206},
	{[]string{"Range", "bytes=0-9", "If-Range", before}, 200},
	{[]string{"Range", "bytes=100-", "If-Range", `"v2"`}, 200},
	{[]string{"Range", "bytes=100-"}, 416},
	{[]string{"Range", "bytes=0-1,5-6"}, 200},
	{[]string{"Range", "bytes=0-1", "Range", "bytes=5-6"}, 200},
	{[]string{"Range", "bytes=5-4"}, 200},
}

func TestConditionalRequests(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent(content(100))
	h := newService(e).Handler(Faces{Images: true})
	for _, test := range conditionalRequests {
		c := e.images["img"]
		c.copies = 0
		w := do(h, "GET", "/images/img", test.header...)
		if w.Code != test.want {
			t.Errorf("%q: %d, want %d", test.header, w.Code, test.want)
			continue
		}
		if copied := c.copies > 0; copied != (w.Code < 300) {
			t.Errorf("%q: %d, copied: %v", test.header, w.Code, copied)
		}
		switch w.Code {
		case 304:
			if w.Body.Len() > 0 || w.Header().Get("ETag") != `"v1"` || w.Header().Get("Content-Length") != "" || w.Header().Get("Cache-Status") == "" {
				t.Errorf("%q: 304 with %d bytes and header %v", test.header, w.Body.Len(), w.Header())
			}
		case 416:
			if got := w.Header().Get("Content-Range"); got != "bytes */100" {
				t.Errorf("%q: Content-Range %q", test.header, got)
			}
		}
		want := test.want
		if want == 206 || want == 416 {
			want = 200 // a HEAD has no range
		}
		if head := do(h, "HEAD", "/images/img", test.header...); head.Code != want {
			t.Errorf("HEAD %q: %d, want %d", test.header, head.Code, want)
		}
	}
}

// TestPathsThatNameNoFile sends what attackers send. Whatever the engine sees
// of it must be one of its own ids.
func TestPathsThatNameNoFile(t *testing.T) {
	e := newEngine()
	address := start(t, newService(e).Handler(everything), Limits{})
	for _, prefix := range []string{"/images/", "/v1/images/", "/v1/queue/"} {
		for _, id := range []string{
			"..%2f..%2fetc%2fpasswd", "%2e%2e", "..", ".", "../../etc/passwd", "/etc/passwd", "%00", "a%00b", "a%2fb",
			"incomplete", "queue", "", "%", "%zz", "a//b", "a/../b", strings.Repeat("a", 4096), "a%0d%0ab", "a~1", "%7e",
			"a\\..\\b", "..\\etc", "a b", "a/.", "./a", "a/",
		} {
			method := "GET"
			if prefix == "/v1/queue/" {
				method = "PUT"
			}
			answer, err := talk(t, address, method+" "+prefix+id+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
			if err != nil {
				t.Fatal(err)
			}
			status, _, _ := strings.Cut(strings.TrimPrefix(answer, "HTTP/1.1 "), " ")
			if status != "400" && status != "404" {
				t.Errorf("%s %s%.40q: %.200q", method, prefix, id, answer)
			}
		}
	}
}

func TestErrorsOfDownloads(t *testing.T) {
	wrapped := func(err error) error { return fmt.Errorf("fetch http://user:secret@origin/x: %w", err) }
	for _, test := range []struct {
		err  error
		want int
	}{
		{origin.ErrNotFound, 404},
		{cache.ErrNotFound, 404},
		{origin.ErrDenied, 403},
		{origin.ErrUnavailable, 502},
		{origin.ErrChanged, 502},
		{fmt.Errorf("%w: %w", origin.ErrUnavailable, context.DeadlineExceeded), 504},
		{fmt.Errorf("%w: %w", origin.ErrUnavailable, os.ErrDeadlineExceeded), 504},
		{cache.ErrBadID, 400},
		{store.ErrBadID, 400},
		{cache.ErrNoSpace, 507},
		{cache.ErrConflict, 409},
		{cache.ErrVerify, 502},
		{sdk.ErrUnavailable, 503},
		{errTest, 500},
	} {
		e := newEngine()
		e.images["img"] = newContent(content(100)).failAt(0, wrapped(test.err))
		h := newService(e).Handler(Faces{Images: true})
		late := do(h, "GET", "/images/img") // fails in CopyTo, before the first byte
		e.fail = wrapped(test.err)
		for name, w := range map[string]*httptest.ResponseRecorder{
			"GET": do(h, "GET", "/images/img"), "HEAD": do(h, "HEAD", "/images/img"), "late": late,
		} {
			if w.Code != test.want {
				t.Errorf("%s with %q: %d, want %d", name, test.err, w.Code, test.want)
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("%s with %q tells %s", name, test.err, w.Body)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("%s with %q: Content-Type %q", name, test.err, got)
			}
			for _, field := range []string{"ETag", "Content-Length", "Accept-Ranges", "Repr-Digest"} {
				if v := w.Header().Get(field); v != "" {
					t.Errorf("%s with %q: %s: %s", name, test.err, field, v)
				}
			}
		}
	}
}

func TestPublicRoutes(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent("abc")
	s := newService(e)
	for _, test := range []struct {
		faces          Faces
		method, target string
		want           int
		allow          string
	}{
		{Faces{Images: true}, "GET", "/healthz", 200, ""},
		{Faces{Images: true}, "HEAD", "/healthz", 200, ""},
		{Faces{Images: true}, "POST", "/healthz", 405, "GET, HEAD"},
		{Faces{Images: true}, "GET", "/", 404, ""},
		{Faces{Images: true}, "GET", "/nowhere", 404, ""},
		{Faces{Images: true}, "GET", "/images", 404, ""},
		{Faces{Images: true}, "GET", "/images/none", 404, ""},
		{Faces{Images: true}, "POST", "/images/img", 405, "GET, HEAD"},
		{Faces{Images: true}, "DELETE", "/images/img", 405, "GET, HEAD"},
		{Faces{Images: true}, "get", "/images/img", 405, "GET, HEAD"},
		{Faces{Images: true}, "GET", "/readyz", 404, ""},
		{Faces{Images: true}, "GET", "/metrics", 404, ""},
		{Faces{Images: true}, "GET", "/v1/images", 404, ""},
		{Faces{Images: true}, "GET", "/debug/pprof/", 404, ""},
		{Faces{Metrics: true}, "GET", "/metrics", 200, ""},
		{Faces{Metrics: true}, "GET", "/readyz", 200, ""},
		{Faces{Metrics: true}, "GET", "/healthz", 200, ""},
		{Faces{Metrics: true}, "GET", "/images/img", 404, ""},
		{Faces{Metrics: true}, "GET", "/v1/usage", 404, ""},
		{Faces{}, "GET", "/healthz", 200, ""},
		{Faces{}, "GET", "/readyz", 404, ""},
	} {
		w := do(s.Handler(test.faces), test.method, test.target)
		if w.Code != test.want || w.Header().Get("Allow") != test.allow {
			t.Errorf("%+v: %s %s: %d, Allow %q; want %d, %q", test.faces, test.method, test.target,
				w.Code, w.Header().Get("Allow"), test.want, test.allow)
		}
	}
}

func TestResolveOfConfig(t *testing.T) {
	e := newEngine()
	e.images["mirror.x"] = newContent("abc")
	var seen []string
	s := newService(e, func(c *Config) {
		c.Resolve = func(path, query string) (string, error) {
			seen = append(seen, path+"|"+query)
			if path != "/mirror/a%20b" {
				return "", cache.ErrNotFound
			}
			return "mirror.x", nil
		}
	})
	h := s.Handler(Faces{Images: true})
	if w := do(h, "GET", "/mirror/a%20b?x=y%2F"); w.Code != 200 || w.Body.String() != "abc" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := do(h, "GET", "/images/img"); w.Code != 404 {
		t.Errorf("another path: %d", w.Code)
	}
	if diff := cmp.Diff([]string{"/mirror/a%20b|x=y%2F", "/images/img|"}, seen); diff != "" {
		t.Error(diff)
	}
}

// TestBrokenDownloadIsCut breaks a download after some bytes, in each way in
// which a client can learn the end of a body.
func TestBrokenDownloadIsCut(t *testing.T) {
	const size = 300_000
	for name, test := range map[string]struct {
		size    int64
		request string
	}{
		"length":              {size, "GET /images/img HTTP/1.1\r\nHost: h\r\n\r\n"},
		"range":               {size, "GET /images/img HTTP/1.1\r\nHost: h\r\nRange: bytes=1-\r\n\r\n"},
		"chunked":             {-1, "GET /images/img HTTP/1.1\r\nHost: h\r\n\r\n"},
		"chunked, last":       {-1, "GET /images/img HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"},
		"HTTP/1.0":            {size, "GET /images/img HTTP/1.0\r\n\r\n"},
		"HTTP/1.0, no length": {-1, "GET /images/img HTTP/1.0\r\n\r\n"},
		"native":              {size, "GET /v1/images/img/data HTTP/1.1\r\nHost: h\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine()
			c := newContent(content(size)).failAt(200_000, cache.ErrVerify)
			c.info.Size = test.size
			e.images["img"] = c
			address := start(t, newService(e).Handler(everything), Limits{})
			conn := dial(t, address)
			if _, err := io.WriteString(conn, test.request); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				// A reset may overtake the answer, but then nothing looked whole.
				t.Logf("no answer: %v", err)
				return
			}
			defer resp.Body.Close()
			n, err := io.Copy(io.Discard, resp.Body)
			if err == nil {
				t.Fatalf("%d bytes with a clean end", n)
			}
			if n >= size {
				t.Errorf("%d bytes of %d", n, size)
			}
		})
	}
}

// TestShortCopyIsCut has an engine that says that all is well but is not.
func TestShortCopyIsCut(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent(content(1000))
	e.images["img"].info.Size = 2000
	address := start(t, newService(e).Handler(everything), Limits{})
	resp, err := http.Get("http://" + address + "/images/img")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	if n, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestEndOfConnectionIsNoEndOfImage: over a unix socket nothing but an orderly
// end exists, so HTTP/1.0 could not tell a broken image from a whole one.
func TestEndOfConnectionIsNoEndOfImage(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent("abc")
	e.images["img"].info.Size = -1
	r := httptest.NewRequest("GET", "/images/img", nil)
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.0", 1, 0
	w := httptest.NewRecorder()
	newService(e).Handler(Faces{Images: true}).ServeHTTP(w, r)
	if w.Code != http.StatusHTTPVersionNotSupported {
		t.Errorf("%d", w.Code)
	}
}

// TestBytesFlowAtOnce reads each small piece before the engine has the next.
func TestBytesFlowAtOnce(t *testing.T) {
	e := newEngine()
	c := newContent("abcdef")
	c.block = 2
	next := make(chan struct{}, 1)
	c.step = func(ctx context.Context, _ int64) error {
		select {
		case <-next:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.images["img"] = c
	conn := dial(t, start(t, newService(e).Handler(everything), Limits{}))
	if _, err := io.WriteString(conn, "GET /images/img HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	next <- struct{}{}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for i, want := range []string{"ab", "cd", "ef"} {
		if i > 0 {
			next <- struct{}{}
		}
		got := make([]byte, 2)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Fatalf("piece %d: %q, %v", i, got, err)
		}
	}
}

// TestClientLeaves ends the engine's work when nobody reads any more.
func TestClientLeaves(t *testing.T) {
	e := newEngine()
	c := newContent("abcdef")
	left := make(chan error, 1)
	c.step = func(ctx context.Context, _ int64) error {
		<-ctx.Done()
		left <- ctx.Err()
		return ctx.Err()
	}
	e.images["img"] = c
	conn := dial(t, start(t, newService(e).Handler(everything), Limits{}))
	if _, err := io.WriteString(conn, "GET /images/img HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// Only the sending half ends: an answer would still be read.
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if answer, _ := io.ReadAll(conn); len(answer) > 0 {
		t.Errorf("a client that left is told %q", answer)
	}
}
