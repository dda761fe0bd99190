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

// errStalled is the cause with which a body that sends nothing is cut.
var errStalled = errors.New("no byte came for too long")

// httpBody is the body of a response. It breaks off when the server sends
// nothing for the idle time; while nobody reads, no time passes. It ends
// cleanly only after as many bytes as were asked for. Its errors stay.
type httpBody struct {
	ctx    context.Context // of the caller
	rc     io.ReadCloser
	cancel context.CancelCauseFunc // ends the request
	idle   time.Duration           // 0: no limit
	left   int64                   // bytes still to come; negative: until the end
	err    error

	mustEnd bool // behind left there must be nothing: its number is another answer's
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

// drain reads a body that nobody wants, if it is short, so that its
// connection can be used again.
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

// end is how a body ends of which all bytes have come.
func (b *httpBody) end() error {
	if b.mustEnd {
		if n, _ := b.read(make([]byte, 1)); n > 0 {
			return fmt.Errorf("%w: more bytes than the origin says that the image has", ErrUnavailable)
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

// Close ends the transfer. A connection whose body was not read to its end is
// closed with it.
func (b *httpBody) Close() error {
	err := b.rc.Close()
	b.cancel(nil)
	return err
}

// contentRange is the field Content-Range: the bytes first to last, both
// included, of total.
type contentRange struct {
	first, last, total int64
}

// parseContentRange reads "bytes 0-9/100" and "bytes */100"; in the latter
// first and last are -1. So is a total that is not known, "*".
func parseContentRange(v string) (contentRange, error) {
	bad := func() (contentRange, error) { return contentRange{}, fmt.Errorf("bad Content-Range %q", v) }
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

// parseLength reads a number of bytes: digits alone.
func parseLength(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// check compares the range with that of a request. Without the total, parts of
// two versions could not be told apart.
func (c contentRange) check(r Request, contentLength int64) error {
	if c.total < 0 {
		return errors.New("answered a part without the length of the whole")
	}
	last := c.total - 1
	if r.Length >= 0 {
		last = r.Offset + r.Length - 1
	}
	if c.first != r.Offset || c.last != last {
		return fmt.Errorf("answered bytes %d to %d, asked were %d to %d", c.first, c.last, r.Offset, last)
	}
	if n := c.last - c.first + 1; contentLength >= 0 && contentLength != n {
		return fmt.Errorf("answered %d bytes to a range of %d", contentLength, n)
	}
	return nil
}
