package httpd

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/imgcache/imgcache-host/host/cache"
)

func (s *Service) beginWrite(w http.ResponseWriter, r *http.Request) {
	var o cache.WriteOptions
	err := decode(w, r, &o)
	if err == nil {
		err = checkWrite(o)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	status, err := s.engine.BeginWrite(r.Context(), o)
	if err != nil {
		s.fail(w, r, err)
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

// writeData appends the body to a write. A client that disagrees about the
// offset is told the right one.
func (s *Service) writeData(w http.ResponseWriter, r *http.Request) {
	offset := int64(-1)
	if q := r.URL.Query(); q.Has("offset") {
		var err error
		offset, err = strconv.ParseInt(q.Get("offset"), 10, 64)
		if err != nil || offset < 0 {
			s.fail(w, r, fmt.Errorf("%w: offset must be a number of bytes", errBadRequest))
			return
		}
	}
	status, err := s.engine.WriteData(r.Context(), r.PathValue("w"), offset, r.Body)
	if errors.Is(err, cache.ErrConflict) {
		s.failWith(w, err, struct {
			errorBody
			Offset int64 `json:"offset"`
		}{errorBody{err.Error()}, status.Offset})
		return
	}
	s.answerNothing(w, r, err)
}

func (s *Service) showWrite(w http.ResponseWriter, r *http.Request) {
	status, err := s.engine.WriteState(r.PathValue("w"))
	s.answer(w, r, status, err)
}

func (s *Service) commitWrite(w http.ResponseWriter, r *http.Request) {
	info, err := s.engine.CommitWrite(r.Context(), r.PathValue("w"))
	s.answer(w, r, info, err)
}

func (s *Service) abortWrite(w http.ResponseWriter, r *http.Request) {
	s.answerNothing(w, r, s.engine.AbortWrite(r.Context(), r.PathValue("w")))
}
