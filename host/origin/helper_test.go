package origin_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imgcache/imgcache-host/host/origin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// random returns n bytes, always the same for a seed.
func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// server is an origin server whose knobs a test turns.
type server struct {
	*httptest.Server

	mu       sync.Mutex
	data     []byte
	headers  map[string]string // of every answer about the image, besides Content-Length
	noRanges bool
	noHead   int // the status of HEAD; 0: it works
	status   int // of every answer; 0: 200 or 206
	cut      int // the connection ends after so many bytes of a body; 0: never
	stall    bool
	chunked  bool
	edit     func(http.Header) // last hand on the headers of the answer

	requests []*http.Request
	released chan struct{} // stalled answers end when it closes
}

func newServer(t *testing.T, data []byte) *server {
	s := &server{data: data, headers: map[string]string{}, released: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() { close(s.released); s.Close() })
	return s
}

// set turns knobs while requests may be under way.
func (s *server) set(f func(*server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// seen returns the requests that came.
func (s *server) seen() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*http.Request(nil), s.requests...)
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	if r.URL.Path != "/images/a" {
		http.Error(w, "no such image", http.StatusNotFound)
		return
	}
	if s.status != 0 {
		http.Error(w, "an error page that nobody wants", s.status)
		return
	}
	if r.Method == http.MethodHead && s.noHead != 0 {
		w.WriteHeader(s.noHead)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream") // or it is guessed, and for GET alone
	for field, v := range s.headers {
		w.Header().Set(field, v)
	}
	if match := r.Header.Get("If-Match"); match != "" && match != s.headers["ETag"] {
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	s.body(w, r)
}

func (s *server) body(w http.ResponseWriter, r *http.Request) {
	h, data, code := w.Header(), s.data, http.StatusOK
	if spec, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok && !s.noRanges {
		first, last := 0, len(data)-1
		fmt.Sscanf(spec, "%d-%d", &first, &last)
		last = min(last, len(data)-1)
		if first > last {
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", len(data)))
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
		data, code = data[first:last+1], http.StatusPartialContent
	}
	h.Set("Content-Length", fmt.Sprint(len(data)))
	if s.chunked {
		h.Del("Content-Length")
	}
	if s.edit != nil {
		s.edit(h)
	}
	w.WriteHeader(code)
	if r.Method == http.MethodHead {
		return
	}
	if s.stall || s.cut > 0 && s.cut < len(data) {
		w.Write(data[:min(s.cut, len(data))])
		w.(http.Flusher).Flush()
		if s.stall {
			s.mu.Unlock()
			<-s.released
			s.mu.Lock()
		}
		panic(http.ErrAbortHandler)
	}
	w.Write(data)
	if s.chunked {
		w.(http.Flusher).Flush()
	}
}

// origin returns an origin of the server.
func (s *server) origin(t *testing.T, edit ...func(*origin.HTTPConfig)) *origin.HTTP {
	t.Helper()
	cfg := origin.HTTPConfig{Name: "web", Endpoint: s.URL + "/images/", ConnectTimeout: time.Minute, IdleTimeout: time.Minute}
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

// fetch opens and reads to the end.
func fetch(o origin.Origin, r origin.Request) ([]byte, origin.Object, error) {
	obj, body, err := o.Open(context.Background(), r)
	if err != nil {
		return nil, obj, err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return b, obj, err
}

// expect fails the test unless a request gets exactly these bytes.
func expect(t *testing.T, o origin.Origin, r origin.Request, want []byte) origin.Object {
	t.Helper()
	got, obj, err := fetch(o, r)
	if err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%+v: got %d bytes, which are not the %d wanted", r, len(got), len(want))
	}
	return obj
}
