package origin_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/origin"
)

// calls are the requests that a handler saw, as "METHOD PATH".
type calls struct {
	mu   sync.Mutex
	list []string
}

// take returns what came since the last time.
func (c *calls) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := strings.Join(c.list, ", ")
	c.list = nil
	return s
}

// serve serves a handler and returns its address.
func serve(t *testing.T, h http.HandlerFunc) (address string, seen *calls) {
	t.Helper()
	seen = &calls{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.mu.Lock()
		seen.list = append(seen.list, r.Method+" "+r.URL.Path)
		seen.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, seen
}

func at(t *testing.T, endpoint string, edit ...func(*origin.HTTPConfig)) *origin.HTTP {
	t.Helper()
	cfg := origin.HTTPConfig{Name: "web", Endpoint: endpoint}
	for _, f := range edit {
		f(&cfg)
	}
	o, err := origin.NewHTTP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// part answers a GET of the first byte.
func part(w http.ResponseWriter, total any) {
	w.Header().Set("ETag", `"v1"`)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-0/%v", total))
	w.WriteHeader(http.StatusPartialContent)
	w.Write([]byte("x"))
}

// TestRefusedHead checks that a HEAD that is refused is not believed before GET
// says the same.
func TestRefusedHead(t *testing.T) {
	for _, c := range []struct {
		status       int
		again, other string // what is asked for next, for the same image and for another one
	}{
		{400, "GET /a", "HEAD /b, GET /b"},
		{401, "GET /a", "HEAD /b, GET /b"},
		{403, "GET /a", "HEAD /b, GET /b"},
		{404, "GET /a", "HEAD /b, GET /b"},
		{405, "GET /a", "GET /b"},
		{406, "GET /a", "HEAD /b, GET /b"},
		{410, "GET /a", "HEAD /b, GET /b"},
		{204, "GET /a", "HEAD /b, GET /b"},
		{500, "GET /a", "HEAD /b, GET /b"},
		{501, "GET /a", "GET /b"},
		{502, "GET /a", "HEAD /b, GET /b"},
		{503, "GET /a", "HEAD /b, GET /b"},
	} {
		url, seen := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(c.status)
				return
			}
			part(w, 1000)
		})
		o := at(t, url)
		stat := func(name, want string) {
			t.Helper()
			obj, err := o.Stat(t.Context(), name)
			if err != nil || obj.Size != 1000 || obj.Version != `"v1"` {
				t.Errorf("HEAD is %d: %+v, %v", c.status, obj, err)
			}
			if got := seen.take(); got != want {
				t.Errorf("HEAD is %d: asked %s, want %s", c.status, got, want)
			}
		}
		stat("a", "HEAD /a, GET /a")
		stat("a", c.again)
		stat("b", c.other)
	}
}

// TestRefusedTwice checks that what GET refuses too is so, that HEAD is tried
// again later, and that a server that is busy is not asked twice.
func TestRefusedTwice(t *testing.T) {
	for status, want := range map[int]struct {
		err   error
		asked string
	}{
		400: {origin.ErrUnavailable, "HEAD /a, GET /a, HEAD /a, GET /a"},
		401: {origin.ErrDenied, "HEAD /a, GET /a, HEAD /a, GET /a"},
		404: {origin.ErrNotFound, "HEAD /a, GET /a, HEAD /a, GET /a"},
		405: {origin.ErrUnavailable, "HEAD /a, GET /a, HEAD /a, GET /a"},
		429: {origin.ErrUnavailable, "HEAD /a, HEAD /a"},
		503: {origin.ErrUnavailable, "HEAD /a, GET /a, HEAD /a, GET /a"},
	} {
		url, seen := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		o := at(t, url)
		for range 2 {
			if _, err := o.Stat(t.Context(), "a"); !errors.Is(err, want.err) {
				t.Errorf("%d: %v, want %v", status, err, want.err)
			}
		}
		if got := seen.take(); got != want.asked {
			t.Errorf("%d: asked %s, want %s", status, got, want.asked)
		}
	}
}

// TestHeadThatBreaksOff checks that a connection that ends instead of an answer
// to HEAD says nothing, and that one that nobody takes is not tried twice.
func TestHeadThatBreaksOff(t *testing.T) {
	url, seen := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			panic(http.ErrAbortHandler)
		}
		part(w, 1000)
	})
	obj, err := at(t, url).Stat(t.Context(), "a")
	if err != nil || obj.Size != 1000 {
		t.Errorf("%+v, %v", obj, err)
	}
	if got := seen.take(); !strings.HasSuffix(got, "HEAD /a, GET /a") {
		t.Errorf("asked %s", got)
	}
}

// TestHeadOfNothing checks that an image is empty only where GET says so too.
func TestHeadOfNothing(t *testing.T) {
	for _, c := range []struct {
		what  string
		get   http.HandlerFunc
		size  int64
		again string
	}{
		{"a HEAD that declares no bytes", func(w http.ResponseWriter, _ *http.Request) { part(w, 1000) }, 1000, "GET /a"},
		{"an image of unknown length", func(w http.ResponseWriter, _ *http.Request) { part(w, "*") }, -1, "HEAD /a, GET /a"},
		{"an empty image", func(w http.ResponseWriter, _ *http.Request) {}, 0, "HEAD /a, GET /a"},
		{"an empty image that has no first byte", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes */0")
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}, 0, "HEAD /a, GET /a"},
	} {
		url, seen := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.Header().Set("Content-Length", "0")
				return
			}
			c.get(w, r)
		})
		o := at(t, url)
		for _, asked := range []string{"HEAD /a, GET /a", c.again} {
			if obj, err := o.Stat(t.Context(), "a"); err != nil || obj.Size != c.size {
				t.Errorf("%s: %d bytes, %v, want %d", c.what, obj.Size, err, c.size)
			}
			if got := seen.take(); got != asked {
				t.Errorf("%s: asked %s, want %s", c.what, got, asked)
			}
		}
	}
}

// TestHeadRefusedElsewhere checks that a storage host to which the origin sends
// us says nothing about the origin: its URLs are signed for GET.
func TestHeadRefusedElsewhere(t *testing.T) {
	for _, status := range []int{400, 403, 405, 501} {
		storage, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(status)
				return
			}
			part(w, 1000)
		})
		url, seen := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/plain" {
				w.Header().Set("Content-Length", "7")
				return
			}
			http.Redirect(w, r, storage+r.URL.Path+"?signed=for-get", http.StatusFound)
		})
		o := at(t, url, func(c *origin.HTTPConfig) { c.AllowRedirects = true })
		for _, want := range []string{"HEAD /a, GET /a", "GET /a"} {
			if obj, err := o.Stat(t.Context(), "a"); err != nil || obj.Size != 1000 {
				t.Errorf("%d: %+v, %v", status, obj, err)
			}
			if got := seen.take(); got != want {
				t.Errorf("%d: asked %s, want %s", status, got, want)
			}
		}
		if obj, err := o.Stat(t.Context(), "plain"); err != nil || obj.Size != 7 {
			t.Errorf("%d: %+v, %v", status, obj, err)
		}
		if got := seen.take(); got != "HEAD /plain" {
			t.Errorf("%d: for an image of its own the origin was asked %s", status, got)
		}
	}
}

// TestMirrors checks that a rest is not given up because one of several mirrors
// has a tag of its own for the same bytes, or does not know conditions.
func TestMirrors(t *testing.T) {
	data := random(1, 1000)
	known := origin.Validators{ETag: `"v1"`, Size: 1000}
	for _, c := range []struct {
		what   string
		tag    string // that the second answer has
		data   []byte
		counts []origin.Validator
		time   bool // Last-Modified agrees
		want   error
		asked  int
	}{
		{"a server that refuses conditions", `"v1"`, data, nil, false, nil, 2},
		{"a mirror with another tag", `"v2"`, data, nil, true, origin.ErrChanged, 2},
		{"the same where tags do not count", `"v2"`, data, []origin.Validator{origin.ByLastModified, origin.BySize}, true, nil, 1},
		{"another time where tags do not count", `"v2"`, data, []origin.Validator{origin.ByLastModified, origin.BySize}, false, origin.ErrChanged, 1},
		{"another length where tags do not count", `"v2"`, data[:900], []origin.Validator{origin.ByLastModified, origin.BySize}, true, origin.ErrChanged, 1},
		{"another length with the same tag", `"v1"`, data[:900], nil, false, origin.ErrChanged, 2},
	} {
		s := newServer(t, c.data)
		s.headers["Last-Modified"] = modTime("1")
		s.headers["ETag"] = `"refuses every condition"`
		s.edit = func(h http.Header) { h.Set("ETag", c.tag) }
		k := known
		k.LastModified, _ = http.ParseTime(modTime("1"))
		if !c.time {
			k.LastModified, _ = http.ParseTime(modTime("2"))
		}
		if c.time == false && c.counts == nil {
			k.LastModified, _ = http.ParseTime("")
		}
		o := s.origin(t, func(cfg *origin.HTTPConfig) { cfg.Terms.Validators = c.counts })
		r := origin.Request{Name: "a", Offset: 100, Length: -1, Version: `"v1"`, Known: &k}
		got, obj, err := fetch(o, r)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		if c.want == nil && (cmp.Diff(data[100:], got) != "" || obj.Version != r.Version) {
			t.Errorf("%s: %d bytes of %s", c.what, len(got), obj.Version)
		}
		if n := len(s.seen()); n != c.asked {
			t.Errorf("%s: %d questions, want %d", c.what, n, c.asked)
		}
	}
}

// TestConditionsGoAlong checks that a range and its conditions reach the host to
// which the origin sends us.
func TestConditionsGoAlong(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		data := random(1, 1000)
		target := newServer(t, data)
		target.headers["ETag"] = `"v1"`
		url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target.URL+"/images/a", status) })
		o := at(t, url, func(c *origin.HTTPConfig) { c.AllowRedirects = true })
		expect(t, o, origin.Request{Name: "a", Offset: 10, Length: 20, Version: `"v1"`}, data[10:30])
		h := target.seen()[0].Header
		for field, want := range map[string]string{"Range": "bytes=10-29", "If-Match": `"v1"`, "If-Range": `"v1"`} {
			if got := h.Get(field); got != want {
				t.Errorf("%d: %s: %s, want %s", status, field, got, want)
			}
		}
	}
}
