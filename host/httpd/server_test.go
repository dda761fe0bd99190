package httpd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHostileRequests sends raw bytes. No answer may be a success, and the
// connection must end.
func TestHostileRequests(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent("abc")
	address := start(t, newService(e).Handler(everything), Limits{HeaderTimeout: 300 * time.Millisecond})
	for name, test := range map[string]struct {
		request string
		status  string // of the answer; "": none
	}{
		"body on GET":         {"GET /images/img HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "400"},
		"chunks on GET":       {"GET /images/img HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		"both lengths on GET": {"GET /images/img HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		"body on HEAD":        {"HEAD /images/img HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "400"},
		"body on DELETE":      {"DELETE /v1/images/img HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "400"},
		"two lengths":         {"POST /v1/prune HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "400"},
		"negative length":     {"POST /v1/prune HTTP/1.1\r\nHost: h\r\nContent-Length: -2\r\n\r\n{}", "400"},
		"strange coding":      {"POST /v1/prune HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501"},
		"bad chunk":           {"PUT /v1/writes/w/data HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "404"},
		"bad chunk of JSON":   {"POST /v1/prune HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
		"40 KiB of header":    {"GET /images/img HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", "431"},
		"no host":             {"GET /images/img HTTP/1.1\r\n\r\n", "400"},
		"HTTP/2 preface":      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"},
		"star":                {"GET * HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
		"tunnel":              {"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
		"slow header":         {"GET /images/img HTTP/1.1\r\nHo", ""},
		"nothing":             {"", ""},
	} {
		answer, err := talk(t, address, test.request)
		if err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.HasPrefix(answer, "HTTP/1.1 "+test.status) && (answer != "" || test.status != "") {
			t.Errorf("%s: %.100q, want %s", name, answer, test.status)
		}
	}
}

// TestSmuggledRequest hides a second request behind a body of two lengths.
// Whichever of them a proxy believed, it must not be answered.
func TestSmuggledRequest(t *testing.T) {
	e := newEngine()
	address := start(t, newService(e).Handler(everything), Limits{})
	answer, err := talk(t, address, "POST /v1/prune HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"0\r\n\r\nDELETE /v1/images/img HTTP/1.1\r\nHost: h\r\n\r\n")
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
	if n := strings.Count(answer, "HTTP/1.1 "); n > 1 || len(e.calls) > 0 {
		t.Errorf("%d answers, calls %v: %q", n, e.calls, answer)
	}
}

func TestNoCompressionAndNoUpgrade(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent(content(100_000))
	address := start(t, newService(e).Handler(everything), Limits{})
	answer, err := talk(t, address, "GET /images/img HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n"+
		"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	header, body, _ := strings.Cut(answer, "\r\n\r\n")
	if !strings.HasPrefix(header, "HTTP/1.1 200 ") || strings.Contains(header, "Content-Encoding") || body != content(100_000) {
		t.Errorf("%s with %d bytes", header, len(body))
	}
}

// askHealth sends a request over c and waits for the whole answer.
func askHealth(c net.Conn) error {
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func TestConnectionLimit(t *testing.T) {
	const limit = 3
	e := newEngine()
	address := start(t, newService(e).Handler(everything), Limits{MaxConnections: limit})
	var open []net.Conn
	for range limit {
		c := dial(t, address)
		if err := askHealth(c); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	late := dial(t, address) // the kernel connects it, nobody accepts it
	answered := make(chan error, 1)
	go func() { answered <- askHealth(late) }()
	select {
	case err := <-answered:
		t.Fatalf("a connection too many was answered: %v", err)
	case <-time.After(50 * time.Millisecond): // more time only makes the test stricter
	}
	_ = open[0].Close()
	if err := <-answered; err != nil {
		t.Errorf("after another one has gone: %v", err)
	}
}

// gatedService serves one image of n bytes, of which all but the first block
// wait for the gate.
func gatedService(n int) (s *Service, gate, begun chan struct{}) {
	e := newEngine()
	c := newContent(content(n))
	c.block = n / 4
	gate, begun = make(chan struct{}), make(chan struct{}, 1)
	c.step = func(ctx context.Context, off int64) error {
		if off == 0 {
			return nil
		}
		select {
		case begun <- struct{}{}:
		default:
		}
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.images["img"] = c
	return newService(e), gate, begun
}

// serveUntil starts Serve on a port of its own.
func serveUntil(t *testing.T, ctx context.Context, h http.Handler, o Limits) (address string, ended chan error) {
	t.Helper()
	ln, err := ListenTCP(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, h, o) }()
	return ln.Addr().String(), ended
}

func TestDrainWaitsForDownloads(t *testing.T) {
	s, gate, begun := gatedService(400_000)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	address, ended := serveUntil(t, ctx, s.Handler(everything), Limits{DrainTimeout: 20 * time.Second})
	idle := dial(t, address)
	if err := askHealth(idle); err != nil {
		t.Fatal(err)
	}
	downloaded := make(chan error, 1)
	go func() {
		answer, err := talkAll(address, "GET /images/img HTTP/1.1\r\nHost: h\r\n\r\n")
		if _, body, _ := strings.Cut(answer, "\r\n\r\n"); err == nil && body != content(400_000) {
			err = fmt.Errorf("%d bytes", len(body))
		}
		downloaded <- err
	}()
	<-begun
	stop()
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("idle connection: %v", err)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		_ = c.Close()
		t.Error("a new connection is accepted")
	}
	select {
	case err := <-ended:
		t.Fatalf("Serve returned during a download: %v", err)
	default:
	}
	close(gate)
	if err := <-downloaded; err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// talkAll is talk for goroutines beside the test's.
func talkAll(address, request string) (string, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}

func TestDrainTimeoutCutsDownloads(t *testing.T) {
	s, _, begun := gatedService(400_000)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	address, ended := serveUntil(t, ctx, s.Handler(everything), Limits{DrainTimeout: 50 * time.Millisecond})
	answers := make(chan string, 1)
	go func() {
		answer, _ := talkAll(address, "GET /images/img HTTP/1.1\r\nHost: h\r\n\r\n")
		answers <- answer
	}()
	<-begun
	stop()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "requests were cut") {
		t.Errorf("Serve: %v", err)
	}
	if _, body, _ := strings.Cut(<-answers, "\r\n\r\n"); len(body) >= 400_000 {
		t.Errorf("%d bytes", len(body))
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	ln, err := ListenTCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := Serve(t.Context(), ln, http.NotFoundHandler(), Limits{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}

// TestStalledReaderIsDropped: a client that reads nothing holds a handler no
// longer than the stall time.
func TestStalledReaderIsDropped(t *testing.T) {
	e := newEngine()
	c := newContent(content(64 << 20)) // more than all buffers between the two
	e.images["img"] = c
	failed := make(chan error, 1)
	h := newService(e).Handler(everything)
	watched := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			failed <- fmt.Errorf("%v", cause)
			panic(cause)
		}()
		h.ServeHTTP(w, r)
	})
	address := start(t, watched, Limits{WriteStall: 100 * time.Millisecond})
	conn := dial(t, address)
	if _, err := io.WriteString(conn, "GET /images/img HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err.Error() != http.ErrAbortHandler.Error() {
		t.Errorf("the handler ended with %v", err)
	}
	n, _ := io.Copy(io.Discard, conn)
	if n >= 64<<20 {
		t.Error("the whole image arrived")
	}
}

// TestStalledBodyIsRefused: a client that announces bytes and sends none.
func TestStalledBodyIsRefused(t *testing.T) {
	e := newEngine()
	e.writes["w"] = &fakeWrite{}
	s := newService(e)
	s.bodyStall = 50 * time.Millisecond
	address := start(t, s.Handler(everything), Limits{})
	for request, status := range map[string]string{
		"PUT /v1/writes/w/data": "408",
		"POST /v1/prune":        "408",
		"PUT /v1/queue/a":       "200", // it looks at no body
		"GET /images/img":       "400",
		"POST /nowhere":         "404",
	} {
		answer, err := talk(t, address, request+" HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n{")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(answer, "HTTP/1.1 "+status+" ") || status == "408" && !strings.Contains(answer, "the body stalled") {
			t.Errorf("%s: %q", request, answer)
		}
	}
	if got := e.writes["w"].data; !bytes.Equal(got, []byte("{")) {
		t.Errorf("the write holds %q", got)
	}
}

// TestBodyDeadlineEndsWithTheBody: once the body is read, the engine may take
// its time.
func TestBodyDeadlineEndsWithTheBody(t *testing.T) {
	e := newEngine()
	s := newService(e)
	s.bodyStall = 20 * time.Millisecond
	h := s.Handler(everything)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = withDeadline(w, r, s.bodyStall)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		select {
		case <-r.Context().Done():
			t.Error("the request ended by itself")
		case <-time.After(5 * s.bodyStall): // more time only makes the test stricter
		}
		h.ServeHTTP(w, r)
	})
	address := start(t, slow, Limits{})
	answer, err := talk(t, address, "POST /v1/clean HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
	if err != nil || !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("%q, %v", answer, err)
	}
}
