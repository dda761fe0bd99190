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

// block is the unit in which a client verifies an image.
const block = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// conn is one keep-alive connection. One that is timed leaves the bytes
// of a body in the kernel, as copying them takes more of the machine than
// sending them; what arrives is verified by downloads between the samples.
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

// verify downloads an image and checks each block of it.
func (c *conn) verify(path string, want *image) error {
	length, body, err := c.ask(path)
	if err != nil {
		return err
	}
	if length != want.size {
		return fmt.Errorf("%s: %d bytes, want %d", path, length, want.size)
	}
	r := io.MultiReader(bytes.NewReader(bytes.Clone(body)), c)
	for i, sum := range want.sums {
		b := c.buf[:min(block, want.size-int64(i)*block)]
		if _, err := io.ReadFull(r, b); err != nil {
			return fmt.Errorf("%s: block %d: %w", path, i, err)
		}
		if crc32.Checksum(b, castagnoli) != sum {
			return fmt.Errorf("%s: block %d has other bytes", path, i)
		}
	}
	return nil
}
