package httpd

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
)

// heldBack is how many bytes net/http may keep to itself: the size of its
// buffer before a connection.
const heldBack = 4096

// Downloads is what clients and other nodes get images from. The error wraps
// cache.ErrBadID for an id that does not follow the grammar of ids, and then no
// file was touched.
type Downloads interface {
	// Open serves a GET: from the cache, from a running fill, or by a new one.
	// Other errors wrap those of package origin.
	Open(ctx context.Context, id string) (cache.Content, error)
	// OpenCached opens an image as it is cached, without asking its origin; that
	// is an access as by Open. The error wraps cache.ErrNotFound unless it is
	// cached.
	OpenCached(ctx context.Context, id string) (cache.Content, error)
	// Stat serves a HEAD. It never starts a fill, and moves no last access. The
	// Content answers everything but CopyTo. Other errors wrap those of package
	// origin.
	Stat(ctx context.Context, id string) (cache.Content, error)
	// Image says what is known of an image. Here only its state matters.
	Image(id string) (cache.ImageInfo, error)
}

// downloads are the handlers that send images.
type downloads struct {
	answerer
	images  Downloads
	resolve func(path, query string) (id string, err error) // see [Config]
}

// serve serves GET and HEAD of the public face.
func (d downloads) serve(w http.ResponseWriter, r *http.Request) {
	id, err := d.resolve(r.URL.EscapedPath(), r.URL.RawQuery)
	if err != nil {
		d.failDownload(w, r, err)
		return
	}
	if onlyIfCached(r.Header) && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		d.cached(w, r, id)
		return
	}
	if wantsFresh(r.Header) {
		r = r.WithContext(cache.WithFresh(r.Context()))
	}
	switch r.Method {
	case http.MethodGet:
		ctx := cache.WithClient(r.Context(), clientName(r))
		if r.Header.Get("Range") != "" {
			ctx = cache.WithRange(ctx)
		}
		d.download(w, r.WithContext(ctx), id, d.images.Open)
	case http.MethodHead:
		d.download(w, r, id, d.images.Stat)
	default:
		refuseMethod(w, methods{http.MethodGet: d.serve})
	}
}

// onlyIfCached reports whether a client wants what is cached or nothing (RFC
// 9111, section 5.2.1.7): other nodes ask so, lest they ask in circles.
func onlyIfCached(h http.Header) bool { return hasDirective(h, "Cache-Control", "only-if-cached") }

// wantsFresh reports whether a client wants the origin asked now (RFC 9111,
// sections 5.2.1 and 5.4). Of ages none but 0 counts.
func wantsFresh(h http.Header) bool {
	if len(h.Values("Cache-Control")) > 0 {
		return hasDirective(h, "Cache-Control", "no-cache") || hasDirective(h, "Cache-Control", "max-age=0")
	}
	return hasDirective(h, "Pragma", "no-cache")
}

// hasDirective reports whether a directive is in the list that a field of a header
// holds.
func hasDirective(h http.Header, field, directive string) bool {
	for _, line := range h.Values(field) {
		for d := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(d), directive) {
				return true
			}
		}
	}
	return false
}

// errNotCached answers those who want nothing else. The RFC has a status for
// it.
var errNotCached = errors.New("the image is not cached")

// cached answers with an image if that is cached. A HEAD must move no last
// access, so it only looks.
func (d downloads) cached(w http.ResponseWriter, r *http.Request, id string) {
	open := d.images.OpenCached
	if r.Method == http.MethodHead {
		open = d.statCached
	}
	d.download(w, r, id, func(ctx context.Context, id string) (cache.Content, error) {
		c, err := open(ctx, id)
		if errors.Is(err, cache.ErrNotFound) {
			err = errNotCached
		}
		return c, err
	})
}

// statCached is Stat of an image that is cached.
func (d downloads) statCached(ctx context.Context, id string) (cache.Content, error) {
	info, err := d.images.Image(id)
	if err == nil && info.State != cache.StateCached {
		err = cache.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return d.images.Stat(ctx, id)
}

// data sends the bytes of a cached image. A HEAD must move no last access,
// so it only looks.
func (d downloads) data(w http.ResponseWriter, r *http.Request) {
	id, err := d.known(r)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	if r.Method == http.MethodGet {
		d.download(w, r, id, d.images.OpenCached)
		return
	}
	c, err := d.statCached(r.Context(), id)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	d.download(w, r, id, func(context.Context, string) (cache.Content, error) { return c, nil })
}

// clientName tells clients apart by their address. One client usually has all
// of an IPv6 network of 64 bits. Who comes over a socket is nobody in
// particular.
func clientName(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	network, err := ip.Prefix(64)
	if err != nil {
		return ""
	}
	return network.String()
}

// download answers with what open finds under id.
func (d downloads) download(w http.ResponseWriter, r *http.Request, id string, open func(context.Context, string) (cache.Content, error)) {
	c, err := open(r.Context(), id)
	if err != nil {
		d.failDownload(w, r, err)
		return
	}
	defer c.Close()
	p := planAnswer(r, c)
	p.describe(w.Header(), c)
	switch {
	case p.status >= http.StatusBadRequest:
		writeError(w, p.status, http.StatusText(p.status))
	case p.status == http.StatusNotModified || r.Method == http.MethodHead:
		w.WriteHeader(p.status)
	default:
		d.send(w, r, c, p)
	}
}

// send copies the planned bytes. A client that cannot have all of them gets an
// error status if none has left yet, else a connection that breaks off.
func (d downloads) send(w http.ResponseWriter, r *http.Request, c cache.Content, p answer) {
	b := &body{w: w, status: p.status, outcome: c.Outcome}
	n, err := c.CopyTo(r.Context(), b, p.off, p.n)
	want := p.n
	if want < 0 {
		want = p.size
	}
	if err == nil && want >= 0 && n != want {
		err = fmt.Errorf("%w: %d of %d bytes were sent", cache.ErrVerify, n, want)
	}
	switch {
	case err == nil:
		b.begin()
	case !b.begun:
		clear(w.Header())
		d.failDownload(w, r, err)
	default:
		if r.Context().Err() == nil {
			d.log.WarnContext(r.Context(), "download cut", "path", logPath(r), "sent", n, "error", err)
		}
		cut(r)
	}
}

// answer is how a request for an image is answered.
type answer struct {
	status int
	size   int64 // of the image; -1: unknown
	span         // of the body; n < 0: to the end
}

func planAnswer(r *http.Request, c cache.Content) answer {
	a := answer{status: http.StatusOK, size: c.Info().Size, span: span{n: -1}}
	if status := precondition(r.Header, c); status != 0 {
		a.status = status
		return a
	}
	if a.size < 0 && !r.ProtoAtLeast(1, 1) && !canReset(r) {
		// The end of the connection is the end of the body; no sign would
		// tell a broken download from a whole one.
		a.status = http.StatusHTTPVersionNotSupported
		return a
	}
	ranges := r.Header.Values("Range")
	if r.Method != http.MethodGet || len(ranges) != 1 || !rangeHolds(r.Header, c) {
		return a
	}
	switch part, verdict := parseRange(ranges[0], a.size); verdict {
	case rangeGood:
		a.status, a.span = http.StatusPartialContent, part
	case rangeUnsatisfiable:
		a.status = http.StatusRequestedRangeNotSatisfiable
	}
	return a
}

// describe writes the header of the answer.
func (a answer) describe(h http.Header, c cache.Content) {
	o := c.Outcome()
	h.Set("Cache-Status", cacheStatus(o))
	if !o.Confirmed.IsZero() {
		h.Set("Age", strconv.FormatInt(max(0, int64(time.Since(o.Confirmed).Seconds())), 10))
	}
	if etag := c.ETag(); etag != "" {
		h.Set("ETag", etag)
	}
	if t := c.ModTime(); !t.IsZero() {
		h.Set("Last-Modified", t.UTC().Format(http.TimeFormat))
	}
	if a.size >= 0 {
		h.Set("Accept-Ranges", "bytes")
	}
	switch a.status {
	case http.StatusRequestedRangeNotSatisfiable:
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", a.size))
		return
	case http.StatusPartialContent:
		h.Set("Content-Range", a.contentRange(a.size))
		h.Set("Content-Length", strconv.FormatInt(a.n, 10))
	case http.StatusOK:
		if a.size >= 0 {
			h.Set("Content-Length", strconv.FormatInt(a.size, 10))
		}
	default:
		return
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	if sum, err := hex.DecodeString(c.Info().SHA256); err == nil && len(sum) > 0 {
		h.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum)+":")
	}
}

// body sends the status with the first byte, so that a download that fails
// before it has a status of its own.
type body struct {
	w       http.ResponseWriter
	status  int
	outcome func() cache.Outcome // of which more is known by then
	begun   bool
}

func (b *body) begin() {
	if !b.begun {
		b.begun = true
		b.w.Header().Set("Cache-Status", cacheStatus(b.outcome()))
		b.w.WriteHeader(b.status)
	}
}

// Write passes p on at once: the next bytes may be long in coming.
func (b *body) Write(p []byte) (int, error) {
	b.begin()
	n, err := b.w.Write(p)
	if err == nil && n <= heldBack {
		err = http.NewResponseController(b.w).Flush()
	}
	return n, err
}

// ReadFrom passes a file on, for the kernel to send.
func (b *body) ReadFrom(r io.Reader) (int64, error) {
	b.begin()
	return io.Copy(b.w, r)
}

// cut ends the request and its connection such that no client takes what it
// has got for the whole.
func cut(r *http.Request) {
	if !r.ProtoAtLeast(1, 1) {
		reset(r)
	}
	panic(http.ErrAbortHandler)
}
