package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

// fetch is the transfer of a whole image from its origin. As a reader it continues
// a broken transfer at the same offset with the same version.
type fetch struct {
	ctx     context.Context
	origin  origin.Origin
	name    string
	obj     origin.Object
	body    io.ReadCloser
	offset  int64     // of the next byte
	tries   int       // in a row without progress
	slow    int       // tries in a row that were too slow
	begun   time.Time // when the last try began
	broken  error     // why there is no body
	retries int       // how many tries in a row are allowed
	onBreak func(err error, offset int64)

	suspects []origin.Suspect // those who sent the bytes that were read
}

// firstRetry is the pause before the first attempt to continue. It doubles with
// each attempt, so that five attempts take three seconds, which is longer than a
// restart of a front end and shorter than a client waits.
const firstRetry = 100 * time.Millisecond

// resumeFetch continues, at offset, a transfer that an earlier fill began. It
// returns when the origin has answered. An origin that is away is asked again as
// often as for a transfer that breaks off.
func resumeFetch(ctx context.Context, o origin.Origin, name string, obj origin.Object, offset int64, retries int) (*fetch, error) {
	t := &fetch{ctx: ctx, origin: o, name: name, obj: obj, offset: offset, retries: retries}
	_, body, err := o.Open(ctx, t.rest())
	if err == nil {
		t.take(body)
		return t, nil
	}
	for t.broken = err; t.body == nil; {
		if err := t.resume(t.broken); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// endedFetch returns a transfer whose bytes have all been read.
func endedFetch(obj origin.Object) *fetch {
	return &fetch{obj: obj, offset: obj.Size, body: io.NopCloser(strings.NewReader(""))}
}

// rest returns a request for the bytes that are missing, of the same version.
func (t *fetch) rest() origin.Request { return part(t.name, t.obj, t.offset, -1) }

// part returns a request for length bytes from offset on, or for the rest if length
// is -1. The image must still be the one that the origin has described as obj.
func part(name string, obj origin.Object, offset, length int64) origin.Request {
	known := obj.Validators()
	return origin.Request{Name: name, Offset: offset, Length: length, Version: obj.Version, Known: &known}
}

// openFetch begins a transfer. An origin that is away, or says that it will answer
// soon, is asked again as often as for a transfer that breaks off.
func openFetch(ctx context.Context, o origin.Origin, name string, retries int) (*fetch, error) {
	for try := 0; ; try++ {
		obj, body, err := o.Open(ctx, origin.Request{Name: name, Length: -1})
		if err == nil {
			t := &fetch{ctx: ctx, origin: o, name: name, obj: obj, retries: retries}
			t.take(body)
			return t, nil
		}
		pause := retryPause(err, try)
		if try >= retries || pause < 0 {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// longestRetryPause is how long an origin may let a client wait before its transfer
// begins. If it asks for a longer pause, that is passed on to the client.
const longestRetryPause = 5 * time.Second

// retryPause returns how long to wait before an origin is asked again after a
// number of tries; -1: another try is of no use, or would take too long.
func retryPause(err error, tries int) time.Duration {
	pause := firstRetry << tries
	var f *origin.Failure
	switch {
	case errors.As(err, &f) && !f.Temporary, !errors.Is(err, origin.ErrUnavailable):
		return -1
	case f != nil:
		pause = max(pause, f.RetryAfter)
	}
	if pause > longestRetryPause {
		return -1
	}
	return pause
}

// take continues with a body.
func (t *fetch) take(body io.ReadCloser) {
	t.body = body
	if s, ok := body.(origin.Suspect); ok {
		t.suspects = append(t.suspects, s)
	}
}

// blameIfWrong blames those who sent the bytes if err says that the bytes are wrong.
func (t *fetch) blameIfWrong(err error) {
	if errors.Is(err, ErrVerify) {
		for _, s := range t.suspects {
			s.Wrong()
		}
	}
}

// Read returns io.EOF only if the origin's stream ended normally.
func (t *fetch) Read(p []byte) (int, error) {
	for {
		n, err := t.read(p)
		t.offset += int64(n)
		if n > 0 {
			t.tries = 0
			return n, nil
		}
		if err == nil || errors.Is(err, io.EOF) {
			return 0, err
		}
		if err := t.resume(err); err != nil {
			return 0, err
		}
	}
}

func (t *fetch) read(p []byte) (int, error) {
	if t.body == nil {
		return 0, t.broken
	}
	n, err := t.body.Read(p)
	if errors.Is(err, io.EOF) && t.obj.Size > t.offset+int64(n) {
		err = fmt.Errorf("%w: %w", origin.ErrUnavailable, io.ErrUnexpectedEOF)
	}
	return n, err
}

// resume opens the rest of the image again. It returns the error with which the
// transfer ends, or nil after an attempt, whether it succeeded or not: the next
// read will show that.
func (t *fetch) resume(broken error) error {
	t.close()
	t.slow = t.slowInRow(broken)
	if !origin.Joins(t.obj.Version) || max(t.tries, t.slow) >= t.retries || !errors.Is(broken, origin.ErrUnavailable) {
		return broken
	}
	select {
	case <-time.After(firstRetry << t.tries):
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
	t.tries++
	t.begun = time.Now()
	if t.onBreak != nil {
		t.onBreak(broken, t.offset)
	}
	obj, body, err := t.origin.Open(t.ctx, t.rest())
	switch {
	case errors.Is(err, origin.ErrUnavailable):
		t.broken = err
		return nil // counted as a try; the next read comes back here
	case err != nil:
		return err
	case obj.Version != t.obj.Version:
		body.Close()
		return fmt.Errorf("%w: version %s became %s during the transfer", origin.ErrChanged, t.obj.Version, obj.Version)
	}
	t.take(body)
	return nil
}

// slowInRow returns how many tries in a row ended because they were too slow. They
// must be counted apart, because bytes came and so t.tries was reset. A try that
// was fast enough for a minute begins a new row.
func (t *fetch) slowInRow(broken error) int {
	const well = time.Minute
	switch {
	case !errors.Is(broken, origin.ErrSlow):
		return 0
	case time.Since(t.begun) > well:
		return 1
	}
	return t.slow + 1
}

// pause closes the stream. jump opens it again.
func (t *fetch) pause() { t.close() }

// jump continues at another offset of the same version. If it fails, the next read
// deals with the error.
func (t *fetch) jump(offset int64) {
	t.close()
	t.offset, t.tries = offset, 0
	_, body, err := t.origin.Open(t.ctx, t.rest())
	if err != nil {
		t.broken = err
		return
	}
	t.take(body)
}

func (t *fetch) close() {
	if t.body != nil {
		t.body.Close()
		t.body = nil
	}
}

// Close ends the transfer.
func (t *fetch) Close() error {
	t.close()
	return nil
}

// unread puts bytes back in front of the stream.
func (t *fetch) unread(p []byte) {
	if len(p) == 0 {
		return
	}
	t.body = &rewound{head: append([]byte(nil), p...), rest: t.body}
	t.offset -= int64(len(p))
}

// rewound is a stream that begins with bytes that were read before.
type rewound struct {
	head []byte
	rest io.ReadCloser
}

func (r *rewound) Read(p []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	return r.rest.Read(p)
}

func (r *rewound) Close() error { return r.rest.Close() }

// openTail continues an image from offset on, for a client that can no longer
// follow a fill.
func openTail(ctx context.Context, o origin.Origin, name string, obj origin.Object, offset int64, retries int) (*fetch, error) {
	if !origin.Joins(obj.Version) && offset > 0 {
		return nil, fmt.Errorf("%w: %q gives no version, so the rest may not belong to the same image", origin.ErrUnavailable, o.Name())
	}
	_, body, err := o.Open(ctx, part(name, obj, offset, -1))
	if err != nil {
		return nil, err
	}
	t := &fetch{ctx: ctx, origin: o, name: name, obj: obj, offset: offset, retries: retries}
	t.take(body)
	return t, nil
}
