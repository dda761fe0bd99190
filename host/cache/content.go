package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
)

// farAhead is how many bytes a range may be ahead of a fill and still wait for it.
// A range that is further ahead is fetched from the origin at once. On a
// 100 Mbit/s link 8 MiB take two thirds of a second, about as long as a new
// connection to a far origin.
const farAhead = 8 << 20

// etag makes an entity tag of a version. A strong tag of the origin stays as it is.
// There is none for a version that cannot prove that two parts belong together.
func etag(version string) string {
	switch {
	case !origin.Joins(version):
		return ""
	case strings.HasPrefix(version, `"`):
		return version
	}
	return `"` + version + `"`
}

// meta is common to all kinds of content.
type meta struct {
	info    ImageInfo
	modTime time.Time
	outcome Outcome
}

func (m *meta) Info() ImageInfo    { return m.info }
func (m *meta) ETag() string       { return etag(m.info.Version) }
func (m *meta) ModTime() time.Time { return m.modTime }
func (m *meta) Outcome() Outcome   { return m.outcome }

// copyRange copies exactly the bytes of r, whose Length must not be -1.
func copyRange(ctx context.Context, w io.Writer, o origin.Origin, r origin.Request) (int64, error) {
	_, body, err := o.Open(ctx, r)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	buf := blocks.get()
	defer blocks.put(buf)
	n, err := io.CopyBuffer(onlyWriter{w}, io.LimitReader(body, r.Length), buf)
	if err == nil && n < r.Length {
		err = fmt.Errorf("%w: %w", origin.ErrUnavailable, io.ErrUnexpectedEOF)
	}
	return n, err
}

// onlyWriter hides ReadFrom, which would bypass the pooled buffer.
type onlyWriter struct{ io.Writer }

// fillContent follows a fill.
type fillContent struct {
	meta
	f *fill
}

// Outcome implements [Content].
func (k *fillContent) Outcome() Outcome {
	out := k.outcome
	out.Stored, out.Detail = k.f.outcome()
	return out
}

// CopyTo waits for bytes that the fill has still to fetch. The image's last block
// waits until the whole image is verified.
func (k *fillContent) CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	copied, err := k.follow(ctx, w, off, n)
	k.f.c.stats.served.Add(uint64(copied))
	return copied, err
}

func (k *fillContent) follow(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	buf := blocks.get()
	defer blocks.put(buf)
	pos, partial := off, off > 0
	jump := n >= 0 && off > 0
	patient := jump && k.f.c.cfg.Fill.RangesInFill == options.RangesVerified
	for {
		v, err := k.f.await(ctx, pos, func(v fillView) bool {
			return v.phase >= committing || !patient && (pos < v.readable || jump && v.far(pos))
		})
		if err != nil {
			return pos - off, err
		}
		end := v.size
		if n >= 0 {
			if end = off + n; v.size >= 0 {
				end = min(end, v.size)
			}
			partial = partial || end < v.size
		}
		switch {
		case v.phase == failed:
			return pos - off, v.err
		case end >= 0 && pos >= end && (end < v.size || v.verified()):
			return pos - off, nil
		case patient && v.phase == detached:
			m, err := k.direct(ctx, w, pos, end, pos == off)
			return pos - off + m, err
		case jump && !patient && pos >= v.readable && v.far(pos):
			m, err := k.ahead(ctx, w, pos, end, pos == off, buf)
			pos += m
			if err != nil || pos >= end {
				return pos - off, err
			}
		case pos < v.readable:
			limit := v.readable
			if end >= 0 {
				limit = min(limit, end)
			}
			m, err := k.copyPrefix(ctx, w, pos, limit, buf)
			pos += m
			if err != nil {
				return pos - off, err
			}
		case v.phase == detached && partial:
			if end < 0 {
				return pos - off, v.err
			}
			m, err := k.direct(ctx, w, pos, end, pos == off)
			return pos - off + m, err
		case v.phase == detached:
			m, err := k.tail(ctx, w, pos, buf)
			return pos - off + m, err
		}
	}
}

// ahead copies the first part of [pos, end), which is far ahead of the fill, and
// stores it if possible. alone is as in direct.
func (k *fillContent) ahead(ctx context.Context, w io.Writer, pos, end int64, alone bool, buf []byte) (int64, error) {
	if s := k.f.claimSegment(pos, end); s != nil {
		return k.fetchSegment(ctx, w, s, buf)
	}
	if v := k.f.view(pos); !v.far(pos) {
		return 0, nil // another client fetches it now
	}
	return k.direct(ctx, w, pos, end, alone)
}

// direct copies [pos, end) from the origin. alone says that the client gets no
// other bytes.
func (k *fillContent) direct(ctx context.Context, w io.Writer, pos, end int64, alone bool) (int64, error) {
	r := part(k.f.name, k.f.obj, pos, end-pos)
	r.Alone = alone
	n, err := copyRange(ctx, w, k.f.origin, r)
	k.f.c.stats.fetched.Add(uint64(n))
	return n, err
}

func (k *fillContent) Close() error {
	k.f.leave()
	return nil
}

// fillView is what a client sees of a fill at one moment.
type fillView struct {
	phase    phase
	size     int64
	have     int64
	readable int64
	coming   bool // another client is fetching the next bytes ahead of the fill
	err      error
}

// far reports whether pos is so far ahead of the fill that waiting would take
// longer than fetching it. While the fill seeks room that is not known yet.
func (v fillView) far(pos int64) bool {
	return pos-v.have > farAhead && !v.coming && v.phase != reserving
}

func (v fillView) verified() bool { return v.phase == committing || v.phase == done }

// view returns what a client at pos sees of the fill.
func (f *fill) view(pos int64) fillView {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.viewLocked(pos)
}

func (f *fill) viewLocked(pos int64) fillView {
	v := fillView{phase: f.state.phase, size: f.state.size, have: f.state.have, readable: f.state.readable(), err: f.state.err}
	if pos >= v.readable && f.staged != nil {
		var ahead int64
		ahead, v.coming = f.aheadLocked(pos)
		v.readable = max(v.readable, ahead)
	}
	return v
}

// await waits until enough returns true for the view of a client at pos. It must
// return true for a fill that is over.
func (f *fill) await(ctx context.Context, pos int64, enough func(fillView) bool) (fillView, error) {
	for {
		f.mu.Lock()
		v, changed := f.viewLocked(pos), f.changed
		f.mu.Unlock()
		if enough(v) {
			return v, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fillView{}, context.Cause(ctx)
		}
	}
}

// copyPrefix writes the readable bytes [pos, limit). Bytes that cannot be read from
// the disk come from the origin.
func (k *fillContent) copyPrefix(ctx context.Context, w io.Writer, pos, limit int64, buf []byte) (int64, error) {
	n, err := k.f.copyTo(w, pos, limit, buf)
	if !errors.Is(err, errReadBack) || k.f.obj.Version == "" {
		return n, err
	}
	k.f.c.disk.fail(err)
	m, err := k.direct(ctx, w, pos+n, limit, false)
	return n + m, err
}

// errReadBack says that bytes that a fill has written cannot be read.
var errReadBack = errors.New("read back what was fetched")

// copyTo writes the readable bytes [pos, limit).
func (f *fill) copyTo(w io.Writer, pos, limit int64, buf []byte) (int64, error) {
	start := pos
	for pos < limit {
		p, err := f.readAt(buf[:min(int64(len(buf)), limit-pos)], pos)
		if err != nil {
			return pos - start, fmt.Errorf("%w: %w", errReadBack, err)
		}
		n, err := w.Write(p)
		pos += int64(n)
		if err != nil {
			return pos - start, err
		}
	}
	return pos - start, nil
}

// readAt fills p from the readable bytes and returns it.
func (f *fill) readAt(p []byte, off int64) ([]byte, error) {
	f.mu.Lock()
	staged, memory := f.staged, f.memory
	f.mu.Unlock()
	if staged == nil {
		return p[:copy(p, memory[off:])], nil
	}
	n, err := staged.ReadAt(p, off)
	if n < len(p) && (err == nil || errors.Is(err, io.EOF)) {
		err = io.ErrUnexpectedEOF
	}
	if n == len(p) {
		err = nil
	}
	return p[:n], err
}

// tail serves the rest of a whole image, from pos on, after the fill was detached.
// The stream continues at the end of the prefix and is still hashed, and its last
// block is withheld until the digest is known to be right.
func (k *fillContent) tail(ctx context.Context, w io.Writer, pos int64, buf []byte) (_ int64, failed error) {
	src, sums, err := k.f.takeOver(ctx)
	if err != nil {
		return 0, err
	}
	defer src.Close()
	defer func() { src.blameIfWrong(failed) }()
	t := &tail{k: k, ctx: ctx, w: w, start: pos, pos: pos, first: src.offset, next: src.offset, buf: buf}
	for {
		n, err := src.Read(buf)
		k.f.c.stats.fetched.Add(uint64(n))
		sums.write(buf[:n])
		t.held = append(t.held, buf[:n]...)
		t.next += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if size := k.f.obj.Size; err == nil && size >= 0 && t.next > size {
			err = fmt.Errorf("%w: the origin sent more than the %d bytes that it announced", ErrVerify, size)
		}
		if err == nil {
			err = t.let(min(t.next, holdFrom(k.f.obj.Size, t.next)))
		}
		if err != nil {
			return t.copied(), err
		}
	}
	if size := k.f.obj.Size; size >= 0 && t.next != size {
		return t.copied(), fmt.Errorf("%w: the origin sent %d of %d bytes", ErrVerify, t.next, size)
	}
	if err := sums.verify(); err != nil {
		return t.copied(), err
	}
	err = t.let(t.next)
	return t.copied(), err
}

// tail is the place of a client in a stream that is not stored.
type tail struct {
	k          *fillContent
	ctx        context.Context
	w          io.Writer
	start, pos int64  // where the client began, and its next byte
	held       []byte // the bytes [first, next) of the stream, which are withheld
	first      int64
	next       int64
	buf        []byte
}

func (t *tail) copied() int64 { return t.pos - t.start }

// let writes the bytes below limit that were withheld: first the end of the fill's
// prefix, then the stream.
func (t *tail) let(limit int64) error {
	if limit <= t.pos {
		return nil
	}
	if t.pos < t.first {
		n, err := t.k.copyPrefix(t.ctx, t.w, t.pos, min(limit, t.first), t.buf)
		t.pos += n
		if err != nil {
			return err
		}
	}
	if limit <= t.first {
		return nil
	}
	n, err := t.w.Write(t.held[:limit-t.first])
	t.pos += int64(n)
	if err != nil {
		return err
	}
	t.held = append(t.held[:0], t.held[limit-t.first:]...)
	t.first = limit
	return nil
}

// takeOver returns the stream that follows the readable bytes, and a digester that
// has seen those.
func (f *fill) takeOver(ctx context.Context) (*fetch, *digester, error) {
	f.mu.Lock()
	rest, have := f.rest, f.state.have
	f.rest = nil
	sums, err := f.sums.clone()
	f.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	if rest == nil && have == f.obj.Size {
		rest = endedFetch(f.obj)
	}
	if rest == nil {
		rest, err = openTail(ctx, f.origin, f.name, f.obj, have, f.c.cfg.Fill.Retries)
	}
	return rest, sums, err
}

// statContent answers a HEAD.
type statContent struct{ meta }

func (k *statContent) CopyTo(context.Context, io.Writer, int64, int64) (int64, error) {
	return 0, errors.ErrUnsupported
}

func (k *statContent) Close() error { return nil }
