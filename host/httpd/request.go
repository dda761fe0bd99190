package httpd

import (
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

// stallingBody is the body of a request, which fails when the client sends
// nothing for as long as stall, and whose errors say whose fault they are.
type stallingBody struct {
	io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
}

// withDeadline returns r with a body that may not stall. The first deadline is
// set at once: it also bounds how long net/http waits for the rest of a body
// that no handler reads.
func withDeadline(w http.ResponseWriter, r *http.Request, stall time.Duration) *http.Request {
	b := &stallingBody{ReadCloser: r.Body, control: http.NewResponseController(w), stall: stall}
	b.arm(stall)
	r = r.WithContext(r.Context()) // net/http goes by the type of the body in its own request
	r.Body = b
	return r
}

// arm sets the deadline; 0 takes it away. Tests without a connection have none.
func (b *stallingBody) arm(d time.Duration) {
	var at time.Time
	if d > 0 {
		at = time.Now().Add(d)
	}
	_ = b.control.SetReadDeadline(at)
}

// Read implements [io.Reader].
func (b *stallingBody) Read(p []byte) (int, error) {
	b.arm(b.stall)
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		// From here on net/http reads in order to learn when the client
		// leaves; a deadline would look as if it had.
		b.arm(0)
		return n, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, fmt.Errorf("%w: no byte for %v", errBodyStalled, b.stall)
	default:
		return n, fmt.Errorf("%w: %w", errBodyBroken, err)
	}
}

// decode reads the JSON object in the body of r into v, a pointer to a struct.
// An empty body leaves v as it is.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxJSON)
	d := json.NewDecoder(r.Body)
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
	var tooLarge *http.MaxBytesError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return fmt.Errorf("%w: at most %d bytes", errTooLarge, tooLarge.Limit)
	case errors.Is(err, errBodyStalled), errors.Is(err, errBodyBroken):
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
