package main

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// block is the unit in which a client verifies an image, and piece what it
// reads of one at once: few enough bytes to be in the processor's cache still
// when their checksum is computed.
const (
	block = 1 << 20
	piece = 128 << 10
)

// hangs is for how long a connection may last, so that a server that hangs
// ends the run.
const hangs = 3 * time.Minute

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// conn is one keep-alive connection. It can leave the bytes of a body in the
// kernel, as copying them takes much of the machine that the servers are
// measured on, or read and verify each block.
type conn struct {
	*net.TCPConn
	raw  syscall.RawConn
	addr string
	buf  []byte
}

func dial(addr string) (*conn, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	if err := tcp.SetDeadline(time.Now().Add(hangs)); err != nil {
		return nil, err
	}
	raw, err := tcp.SyscallConn()
	return &conn{TCPConn: tcp, raw: raw, addr: addr, buf: make([]byte, block)}, err
}

// ask sends a request and returns the length of the body, and how much of it
// stands in buf already: at least one byte, when body holds any.
func (c *conn) ask(path string) (length int64, body []byte, err error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, c.addr); err != nil {
		return 0, nil, err
	}
	// The head is small, and less of the body is copied with it.
	have, end := 0, 0
	for have == end || end == 0 {
		n, err := c.Read(c.buf[have : have+4096])
		if err != nil {
			return 0, nil, fmt.Errorf("%s: %w", path, err)
		}
		have += n
		if at := bytes.Index(c.buf[:have], []byte("\r\n\r\n")); at >= 0 {
			end = at + 4
		} else if have > 16<<10 {
			return 0, nil, fmt.Errorf("%s: no end of the header", path)
		}
	}
	head := c.buf[:end]
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return 0, nil, fmt.Errorf("%s: %.200s", path, head)
	}
	_, after, _ := bytes.Cut(bytes.ToLower(head), []byte("content-length:"))
	value, _, _ := bytes.Cut(after, []byte("\r\n"))
	if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
		return 0, nil, fmt.Errorf("%s: no length: %.200s", path, head)
	}
	return length, c.buf[end:have], nil
}

// discard downloads an image of size bytes, adding what arrives to count.
func (c *conn) discard(path string, size int64, count *atomic.Int64) (first time.Time, err error) {
	length, body, err := c.ask(path)
	first = time.Now()
	if err != nil {
		return first, err
	}
	if length != size {
		return first, fmt.Errorf("%s: %d bytes, want %d", path, length, size)
	}
	count.Add(int64(len(body)))
	for rest := length - int64(len(body)); rest > 0; {
		n, err := c.drop(int(min(rest, block)))
		if err != nil {
			return first, fmt.Errorf("%s: %d bytes missing: %w", path, rest, err)
		}
		rest -= int64(n)
		count.Add(int64(n))
	}
	return first, nil
}

// drop takes up to n bytes of the connection without copying them.
func (c *conn) drop(n int) (got int, err error) {
	var errno syscall.Errno
	err = c.raw.Read(func(fd uintptr) bool {
		var r uintptr
		r, _, errno = syscall.Syscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&c.buf[0])), uintptr(n), syscall.MSG_TRUNC, 0, 0)
		got = int(r)
		return errno != syscall.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, errno
	case got == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return got, nil
}

// download is verify, or discard.
func (c *conn) download(path string, want *image, verified bool, count *atomic.Int64) error {
	if verified {
		return c.verify(path, want, count)
	}
	_, err := c.discard(path, want.size, count)
	return err
}

// verify downloads an image and checks each block of it, adding what arrives
// to count.
func (c *conn) verify(path string, want *image, count *atomic.Int64) error {
	length, body, err := c.ask(path)
	if err != nil {
		return err
	}
	if length != want.size {
		return fmt.Errorf("%s: %d bytes, want %d", path, length, want.size)
	}
	r := io.MultiReader(bytes.NewReader(bytes.Clone(body)), c)
	for i, sum := range want.sums {
		got, err := c.checksum(r, min(block, want.size-int64(i)*block), count)
		if err != nil {
			return fmt.Errorf("%s: block %d: %w", path, i, err)
		}
		if got != sum {
			return fmt.Errorf("%s: block %d has other bytes", path, i)
		}
	}
	return nil
}

// checksum reads n bytes.
func (c *conn) checksum(r io.Reader, n int64, count *atomic.Int64) (sum uint32, err error) {
	for n > 0 {
		m, err := r.Read(c.buf[:min(n, piece)])
		if err != nil {
			return 0, err
		}
		sum = crc32.Update(sum, castagnoli, c.buf[:m])
		n -= int64(m)
		count.Add(int64(m))
	}
	return sum, nil
}
