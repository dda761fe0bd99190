package httpd

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// scriptedConn answers each Write with the next step.
type scriptedConn struct {
	net.Conn
	steps     []int // bytes that the peer takes before the deadline
	deadlines int
}

func (c *scriptedConn) SetWriteDeadline(time.Time) error { c.deadlines++; return nil }

func (c *scriptedConn) Write(p []byte) (int, error) {
	n := min(c.steps[0], len(p))
	c.steps = c.steps[1:]
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

func TestWriteStall(t *testing.T) {
	for name, test := range map[string]struct {
		steps   []int // bytes that each write gets rid of, of 10
		queues  []int // what lies in the kernel after each write that does not end
		written int
		stalled bool
	}{
		"at once":                       {[]int{10}, nil, 10, false},
		"in pieces":                     {[]int{1, 8, 1}, []int{9, 9}, 10, false},
		"the buffer drains":             {[]int{4, 0, 0, 0, 6}, []int{900, 800, 500, 499}, 10, false},
		"first wait is the yardstick":   {[]int{0, 10}, []int{900}, 10, false},
		"standing still":                {[]int{4, 0}, []int{900, 900}, 4, true},
		"standing still from the start": {[]int{0, 0}, []int{900, 900}, 0, true},
		"stops after a while":           {[]int{0, 0, 0}, []int{900, 800, 800}, 0, true},
		"unknown queue":                 {[]int{0}, []int{-1}, 0, true},
		"unknown queue, progress":       {[]int{5, 5}, []int{-1}, 10, false},
	} {
		inner := &scriptedConn{steps: test.steps}
		c := &conn{Conn: inner, stall: time.Second, queued: func() int {
			q := test.queues[0]
			test.queues = test.queues[1:]
			return q
		}}
		n, err := c.Write(make([]byte, 10))
		if n != test.written || errors.Is(err, os.ErrDeadlineExceeded) != test.stalled {
			t.Errorf("%s: %d, %v; want %d, stalled: %v", name, n, err, test.written, test.stalled)
		}
		if inner.deadlines != len(test.steps) || len(inner.steps) > 0 {
			t.Errorf("%s: %d deadlines, %d steps left", name, inner.deadlines, len(inner.steps))
		}
	}
}

// pacedConn takes bytes at a rate.
type pacedConn struct {
	net.Conn
	rate int
}

func (c *pacedConn) SetWriteDeadline(time.Time) error { return nil }

func (c *pacedConn) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(c.rate))
	return len(p), nil
}

// TestMinRate: a client that always takes a little is dropped all the same,
// unless it is fast enough, or we have nothing to send.
func TestMinRate(t *testing.T) {
	for _, test := range []struct {
		rate  int
		pause time.Duration // between two writes
		slow  bool
	}{
		{rate: 99, slow: true},
		{rate: 101},
		{rate: 101, pause: time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := &conn{Conn: &pacedConn{rate: test.rate}, stall: time.Minute, least: 100}
			var err error
			for range 10_000 {
				if _, err = c.Write(make([]byte, 10)); err != nil {
					break
				}
				time.Sleep(test.pause)
			}
			if slow := errors.Is(err, os.ErrDeadlineExceeded); slow != test.slow {
				t.Errorf("%+v: %v", test, err)
			}
		})
	}
}

// TestSendQueue sees a real peer take bytes.
func TestSendQueue(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = t.TempDir() + "/s"
		}
		ln, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		out, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		in, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if n := sendQueue(out); n != 0 {
			t.Errorf("%s: %d bytes before the first", network, n)
		}
		full, buf := 0, make([]byte, 64<<10)
		for full == 0 { // on a busy machine the deadline may pass before the first byte
			_ = out.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := out.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%s: the buffers are endless: %v", network, err)
			}
			full = sendQueue(out)
		}
		if full < 0 {
			t.Errorf("%s: %d bytes when full", network, full)
		}
		for sendQueue(out) >= full { // ends with the last byte at the latest
			_ = in.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := in.Read(buf); err != nil {
				t.Fatalf("%s: all was read and the queue still holds %d bytes: %v", network, full, err)
			}
		}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if n := sendQueue(a); n != -1 {
		t.Errorf("a pipe holds %d bytes", n)
	}
}
