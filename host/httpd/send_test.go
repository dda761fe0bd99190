package httpd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// watched counts what connections are asked to send of files. It tells when a
// connection is closed: by then all of it is counted.
type watched struct {
	net.Listener
	bytes  atomic.Int64
	closed chan struct{}
}

func (l *watched) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{TCPConn: c.(*net.TCPConn), l: l}, nil
}

type watchedConn struct {
	*net.TCPConn
	l    *watched
	once sync.Once // net/http may close it twice
}

func (c *watchedConn) Close() error {
	c.once.Do(func() { c.l.closed <- struct{}{} })
	return c.TCPConn.Close()
}

func (c *watchedConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	if from, ok := r.(*io.LimitedReader); ok {
		if _, ok := from.R.(syscall.Conn); ok { // what package net can sendfile
			c.l.bytes.Add(n)
		}
	}
	return n, err
}

// sentFile makes an image that is sent from a file.
func sentFile(t *testing.T, size int) (*fakeContent, []byte) {
	t.Helper()
	data := []byte(content(size))
	name := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	c := newContent(string(data))
	c.file = f
	return c, data
}

// TestFilesAreSentByTheKernel: what the engine does not want to read passes
// through all that lies between it and the connection.
func TestFilesAreSentByTheKernel(t *testing.T) {
	const size = 9<<20 + 17 // more than two chunks
	e := newEngine()
	var data []byte
	e.images["img"], data = sentFile(t, size)
	inner, err := ListenTCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &watched{Listener: inner, closed: make(chan struct{}, 1)}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s := newService(e)
	go func() { ended <- Serve(ctx, ln, s.Handler(everything), Limits{}) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for _, part := range []struct {
		header   string
		from, to int
	}{{"", 0, size}, {"bytes=5000000-", 5000000, size}, {"bytes=7-5000006", 7, 5000007}} {
		ln.bytes.Store(0)
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+inner.Addr().String()+"/images/img", nil)
		if err != nil {
			t.Fatal(err)
		}
		if part.header != "" {
			req.Header.Set("Range", part.header)
		}
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, data[part.from:part.to]) {
			t.Errorf("%q: %d bytes, %v", part.header, len(got), err)
		}
		<-ln.closed // the client may have the last byte before that is counted
		// net/http looks at the first 512 bytes of a body itself.
		if n := int(ln.bytes.Load()); n < part.to-part.from-512 {
			t.Errorf("%q: %d of %d bytes were sent by the kernel", part.header, n, part.to-part.from)
		}
	}
}

// TestUnixSocketTakesFiles though its connections cannot send them.
func TestUnixSocketTakesFiles(t *testing.T) {
	e := newEngine()
	var data []byte
	e.images["img"], data = sentFile(t, 300_000)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := ListenUnix(t.Context(), path, 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, newService(e).Handler(everything), Limits{}) }()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET /images/img HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	c.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// scriptedSender is a scriptedConn that is given files. It reads more than the
// peer takes, as package net does where the kernel cannot send.
type scriptedSender struct {
	scriptedConn
	got bytes.Buffer
}

func (c *scriptedSender) ReadFrom(r io.Reader) (int64, error) {
	p, err := io.ReadAll(r)
	if err != nil {
		return 0, err
	}
	n, err := c.scriptedConn.Write(p)
	c.got.Write(p[:n])
	return int64(n), err
}

func TestSendStall(t *testing.T) {
	for name, test := range map[string]struct {
		steps   []int // bytes that the peer takes of each attempt, of 10
		queues  []int
		sent    int64
		stalled bool
	}{
		"at once":           {[]int{10}, nil, 10, false},
		"in pieces":         {[]int{1, 8, 1}, []int{9, 9}, 10, false},
		"the buffer drains": {[]int{4, 0, 0, 6}, []int{900, 800, 500}, 10, false},
		"standing still":    {[]int{4, 0}, []int{900, 900}, 4, true},
		"unknown queue":     {[]int{0}, []int{-1}, 0, true},
	} {
		inner := &scriptedSender{scriptedConn: scriptedConn{steps: test.steps}}
		c := &conn{Conn: inner, stall: time.Second, queued: func() int {
			q := test.queues[0]
			test.queues = test.queues[1:]
			return q
		}}
		file := bytes.NewReader([]byte("0123456789 and what is not asked for"))
		n, err := c.ReadFrom(&io.LimitedReader{R: file, N: 10})
		if n != test.sent || inner.got.String() != "0123456789"[:n] || errors.Is(err, os.ErrDeadlineExceeded) != test.stalled {
			t.Errorf("%s: %d, %q, %v; want %d, stalled: %v", name, n, inner.got.String(), err, test.sent, test.stalled)
		}
		if inner.deadlines != len(test.steps) || len(inner.steps) > 0 {
			t.Errorf("%s: %d deadlines, %d steps left", name, inner.deadlines, len(inner.steps))
		}
	}
	inner := &scriptedSender{scriptedConn: scriptedConn{steps: []int{3, 0}}}
	c := &conn{Conn: inner, stall: time.Second}
	if n, err := c.ReadFrom(&io.LimitedReader{R: bytes.NewReader([]byte("end")), N: 10}); n != 3 || err != nil {
		t.Errorf("a file that ends early: %d, %v", n, err)
	}
}
