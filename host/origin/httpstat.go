package origin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
)

// heads remembers where HEAD requests are of no use. A server may refuse HEAD and
// still send the image: its URL may be signed for GET only, or the server may have no
// route for HEAD.
type heads struct {
	none  atomic.Bool   // the server does not know the method
	names *recent[bool] // images for which HEAD was refused and GET was not
}

// rememberedHeads is for how many names at least it is remembered that HEAD is of no
// use. A name takes less than 200 bytes; a forgotten one costs one more request.
const rememberedHeads = 4096

func (h *heads) useless(name string) bool { return h.none.Load() || h.names.get(name) }

// proven notes that GET succeeded where HEAD failed. If the server does not know the
// method HEAD, that counts for all of its images.
func (h *heads) proven(name string, headErr error) {
	var f *Failure
	unknown := errors.As(headErr, &f) && (f.Status == http.StatusMethodNotAllowed || f.Status == http.StatusNotImplemented)
	if unknown && !f.elsewhere {
		h.none.Store(true)
		return
	}
	h.names.put(name, true)
}

// Stat implements [Origin]. If HEAD is refused or says that the image is empty, the
// answer to a GET of the first byte decides.
func (o *HTTP) Stat(ctx context.Context, name string) (Object, error) {
	if o.heads.useless(name) {
		return o.stat(ctx, http.MethodGet, name)
	}
	obj, headErr := o.stat(ctx, http.MethodHead, name)
	if !doubtful(obj, headErr) || context.Cause(ctx) != nil {
		return obj, headErr
	}
	confirmed, err := o.stat(ctx, http.MethodGet, name)
	if err == nil && (headErr != nil || confirmed.Size > 0) {
		o.heads.proven(name, headErr)
	}
	return confirmed, err
}

// doubtful reports whether GET may get another answer than HEAD got. A server that
// is overloaded or cannot be reached is not asked twice.
func doubtful(obj Object, err error) bool {
	if err == nil {
		return obj.Size == 0
	}
	var f *Failure
	if !errors.As(err, &f) {
		return false
	}
	var dial *net.OpError
	switch {
	case f.Status == http.StatusOK, f.Status == http.StatusTooManyRequests:
		return false
	case f.Status != 0:
		return true
	case errors.As(err, &dial) && dial.Op == "dial":
		return false
	}
	var timeout net.Error
	return f.Temporary && !(errors.As(err, &timeout) && timeout.Timeout())
}

func (o *HTTP) stat(ctx context.Context, method, name string) (Object, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := o.request(ctx, method, name)
	if err != nil {
		return Object{}, err
	}
	if method == http.MethodGet {
		req.Header.Set("Range", "bytes=0-0")
	}
	resp, err := o.do(req)
	if err != nil {
		return Object{}, err
	}
	body := &httpBody{ctx: ctx, rc: resp.Body, cancel: cancel, idle: o.cfg.IdleTimeout}
	defer body.Close()
	if resp.StatusCode != http.StatusOK { // a 200 has the whole image as its body
		body.drain()
	}
	size, ok := statSize(method, resp)
	if !ok {
		return Object{}, o.statusError(resp)
	}
	if err := checkCoding(o.cfg.Name, name, resp.Header); err != nil {
		return Object{}, err
	}
	return o.object(name, resp, size), nil
}

// statSize returns the length of the image, or -1, from an answer to HEAD or to a
// GET of the first byte. ok says that the answer describes an image.
func statSize(method string, resp *http.Response) (size int64, ok bool) {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return resp.ContentLength, true
	case method == http.MethodGet && code == http.StatusPartialContent:
		r, err := parseContentRange(resp.Header.Get("Content-Range"))
		return r.total, err == nil && r.first == 0
	case method == http.MethodGet && code == http.StatusRequestedRangeNotSatisfiable:
		// An empty image has no first byte, so the answer is a 416.
		r, err := parseContentRange(resp.Header.Get("Content-Range"))
		return 0, err == nil && r.total == 0
	}
	return -1, false
}
