package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"
)

// maxJSON is the longest JSON body: the largest that makes sense is below a
// kilobyte.
const maxJSON = 1 << 20

// uploadBody is the body of r as the engine may read it: it fails when the
// client sends nothing for as long as bodyStall, and says whose fault its
// errors are.
type uploadBody struct {
	body    io.Reader
	control *http.ResponseController
	stall   time.Duration
}

func (s *Service) uploadBody(w http.ResponseWriter, r *http.Request) *uploadBody {
	return &uploadBody{body: r.Body, control: http.NewResponseController(w), stall: s.bodyStall}
}

// Read implements [io.Reader].
func (b *uploadBody) Read(p []byte) (int, error) {
	// Writers that know no deadlines, as in tests, have no connection.
	_ = b.control.SetReadDeadline(time.Now().Add(b.stall))
	n, err := b.body.Read(p)
	// From here on net/http reads to learn when the client leaves; a deadline
	// would end that, and with it the request.
	_ = b.control.SetReadDeadline(time.Time{})
	var tooLong *http.MaxBytesError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case errors.As(err, &tooLong):
		return n, fmt.Errorf("%w: at most %d bytes", errTooLarge, tooLong.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, fmt.Errorf("%w: no byte for %v", errBodyStalled, b.stall)
	case errors.Is(err, context.Canceled):
		return n, err
	default:
		return n, fmt.Errorf("%w: %w", errBodyBroken, err)
	}
}

// decode reads the JSON object in the body of r into v, a pointer to a struct.
// An empty body leaves v as it is.
func (s *Service) decode(w http.ResponseWriter, r *http.Request, v any) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxJSON)
	d := json.NewDecoder(s.uploadBody(w, r))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return explain(err, v)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows the JSON object", errBadRequest)
	}
	return nil
}

// explain says what is wrong with a body in words that help whoever wrote it.
func explain(err error, v any) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.Is(err, errTooLarge), errors.Is(err, errBodyStalled), errors.Is(err, errBodyBroken):
		return err
	case errors.As(err, &wrong) && wrong.Field == "":
		return fmt.Errorf("%w: the body must be a JSON object, not a JSON %s", errBadRequest, wrong.Value)
	case errors.As(err, &wrong):
		return fmt.Errorf("%w: %q cannot be a JSON %s", errBadRequest, wrong.Field, wrong.Value)
	}
	// encoding/json has no type for this error.
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("%w: unknown field %s; there are %s", errBadRequest, name, strings.Join(fields(v), ", "))
	}
	return fmt.Errorf("%w: the body is no JSON: %w", errBadRequest, err)
}

// fields lists the names that JSON has for the fields of the struct that v
// points to.
func fields(v any) []string {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeOf(v).Elem()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}
