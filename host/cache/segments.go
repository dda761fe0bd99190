package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

// segment is a part of an image that is ahead of its fill. A client that asked for
// it fetches it and writes it into the staged file, so that a download in several
// parts at once costs the origin one image. The fill uses it when it gets there.
// Its fields are guarded by the fill's mutex.
type segment struct {
	from    int64
	have    int64     // the bytes [from, have) are in the staged file
	to      int64     // where it ends, unless its transfer breaks off
	active  bool      // a client is fetching it
	writing bool      // a write into the staged file is running
	moved   time.Time // when the last bytes came
}

// segmentPatience is how long the fill waits for a segment while no bytes come: a
// client that reads slowly must not delay the others.
const segmentPatience = 5 * time.Second

// claimSegment returns a segment, the first part of [pos, end), which the caller
// must fetch and store, or nil if it cannot be stored.
func (f *fill) claimSegment(pos, end int64) *segment {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.phase != streaming || f.staged == nil || f.state.size < 0 || !origin.Joins(f.obj.Version) || pos-f.state.have <= farAhead {
		return nil
	}
	for _, s := range f.segments {
		if pos >= s.from && pos < s.to {
			return nil // another client fetches it
		}
		if s.from > pos {
			end = min(end, s.from)
		}
	}
	s := &segment{from: pos, have: pos, to: end, active: true, moved: time.Now()}
	f.segments = append(f.segments, s)
	return s
}

// aheadLocked returns up to where bytes from pos on can be read in a segment, and
// whether more of them are being fetched. The caller holds f.mu.
func (f *fill) aheadLocked(pos int64) (readable int64, coming bool) {
	for _, s := range f.segments {
		if pos >= s.from && pos < s.to {
			return min(s.have, holdFrom(f.state.size, s.have)), s.active
		}
	}
	return 0, false
}

// keep stores p of a segment at the offset at. It returns false if the fill has
// taken the segment from the caller, or p cannot be stored.
func (f *fill) keep(ctx context.Context, s *segment, p []byte, at int64) bool {
	if f.grow(ctx, int64(len(p))) != nil {
		return false
	}
	f.mu.Lock()
	ok := s.active && f.state.phase == streaming
	s.writing = ok
	staged := f.staged
	f.mu.Unlock()
	if !ok {
		return false
	}
	_, err := staged.WriteAt(p, at)
	f.update(func() {
		s.writing = false
		if err == nil && s.active {
			s.have, s.moved = at+int64(len(p)), time.Now()
		}
	})
	return err == nil
}

// endSegment says that no more bytes of a segment will come.
func (f *fill) endSegment(s *segment) {
	f.update(func() { s.active, s.to = false, s.have })
}

// fetchSegment copies the claimed segment from the origin to w, and stores it. If it
// can no longer be stored, it is still copied to w.
func (k *fillContent) fetchSegment(ctx context.Context, w io.Writer, s *segment, buf []byte) (n int64, err error) {
	f, end := k.f, s.to
	defer f.endSegment(s)
	_, body, err := f.origin.Open(ctx, part(f.name, f.obj, s.from, end-s.from))
	if err != nil {
		return 0, err
	}
	defer body.Close()
	if suspect, ok := body.(origin.Suspect); ok {
		f.mu.Lock()
		f.suspects = append(f.suspects, suspect)
		f.mu.Unlock()
	}
	pos, stored := s.from, true
	for pos < end {
		m, err := body.Read(buf[:min(int64(len(buf)), end-pos)])
		f.c.stats.fetched.Add(uint64(m))
		if m > 0 {
			stored = stored && f.keep(ctx, s, buf[:m], pos)
			sent, err := w.Write(buf[:m])
			pos += int64(sent)
			if err != nil {
				return pos - s.from, err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && pos < end:
			return pos - s.from, fmt.Errorf("%w: %w", origin.ErrUnavailable, io.ErrUnexpectedEOF)
		case err != nil && !errors.Is(err, io.EOF):
			return pos - s.from, err
		}
	}
	return pos - s.from, nil
}

// inflow gives a fill its bytes in order: from the origin or, where clients have
// fetched segments, from the staged file.
type inflow struct {
	f      *fill
	stream *fetch
}

// read returns the next bytes, and whether they are in the staged file already.
func (s *inflow) read(ctx context.Context, p []byte) (n int, stored bool, err error) {
	f := s.f
	f.mu.Lock()
	at, size := f.state.have, f.state.size
	next, limit := f.nextSegmentLocked(at)
	f.mu.Unlock()
	if next != nil {
		n, err = s.readSegment(ctx, next, p)
		if n > 0 || err != nil {
			return n, true, err
		}
		return s.read(ctx, p)
	}
	if s.stream.offset != at {
		if at == size {
			return 0, false, io.EOF
		}
		s.stream.jump(at)
	}
	if limit >= 0 {
		p = p[:min(int64(len(p)), limit-at)]
	}
	n, err = s.stream.Read(p)
	f.c.stats.fetched.Add(uint64(n))
	return n, false, err
}

// nextSegmentLocked returns the segment that contains the offset at. If there is
// none, limit is where the next one begins; -1: there is no next one. The caller
// holds f.mu.
func (f *fill) nextSegmentLocked(at int64) (s *segment, limit int64) {
	limit = -1
	for _, s := range f.segments {
		switch {
		case at >= s.from && at < s.to:
			return s, -1
		case s.from > at && (limit < 0 || s.from < limit):
			limit = s.from
		}
	}
	return nil, limit
}

// readSegment waits for bytes of a segment and reads them from the staged file. It
// returns 0 if the segment has ended before the fill's offset.
func (s *inflow) readSegment(ctx context.Context, seg *segment, p []byte) (int, error) {
	f := s.f
	s.stream.pause() // the origin may serve one transfer at a time
	for {
		f.mu.Lock()
		at, have, active, changed := f.state.have, seg.have, seg.active, f.changed
		stalled := time.Since(seg.moved) >= segmentPatience
		if active && have <= at && stalled && !seg.writing {
			seg.active, seg.to, active = false, have, false // the fill fetches the rest itself
		}
		f.mu.Unlock()
		switch {
		case have > at:
			n, err := f.staged.Absorb(p[:min(int64(len(p)), have-at)])
			if err != nil {
				return n, notStored(ctx, err)
			}
			return n, nil
		case !active:
			return 0, nil
		}
		wait := time.NewTimer(segmentPatience)
		select {
		case <-changed:
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return 0, context.Cause(ctx)
		}
		wait.Stop()
	}
}
