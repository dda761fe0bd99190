package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// errStalled is the cause with which a body is broken off if nothing comes.
var errStalled = errors.New("no byte came for too long")

// httpBody is the body of a response. It breaks off if the server sends nothing for
// the idle time, which counts only while a read waits. It returns io.EOF only after
// as many bytes as were asked for. After an error it returns the same error again.
type httpBody struct {
	ctx    context.Context // of the caller
	rc     io.ReadCloser
	cancel context.CancelCauseFunc // ends the request
	idle   time.Duration           // 0: no limit
	left   int64                   // number of bytes still to come; negative: all until the end
	err    error

	mustEnd bool // no more bytes may follow: left comes from another answer
}

// limit says how many bytes a request asked for of an image of size bytes.
func (b *httpBody) limit(r Request, size int64) {
	switch {
	case r.Length >= 0:
		b.left = r.Length
	case size >= 0:
		b.left = size - r.Offset
	default:
		b.left = -1
	}
	if b.left == 0 {
		b.err = io.EOF
	}
}

// skip throws away the first n bytes.
func (b *httpBody) skip(n int64) error {
	b.left = n
	if n == 0 {
		return nil
	}
	_, err := io.Copy(io.Discard, b)
	b.err = nil
	return err
}

// drain reads a body that is not needed, if it is short, so that its connection can
// be used again.
func (b *httpBody) drain() {
	b.left = errorBody
	io.Copy(io.Discard, b) //nolint:errcheck // the connection is merely not used again
}

func (b *httpBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.left >= 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.read(p)
	if b.left >= 0 {
		b.left -= int64(n)
	}
	switch {
	case b.left == 0:
		b.err = b.end()
	case errors.Is(err, io.EOF) && b.left < 0:
		b.err = io.EOF
	case errors.Is(err, io.EOF):
		b.err = fmt.Errorf("%w: %w", ErrUnavailable, io.ErrUnexpectedEOF)
	case err != nil && context.Cause(b.ctx) != nil:
		b.err = context.Cause(b.ctx)
	case err != nil:
		b.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return n, b.err
}

// end returns the error of a body after its last byte.
func (b *httpBody) end() error {
	if b.mustEnd {
		if n, _ := b.read(make([]byte, 1)); n > 0 {
			return fmt.Errorf("%w: more bytes came than the image has by another answer of the origin", ErrUnavailable)
		}
	}
	return io.EOF
}

// read reads once, within the idle time.
func (b *httpBody) read(p []byte) (int, error) {
	if b.idle <= 0 {
		return b.rc.Read(p)
	}
	timer := time.AfterFunc(b.idle, func() { b.cancel(errStalled) })
	n, err := b.rc.Read(p)
	if !timer.Stop() && err != nil && context.Cause(b.ctx) == nil {
		err = errStalled
	}
	return n, err
}

// Close ends the transfer. If the body was not read to its end, its connection is
// closed too.
func (b *httpBody) Close() error {
	err := b.rc.Close()
	b.cancel(nil)
	return err
}

// contentRange is the field Content-Range: the bytes from first to last, inclusive,
// of total.
type contentRange struct {
	first, last, total int64
}

// parseContentRange reads "bytes 0-9/100" and "bytes */100"; for the latter first and
// last are -1. A total of "*" is unknown, and becomes -1.
func parseContentRange(v string) (contentRange, error) {
	bad := func() (contentRange, error) {
		return contentRange{}, fmt.Errorf("bad Content-Range %q; expected one such as \"bytes 0-9/100\"", v)
	}
	spec, ok := strings.CutPrefix(v, "bytes ")
	if !ok {
		return bad()
	}
	part, total, ok := strings.Cut(strings.TrimSpace(spec), "/")
	if !ok {
		return bad()
	}
	r := contentRange{first: -1, last: -1, total: -1}
	var err error
	if r.total, err = parseLength(total); total == "*" && part != "*" {
		r.total, err = -1, nil
	}
	if err != nil {
		return bad()
	}
	if part == "*" {
		return r, nil
	}
	first, last, _ := strings.Cut(part, "-")
	if r.first, err = parseLength(first); err != nil {
		return bad()
	}
	if r.last, err = parseLength(last); err != nil || r.last < r.first || r.total >= 0 && r.last >= r.total {
		return bad()
	}
	return r, nil
}

// parseLength reads a number of bytes, which may contain only digits.
func parseLength(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// check compares the range with that of a request. The total is required, since
// without it parts of two versions could look alike.
func (c contentRange) check(r Request, contentLength int64) error {
	if c.total < 0 {
		return errors.New("the answer is a part without the length of the whole image")
	}
	last := c.total - 1
	if r.Length >= 0 {
		last = r.Offset + r.Length - 1
	}
	if c.first != r.Offset || c.last != last {
		return fmt.Errorf("the answer has the bytes %d to %d; expected %d to %d", c.first, c.last, r.Offset, last)
	}
	if n := c.last - c.first + 1; contentLength >= 0 && contentLength != n {
		return fmt.Errorf("the answer has %d bytes; expected the %d of its range", contentLength, n)
	}
	return nil
}
