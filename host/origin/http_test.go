package origin_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/sdk"
)

func TestEndpoint(t *testing.T) {
	for _, endpoint := range []string{"", "images", "ftp://host/", "http://", "http:///images", "http://user:secret@/x", "http://h/#top", "http://us er:secret@h:x/"} {
		_, err := origin.NewHTTP(origin.HTTPConfig{Name: "web", Endpoint: endpoint})
		if err == nil {
			t.Errorf("endpoint %q is taken", endpoint)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("endpoint %q: the error shows the password: %v", endpoint, err)
		}
	}
}

// The name is escaped, the endpoint's query stays, and neither the query nor
// a password is shown to people.
func TestRequestURL(t *testing.T) {
	var got *http.Request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r }))
	defer s.Close()
	o, err := origin.NewHTTP(origin.HTTPConfig{
		Name: "web", Endpoint: strings.Replace(s.URL, "http://", "http://user:secret@", 1) + "/a%2Fb?sig=secret",
		Headers: map[string]string{"X-Auth-Token": "token", "host": "virtual.example", "accept-encoding": "gzip"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	obj, err := o.Stat(t.Context(), "dir/x y%3F#%+.img?v=a&w=2")
	if err != nil {
		t.Fatal(err)
	}
	if want := "/a%2Fb/dir/x%20y%3F%23%25+.img?sig=secret&v=a&w=2"; got.RequestURI != want {
		t.Errorf("asked for %s, want %s", got.RequestURI, want)
	}
	if want := s.URL + "/a%2Fb/dir/x%20y%3F%23%25+.img"; obj.URL != want {
		t.Errorf("URL = %s, want %s", obj.URL, want)
	}
	user, password, _ := got.BasicAuth()
	if user != "user" || password != "secret" || got.Header.Get("X-Auth-Token") != "token" || got.Host != "virtual.example" {
		t.Errorf("the request has host %s and the headers %v", got.Host, got.Header)
	}
	if enc := got.Header.Get("Accept-Encoding"); enc != "identity" {
		t.Errorf("Accept-Encoding: %s", enc)
	}
}

func TestStatus(t *testing.T) {
	s := newServer(t, random(1, 100))
	o := s.origin(t)
	for status, want := range map[int]error{
		201: origin.ErrUnavailable, 202: origin.ErrUnavailable, 204: origin.ErrUnavailable, 206: origin.ErrUnavailable,
		304: origin.ErrUnavailable, 400: origin.ErrUnavailable, 401: origin.ErrDenied, 403: origin.ErrDenied,
		404: origin.ErrNotFound, 410: origin.ErrNotFound, 429: origin.ErrUnavailable, 500: origin.ErrUnavailable,
		502: origin.ErrUnavailable, 503: origin.ErrUnavailable,
	} {
		s.set(func(s *server) { s.status = status })
		_, statErr := o.Stat(t.Context(), "a")
		_, _, openErr := fetch(o, origin.Request{Name: "a", Length: -1})
		_, _, partErr := fetch(o, origin.Request{Name: "a", Offset: 10, Length: -1})
		for call, err := range map[string]error{"Stat": statErr, "Open": openErr, "Open of a part": partErr} {
			if !errors.Is(err, want) {
				t.Errorf("%d: %s = %v, want %v", status, call, err, want)
			}
		}
		if !strings.Contains(openErr.Error(), fmt.Sprint(status)) && status != 206 {
			t.Errorf("%d is not in %q", status, openErr)
		}
	}
}

func TestDigests(t *testing.T) {
	data := random(1, 1000)
	m, s2, s5 := md5.Sum(data), sha256.Sum256(data), sha512.Sum512(data)
	b64 := base64.StdEncoding.EncodeToString
	all := map[string]origin.Digest{
		"md5": {Algorithm: "md5", Sum: m[:]}, "sha256": {Algorithm: "sha256", Sum: s2[:]}, "sha512": {Algorithm: "sha512", Sum: s5[:]},
	}
	for _, c := range []struct {
		headers map[string]string
		want    []string
	}{
		{map[string]string{"Content-MD5": b64(m[:])}, []string{"md5"}},
		{map[string]string{"Content-MD5": hex.EncodeToString(m[:])}, []string{"md5"}},
		{map[string]string{"Content-MD5": strings.ToUpper(hex.EncodeToString(m[:]))}, []string{"md5"}},
		{map[string]string{"Content-MD5": b64(m[:5])}, nil},
		{map[string]string{"Content-MD5": "?"}, nil},
		{map[string]string{"Repr-Digest": "sha-256=:" + b64(s2[:]) + ":"}, []string{"sha256"}},
		{map[string]string{"Repr-Digest": "sha-256=:" + b64(s2[:]) + ":, sha-512=:" + b64(s5[:]) + ":"}, []string{"sha512", "sha256"}},
		{map[string]string{"Repr-Digest": "md5=:" + b64(m[:]) + ":, unixsum=:AAA=:"}, nil},
		{map[string]string{"Repr-Digest": "sha-256=" + b64(s2[:])}, nil},
		{map[string]string{"Repr-Digest": "sha-256=:" + b64(s2[:5]) + ":"}, nil},
		{map[string]string{"X-Goog-Hash": "crc32c=AAAAAA==,md5=" + b64(m[:])}, []string{"md5"}},
		{map[string]string{"X-Goog-Hash": "md5=" + b64(m[:]), "X-Goog-Stored-Content-Encoding": "identity"}, []string{"md5"}},
		{map[string]string{"X-Goog-Hash": "md5=" + b64(m[:]), "X-Goog-Stored-Content-Encoding": "gzip"}, nil},
		{map[string]string{"Digest": "sha-256=" + b64(s2[:])}, nil},
		{map[string]string{"Content-Digest": "sha-256=:" + b64(s2[:]) + ":"}, nil},
		{map[string]string{"X-Amz-Meta-Md5": hex.EncodeToString(m[:])}, nil},
	} {
		s := newServer(t, data)
		s.headers = c.headers
		s.headers["ETag"] = `"` + hex.EncodeToString(m[:]) + `"`
		obj := expect(t, s.origin(t), origin.Request{Name: "a", Length: -1}, data)
		var want []origin.Digest
		version := s.headers["ETag"]
		for i, name := range c.want {
			want = append(want, all[name])
			if i == 0 {
				version = name + ":" + hex.EncodeToString(all[name].Sum)
			}
		}
		if diff := cmp.Diff(want, obj.Digests); diff != "" || obj.Version != version {
			t.Errorf("%v: version %s, digests %s", c.headers, obj.Version, diff)
		}
	}
}

// A body that does not have the length it promised never ends cleanly.
func TestCutBody(t *testing.T) {
	data := random(1, 200_000)
	for _, chunked := range []bool{false, true} {
		s := newServer(t, data)
		s.chunked = chunked
		o := s.origin(t)
		for _, cut := range []int{1, 1000, 65_536, 199_999} {
			s.set(func(s *server) { s.cut = cut })
			for _, r := range []origin.Request{{Name: "a", Length: -1}, {Name: "a", Length: int64(len(data))}} {
				got, _, err := fetch(o, r)
				if !errors.Is(err, origin.ErrUnavailable) || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("cut at %d, chunked %v: %v, want ErrUnavailable for an unexpected end", cut, chunked, err)
				}
				if !bytes.HasPrefix(data, got) || len(got) > cut {
					t.Errorf("cut at %d: got %d bytes", cut, len(got))
				}
			}
		}
	}
}

func TestChunkedBodyHasNoSize(t *testing.T) {
	data := random(1, 200_000)
	s := newServer(t, data)
	s.chunked = true
	s.headers["Last-Modified"] = modTime("1")
	if obj := expect(t, s.origin(t), origin.Request{Name: "a", Length: -1}, data); obj.Size != -1 || obj.Version != "" {
		t.Errorf("%+v, want no size and no version", obj)
	}
}

func TestWrongPart(t *testing.T) {
	data := random(1, 1000)
	for what, contentRange := range map[string]string{
		"none":           "",
		"other start":    "bytes 99-999/1000",
		"early end":      "bytes 100-998/1000",
		"unknown total":  "bytes 100-999/*",
		"other unit":     "pages 100-999/1000",
		"backwards":      "bytes 999-100/1000",
		"past the total": "bytes 100-999/900",
		"negative":       "bytes -100-999/1000",
		"huge":           "bytes 100-999/99999999999999999999",
		"other length":   "bytes 100-1999/2000",
		"multipart":      "multipart",
	} {
		s := newServer(t, data)
		s.edit = func(h http.Header) {
			h.Set("Content-Range", contentRange)
			if contentRange == "" {
				h.Del("Content-Range")
			}
		}
		if got, _, err := fetch(s.origin(t), origin.Request{Name: "a", Offset: 100, Length: -1}); !errors.Is(err, origin.ErrUnavailable) {
			t.Errorf("%s: %d bytes, %v, want ErrUnavailable", what, len(got), err)
		}
	}
}

func TestEncodedBodyIsRefused(t *testing.T) {
	s := newServer(t, random(1, 1000))
	for encoding, ok := range map[string]bool{"": true, "identity": true, "gzip": false, "br": false, "aws-chunked": false} {
		s.set(func(s *server) {
			s.edit = func(h http.Header) { h.Set("Content-Encoding", encoding) }
		})
		_, _, err := fetch(s.origin(t), origin.Request{Name: "a", Length: -1})
		if ok && err != nil || !ok && !errors.Is(err, origin.ErrUnavailable) {
			t.Errorf("Content-Encoding %q: %v", encoding, err)
		}
	}
}

// A part that does not say of which version it is, is not used when a version
// is wanted: the whole is asked for, and its prefix thrown away.
func TestPartOfUnknownVersion(t *testing.T) {
	data := random(1, 100_000)
	sum := md5.Sum(data)
	s := newServer(t, data)
	s.edit = func(h http.Header) {
		if h.Get("Content-Range") == "" {
			h.Set("Content-MD5", base64.StdEncoding.EncodeToString(sum[:]))
		}
	}
	o := s.origin(t)
	version := "md5:" + hex.EncodeToString(sum[:])
	obj := expect(t, o, origin.Request{Name: "a", Offset: 90_000, Length: -1, Version: version}, data[90_000:])
	if n := len(s.seen()); obj.Version != version || n != 2 {
		t.Errorf("version %s after %d requests, want %s after 2", obj.Version, n, version)
	}
	s.set(func(s *server) { s.edit = nil })
	if _, _, err := fetch(o, origin.Request{Name: "a", Offset: 90_000, Length: -1, Version: version}); !errors.Is(err, origin.ErrUnavailable) {
		t.Errorf("nothing says the version: %v, want ErrUnavailable", err)
	}
}

// Glance sends the MD5 of the whole with every part.
func TestPartWithMD5OfWhole(t *testing.T) {
	data := random(1, 100_000)
	sum := md5.Sum(data)
	s := newServer(t, data)
	s.headers["Content-MD5"] = hex.EncodeToString(sum[:])
	version := "md5:" + hex.EncodeToString(sum[:])
	expect(t, s.origin(t), origin.Request{Name: "a", Offset: 90_000, Length: -1, Version: version}, data[90_000:])
	if n := len(s.seen()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// The MD5 of a part is not taken for that of the whole.
func TestPartWithMD5OfPart(t *testing.T) {
	data := random(1, 100_000)
	part := md5.Sum(data[90_000:])
	s := newServer(t, data)
	s.headers["ETag"] = `"v1"`
	s.headers["Content-MD5"] = hex.EncodeToString(part[:])
	obj := expect(t, s.origin(t), origin.Request{Name: "a", Offset: 90_000, Length: -1, Version: `"v1"`}, data[90_000:])
	if obj.Version != `"v1"` || len(obj.Digests) > 0 {
		t.Errorf("%+v, want no digests", obj)
	}
}

func TestConditions(t *testing.T) {
	s := newServer(t, random(1, 1000))
	s.headers["ETag"] = `"v1"`
	o := s.origin(t)
	expect(t, o, origin.Request{Name: "a", Offset: 10, Length: 20, Version: `"v1"`}, s.data[10:30])
	h := s.seen()[0].Header
	for field, want := range map[string]string{"Range": "bytes=10-29", "If-Match": `"v1"`, "If-Range": `"v1"`} {
		if got := h.Get(field); got != want {
			t.Errorf("%s: %s, want %s", field, got, want)
		}
	}
}

// A server that ignores If-Match is found out by its answer.
func TestIfMatchIgnored(t *testing.T) {
	for _, noRanges := range []bool{false, true} {
		s := newServer(t, random(1, 1000))
		s.noRanges = noRanges
		s.edit = func(h http.Header) { h.Set("ETag", `"v2"`) }
		s.headers["ETag"] = `"v1"`
		if _, _, err := fetch(s.origin(t), origin.Request{Name: "a", Offset: 10, Length: -1, Version: `"v1"`}); !errors.Is(err, origin.ErrChanged) {
			t.Errorf("no ranges %v: %v, want ErrChanged", noRanges, err)
		}
	}
}

// A stall is a break-off; a reader that takes its time is none.
func TestStall(t *testing.T) {
	s := newServer(t, random(1, 100_000))
	s.cut, s.stall = 1000, true
	o := s.origin(t, func(c *origin.HTTPConfig) { c.IdleTimeout = 50 * time.Millisecond })
	got, _, err := fetch(o, origin.Request{Name: "a", Length: -1})
	if len(got) != 1000 || !errors.Is(err, origin.ErrUnavailable) {
		t.Errorf("%d bytes, %v, want 1000 and ErrUnavailable", len(got), err)
	}
}

func TestNoAnswer(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer s.Close()
	defer close(release)
	o, err := origin.NewHTTP(origin.HTTPConfig{Name: "web", Endpoint: s.URL, IdleTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if _, err := o.Stat(t.Context(), "a"); !errors.Is(err, origin.ErrUnavailable) || !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("Stat = %v, want ErrUnavailable", err)
	}
	if _, _, err := o.Open(t.Context(), origin.Request{Name: "a", Length: -1}); !errors.Is(err, origin.ErrUnavailable) {
		t.Errorf("Open = %v, want ErrUnavailable", err)
	}
}

func TestNobodyListens(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	o, err := origin.NewHTTP(origin.HTTPConfig{Name: "web", Endpoint: s.URL + "/?sig=secret"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Stat(t.Context(), "a")
	if !errors.Is(err, origin.ErrUnavailable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("Stat = %v, want ErrUnavailable without the query", err)
	}
}

func TestRedirects(t *testing.T) {
	data := random(1, 1000)
	target := newServer(t, data) // another port is another host
	target.headers["ETag"] = `"v1"`
	for _, c := range []struct {
		name     string
		location func(self string) string
		allow    bool
		want     error
	}{
		{"same host", func(self string) string { return self + "/images/a" }, false, nil},
		{"relative", func(string) string { return "/images/a" }, false, nil},
		{"other host", func(string) string { return target.URL + "/images/a" }, false, origin.ErrUnavailable},
		{"other host, allowed", func(string) string { return target.URL + "/images/a" }, true, nil},
		{"metadata service", func(string) string { return "http://169.254.169.254/latest" }, false, origin.ErrUnavailable},
		{"loop", func(string) string { return "/moved/a" }, true, origin.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			here := newServer(t, data)
			inner := here.Config.Handler
			here.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/moved/") {
					http.Redirect(w, r, c.location(here.URL), http.StatusFound)
					return
				}
				inner.ServeHTTP(w, r)
			})
			target.set(func(s *server) { s.requests = nil })
			o := here.origin(t, func(cfg *origin.HTTPConfig) {
				cfg.Endpoint = strings.Replace(here.URL, "http://", "http://user:secret@", 1) + "/moved/?sig=secret"
				cfg.AllowRedirects = c.allow
				cfg.Headers = map[string]string{"X-Auth-Token": "secret", "Authorization": "Bearer secret"}
			})
			_, statErr := o.Stat(t.Context(), "a")
			_, _, openErr := fetch(o, origin.Request{Name: "a", Offset: 10, Length: -1})
			if !errors.Is(statErr, c.want) || !errors.Is(openErr, c.want) {
				t.Errorf("Stat = %v, Open = %v, want %v", statErr, openErr, c.want)
			}
			for _, r := range target.seen() {
				for field, values := range r.Header {
					if strings.Contains(strings.Join(values, " "), "secret") {
						t.Errorf("the other host was sent %s: %v", field, values)
					}
				}
				if r.Method == http.MethodGet && r.Header.Get("Range") != "bytes=10-" {
					t.Errorf("the other host was asked for the range %q", r.Header.Get("Range"))
				}
			}
		})
	}
}

// HEAD is tried once where it is not known.
func TestHeadIsNotTriedAgain(t *testing.T) {
	s := newServer(t, random(1, 1000))
	s.noHead = http.StatusMethodNotAllowed
	o := s.origin(t)
	for range 3 {
		if obj, err := o.Stat(t.Context(), "a"); err != nil || obj.Size != 1000 {
			t.Fatalf("Stat = %+v, %v", obj, err)
		}
	}
	var methods []string
	for _, r := range s.seen() {
		methods = append(methods, r.Method)
	}
	if diff := cmp.Diff([]string{"HEAD", "GET", "GET", "GET"}, methods); diff != "" {
		t.Error(diff)
	}
}

// Errors do not cost their connection, however often they come.
func TestConnectionsAreUsedAgain(t *testing.T) {
	s := newServer(t, random(1, 1000))
	addresses := map[string]bool{}
	o := s.origin(t)
	for i := range 10 {
		s.set(func(s *server) { s.status = []int{0, 404, 503}[i%3] })
		fetch(o, origin.Request{Name: "a", Length: -1})
	}
	for _, r := range s.seen() {
		addresses[r.RemoteAddr] = true
	}
	if len(addresses) != 1 {
		t.Errorf("%d connections for 10 requests, want 1", len(addresses))
	}
}
