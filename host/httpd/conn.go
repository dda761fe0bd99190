package httpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listener hands out at most as many connections at once as it has slots.
type listener struct {
	net.Listener
	slots  chan struct{}
	stall  time.Duration
	least  int64
	closed chan struct{}
	once   sync.Once
}

func newListener(ln net.Listener, o Limits) *listener {
	return &listener{
		Listener: ln,
		slots:    make(chan struct{}, o.MaxConnections),
		stall:    o.WriteStall,
		least:    o.MinRate,
		closed:   make(chan struct{}),
	}
}

// Accept waits for a slot, then for a connection, which keeps the slot until
// it is closed.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &conn{
		Conn:    c,
		stall:   l.stall,
		least:   l.least,
		queued:  func() int { return sendQueue(c) },
		release: sync.OnceFunc(func() { <-l.slots }),
	}, nil
}

// Close ends a waiting Accept too.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// conn is a connection whose peer must keep taking what is written. The limit
// is on standing still and not on a whole response, since images take hours
// over thin links; and it is here and not in the handlers, since only the
// connection can tell how much of a large write has gone.
type conn struct {
	net.Conn
	stall   time.Duration
	least   int64      // bytes a second that the peer must take; 0: any
	queued  func() int // bytes that the peer has not taken yet; -1: unknown
	release func()

	// What was sent since the peer's rate was last judged, and how long that
	// took. Time in which there was nothing to send is not the peer's.
	sent    int64
	sending time.Duration
}

// Write fails with os.ErrDeadlineExceeded when the peer takes no byte for the
// stall time, or fewer in it than its rate demands; it may need twice that to
// be sure.
func (c *conn) Write(p []byte) (int, error) {
	written, queued := 0, -1
	for {
		if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
			return written, err
		}
		begun := time.Now()
		n, err := c.Conn.Write(p[written:])
		written += n
		if slow := c.judge(int64(n), time.Since(begun)); slow != nil {
			return written, slow
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return written, err
		}
		var stuck bool
		if stuck, queued = c.stuck(queued); n == 0 && stuck {
			return written, err
		}
	}
}

// sendChunk is what ReadFrom lets the kernel send before it sets the deadline
// anew. At 4 MiB that costs nothing, and a client that takes a byte now and
// then has the stall time for each.
const sendChunk = 4 << 20

// ReadFrom lets the kernel send a file, under the same rule as Write. It is
// how net/http hands over what a handler copies.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	to, ok := c.Conn.(io.ReaderFrom)
	from, limited := r.(*io.LimitedReader)
	if !ok || !limited {
		return io.Copy(onlyWriter{c}, r)
	}
	file, ok := from.R.(io.ReadSeeker)
	if !ok {
		return io.Copy(onlyWriter{c}, r)
	}
	start, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	var sent int64
	queued := -1
	for from.N > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
			return sent, err
		}
		begun := time.Now()
		n, err := to.ReadFrom(&io.LimitedReader{R: file, N: min(from.N, sendChunk)})
		sent += n
		from.N -= n
		if slow := c.judge(n, time.Since(begun)); slow != nil {
			return sent, slow
		}
		late := errors.Is(err, os.ErrDeadlineExceeded)
		switch {
		case err != nil && !late:
			return sent, err
		case n == 0 && !late:
			return sent, nil // the end of the file
		case late:
			var stuck bool
			if stuck, queued = c.stuck(queued); n == 0 && stuck {
				return sent, err
			}
			// Where the kernel cannot send it, more may have been read than sent.
			if _, err := file.Seek(start+sent, io.SeekStart); err != nil {
				return sent, err
			}
		}
	}
	return sent, nil
}

// judge counts what was sent and returns an error when the peer was slower
// than it may be for as long as the stall time.
func (c *conn) judge(n int64, took time.Duration) error {
	c.sent += n
	c.sending += took
	if c.least <= 0 || c.sending < c.stall {
		return nil
	}
	rate := float64(c.sent) / c.sending.Seconds()
	c.sent, c.sending = 0, 0
	if rate < float64(c.least) {
		return fmt.Errorf("the client takes %.0f bytes a second, min_rate is %d: %w", rate, c.least, os.ErrDeadlineExceeded)
	}
	return nil
}

// onlyWriter hides ReadFrom.
type onlyWriter struct{ io.Writer }

// stuck looks at what the peer has not taken yet, and whether that has become
// less than before; -1: unknown. The kernel wakes a writer only when a good
// part of its buffer is free, which takes a slow reader long.
func (c *conn) stuck(before int) (stuck bool, queued int) {
	queued = c.queued()
	return queued < 0 || before >= 0 && queued >= before, queued
}

// sendQueue is how many bytes the kernel holds for the peer of c; -1: unknown.
func sendQueue(c net.Conn) int {
	n := -1
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				if q, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
					n = q
				}
			})
		}
	}
	return n
}

// Close gives the slot back.
func (c *conn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// connKey is where a request's context has its connection.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// tcp returns the TCP connection of r, or nil.
func tcp(r *http.Request) *net.TCPConn {
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok {
		return nil
	}
	t, _ := c.Conn.(*net.TCPConn)
	return t
}

// canReset reports whether reset can do anything.
func canReset(r *http.Request) bool { return tcp(r) != nil }

// reset makes the connection of r end with a reset instead of an orderly end.
func reset(r *http.Request) {
	if t := tcp(r); t != nil {
		_ = t.SetLinger(0)
	}
}
