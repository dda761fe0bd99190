package httpd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/imgcache/imgcache-host/host/cache"
)

// Writes is what the native API does to take images in from clients. A write
// has a name, which BeginWrite gives; the error of the other methods wraps
// cache.ErrNotFound when there is none of that name, or none any more.
type Writes interface {
	// BeginWrite begins to take an image in. The error wraps cache.ErrBadID for
	// an id that does not follow the grammar of ids, cache.ErrConflict when the
	// image is cached, filling or being written, cache.ErrNoSpace when there can
	// be no room, cache.ErrVerify for a digest that can be none, and
	// sdk.ErrUnavailable while too many images are being written.
	BeginWrite(ctx context.Context, o cache.WriteOptions) (cache.WriteStatus, error)
	// WriteData appends what r yields, which must belong at offset; offset < 0
	// means at the end. The status says how far the write is now, also after an
	// error. The error wraps cache.ErrConflict when the write continues at
	// another offset, cache.ErrVerify for more bytes than were declared, and
	// cache.ErrNoSpace when there is no room for them. The write goes on all the
	// same.
	WriteData(ctx context.Context, write string, offset int64, r io.Reader) (cache.WriteStatus, error)
	// WriteState says how far a write is.
	WriteState(write string) (cache.WriteStatus, error)
	// CommitWrite makes what was written a cached image. The error wraps
	// cache.ErrVerify when size or digests are not those declared, and
	// cache.ErrConflict when the image was cached meanwhile. After a conflict
	// the write goes on; after any other error it has ended, and its file went
	// to invalid/.
	CommitWrite(ctx context.Context, write string) (cache.ImageInfo, error)
	// AbortWrite ends a write. What was written goes to invalid/.
	AbortWrite(ctx context.Context, write string) error
}

// writesAPI are the handlers of writes.
type writesAPI struct {
	answerer
	writes Writes
}

func (a writesAPI) begin(w http.ResponseWriter, r *http.Request) {
	var o cache.WriteOptions
	err := decode(w, r, &o)
	if err == nil {
		err = checkWrite(o)
	}
	if err == nil {
		o.ID, err = a.knownAs(o.ID)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	status, err := a.writes.BeginWrite(r.Context(), o)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("Location", "/v1/writes/"+status.Write)
	writeJSON(w, http.StatusCreated, status)
}

// checkWrite says what is wrong with a write that can never be committed.
func checkWrite(o cache.WriteOptions) error {
	if o.ID == "" {
		return fmt.Errorf("%w: id is missing", errBadRequest)
	}
	if o.Size != nil && *o.Size < 0 {
		return fmt.Errorf("%w: size must not be negative", errBadRequest)
	}
	for _, d := range []struct {
		name, sum string
		bytes     int
	}{{"md5", o.MD5, 16}, {"sha256", o.SHA256, 32}, {"sha512", o.SHA512, 64}} {
		if sum, err := hex.DecodeString(d.sum); d.sum != "" && (err != nil || len(sum) != d.bytes) {
			return fmt.Errorf("%w: %s must be %d hexadecimal digits", errBadRequest, d.name, 2*d.bytes)
		}
	}
	return nil
}

// append appends the body to a write. A client that disagrees about the
// offset is told the right one.
func (a writesAPI) append(w http.ResponseWriter, r *http.Request) {
	offset := int64(-1)
	if q := r.URL.Query(); q.Has("offset") {
		var err error
		offset, err = strconv.ParseInt(q.Get("offset"), 10, 64)
		if err != nil || offset < 0 {
			a.fail(w, r, fmt.Errorf("%w: offset must be a number of bytes", errBadRequest))
			return
		}
	}
	status, err := a.writes.WriteData(r.Context(), r.PathValue("w"), offset, r.Body)
	if errors.Is(err, cache.ErrConflict) {
		failWith(w, err, struct {
			errorBody
			Offset int64 `json:"offset"`
		}{errorBody{err.Error()}, status.Offset})
		return
	}
	a.answerNothing(w, r, err)
}

func (a writesAPI) show(w http.ResponseWriter, r *http.Request) {
	status, err := a.writes.WriteState(r.PathValue("w"))
	a.answer(w, r, status, err)
}

func (a writesAPI) commit(w http.ResponseWriter, r *http.Request) {
	info, err := a.writes.CommitWrite(r.Context(), r.PathValue("w"))
	a.answer(w, r, info, err)
}

func (a writesAPI) abort(w http.ResponseWriter, r *http.Request) {
	a.answerNothing(w, r, a.writes.AbortWrite(r.Context(), r.PathValue("w")))
}
