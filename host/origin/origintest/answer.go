package origintest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// framing is how the end of a body is marked.
type framing int

const (
	byLength framing = iota
	byChunks
	byEnd // of the connection
)

// answer is how a request is answered.
type answer struct {
	w       *Wild
	v       *version
	head    bool
	status  int
	header  http.Header
	from    int64 // the bytes [from, to) of the version are sent
	to      int64
	framing framing
	length  int64 // what Content-Length says
	counts  bool  // the whole version was requested
	wrong   bool

	page  string // a body that is not an image
	reset bool   // the connection breaks off without an answer
	hang  bool   // nothing comes
	cut   int64  // only so many bytes of the body are sent; -1: all
	stall int64  // after so many bytes nothing comes for a while; -1: no pause
	flip  int64  // the byte at this offset is wrong; -1: none
	slow  time.Duration
}

// plan decides how a request is answered; false: there is no such image.
func (w *Wild) plan(r *http.Request) (*answer, bool) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	name, signed := strings.CutPrefix(name, "signed/")
	w.mu.Lock()
	defer w.mu.Unlock()
	img := w.images[name]
	if img == nil || img.withdrawn {
		return nil, false
	}
	v := img.versions[len(img.versions)-1]
	a := &answer{w: w, v: v, head: r.Method == http.MethodHead, status: http.StatusOK, header: http.Header{}, to: v.Size, cut: -1, stall: -1, flip: -1}
	a.wrong = w.odds > 0 && w.rng.IntN(w.odds) == 0
	if a.wrong {
		img.trouble = w.Now()
	}
	switch {
	case signed && a.head:
		a.refuse(http.StatusForbidden)
		return a, true
	case w.Elsewhere != "" && !signed && w.rng.IntN(4) == 0:
		a.refuse(http.StatusFound)
		a.header.Set("Location", w.Elsewhere+"signed/"+name)
		return a, true
	}
	a.describe()
	a.pick(r)
	a.length = a.to - a.from
	if a.status < 300 && a.framing == byLength && w.rng.IntN(8) == 0 && !a.head && a.status == http.StatusOK {
		a.framing = byChunks
	}
	if a.wrong {
		a.spoil()
	}
	if w.rng.IntN(4) == 0 {
		a.slow = time.Duration(w.rng.IntN(300)) * time.Millisecond
	}
	return a, true
}

// refuse makes it an answer without an image.
func (a *answer) refuse(status int) {
	a.status, a.page, a.header = status, http.StatusText(status), http.Header{}
}

// describe adds the validators.
func (a *answer) describe() {
	v, rng := a.v, a.w.rng
	a.header.Set("Content-Type", "application/octet-stream")
	if v.NoStore {
		a.header.Set("Cache-Control", "no-store")
	} else if rng.IntN(10) == 0 {
		a.header.Set("Cache-Control", []string{"max-age=1", "no-cache", "must-revalidate", "max-age=100000"}[rng.IntN(4)])
	}
	modified := v.modified.Format(http.TimeFormat)
	missing := -1
	if v.Style == Moody {
		missing = rng.IntN(4)
	}
	switch v.Style {
	case Strong, Moody:
		if missing != 0 {
			a.header.Set("ETag", v.ETag)
		}
		if missing != 1 {
			a.header.Set("Last-Modified", modified)
		}
	case Digest:
		a.header.Set("Repr-Digest", v.digest)
		a.header.Set("ETag", fmt.Sprintf(`"mirror-%d-%d"`, v.Number, rng.IntN(3)))
	case Weak:
		a.header.Set("ETag", fmt.Sprintf(`W/"%d"`, v.Number))
		a.header.Set("Last-Modified", modified)
	case Odd:
		a.header.Set("ETag", fmt.Sprintf("v%d", v.Number))
	case Time:
		a.header.Set("Last-Modified", modified)
	}
}

// pick decides by the conditions and the range of the request which bytes are sent.
func (a *answer) pick(r *http.Request) {
	tag := a.header.Get("ETag")
	if match := r.Header.Get("If-Match"); match != "" && match != tag {
		a.refuse(http.StatusPreconditionFailed)
		return
	}
	from, to, ranged := parseRange(r.Header.Get("Range"), a.v.Size)
	a.counts = !a.head && !ranged
	if cond := r.Header.Get("If-Range"); !ranged || a.head || cond != "" && cond != tag || a.w.rng.IntN(10) == 0 {
		return
	}
	if from >= a.v.Size {
		a.refuse(http.StatusRequestedRangeNotSatisfiable)
		a.header.Set("Content-Range", fmt.Sprintf("bytes */%d", a.v.Size))
		return
	}
	if to < 0 || to > a.v.Size {
		to = a.v.Size
	}
	a.from, a.to, a.status = from, to, http.StatusPartialContent
	a.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, a.v.Size))
}

// parseRange reads "bytes=A-B" and "bytes=A-". For the latter to is -1.
func parseRange(field string, size int64) (from, to int64, ok bool) {
	spec, ok := strings.CutPrefix(field, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return 0, size, false
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, size, false
	}
	if last == "" {
		return from, -1, true
	}
	to, err = strconv.ParseInt(last, 10, 64)
	return from, to + 1, err == nil && to >= from
}

// send sends the answer. To break off the connection it panics, as handlers do.
func (a *answer) send(rw http.ResponseWriter, r *http.Request) {
	switch {
	case a.reset:
		panic(http.ErrAbortHandler)
	case a.hang:
		a.wait(r, a.w.Stall)
		panic(http.ErrAbortHandler)
	}
	for field, v := range a.header {
		rw.Header()[field] = v
	}
	if a.page != "" {
		rw.WriteHeader(a.status)
		_, _ = io.WriteString(rw, a.page)
		return
	}
	if a.framing == byEnd {
		a.sendToEnd(rw, r)
		return
	}
	if a.framing == byLength || a.head {
		rw.Header().Set("Content-Length", strconv.FormatInt(a.length, 10))
	}
	rw.WriteHeader(a.status)
	if a.head {
		return
	}
	control := http.NewResponseController(rw)
	_ = control.Flush()
	a.body(r, rw, control.Flush)
	if a.cut >= 0 || a.framing == byLength && a.length > a.to-a.from {
		panic(http.ErrAbortHandler)
	}
}

// sendToEnd sends an answer that ends with its connection, as in HTTP/1.0.
func (a *answer) sendToEnd(rw http.ResponseWriter, r *http.Request) {
	conn, buf, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	fmt.Fprintf(buf, "HTTP/1.0 %d %s\r\n", a.status, http.StatusText(a.status))
	_ = a.header.Write(buf)
	_, _ = buf.WriteString("\r\n")
	a.body(r, buf, buf.Flush)
}

// body sends the bytes, and counts them.
func (a *answer) body(r *http.Request, rw io.Writer, flush func() error) {
	a.note(func(v *Version) { v.Sending++ })
	defer a.note(func(v *Version) { v.Sending-- })
	end := a.to
	if a.cut >= 0 {
		end = min(end, a.from+a.cut)
	}
	const step = 128 << 10
	for at := a.from; at < end; {
		next := min(at+step, end)
		if a.stall >= 0 && at <= a.from+a.stall && a.from+a.stall < next {
			next = a.from + a.stall
		}
		p := a.v.part(at, next)
		if at <= a.flip && a.flip < next {
			p[a.flip-at] ^= 1
		}
		_, err := rw.Write(p)
		if err := errors.Join(err, flush()); err != nil {
			return
		}
		a.note(func(v *Version) { v.LastSent = a.w.Now() })
		at = next
		if a.stall >= 0 && at == a.from+a.stall {
			a.wait(r, a.w.Stall)
			return
		}
		if at < end && a.slow > 0 {
			a.wait(r, a.slow)
		}
	}
	switch {
	case end == a.v.Size && a.wrong:
		a.note(func(v *Version) { v.Excused = true })
	case end == a.v.Size && a.counts:
		a.note(func(v *Version) { v.Whole++ })
	}
}

func (a *answer) note(change func(*Version)) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	change(&a.v.Version)
}

// wait waits, unless the client goes away.
func (a *answer) wait(r *http.Request, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
}
