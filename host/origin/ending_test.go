package origin_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/imgcache/imgcache-host/host/origin"
)

// closeDelimited answers GET with a body that only the end of the connection
// ends, and other requests as it is told.
func closeDelimited(t *testing.T, fields string, body []byte, head http.HandlerFunc) *origin.HTTP {
	t.Helper()
	url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead || r.Header.Get("Range") != "" {
			head(w, r)
			return
		}
		conn, out, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(out, "HTTP/1.1 200 OK\r\nConnection: close\r\n%s\r\n%s", fields, body)
		out.Flush()
	})
	return at(t, url)
}

// says makes an answer without a body.
func says(status int, fields string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range header(fields) {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
	}
}

// TestOpenEnd checks that a body which ends with its connection is whole only
// where something else says so.
func TestOpenEnd(t *testing.T) {
	data := random(1, 100_000)
	sum := md5.Sum(data)
	digest := "Content-MD5: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n"
	for _, c := range []struct {
		what    string
		fields  string
		body    []byte
		head    http.HandlerFunc
		size    int64
		refused origin.Refusal
		whole   bool
	}{
		{"a whole body of which HEAD says the length", "", data, says(200, "Content-Length: 100000"), 100_000, "", true},
		{"a third of it", "", data[:33_333], says(200, "Content-Length: 100000"), 100_000, "", false},
		{"all but a byte", "", data[:99_999], says(200, "Content-Length: 100000"), 100_000, "", false},
		{"more than HEAD says", "", data, says(200, "Content-Length: 99999"), 99_999, "", false},
		{"HEAD is refused, a part says the length", "", data, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			part(w, 100_000)
		}, 100_000, "", true},
		{"HEAD says nothing", "", data, says(200, "Transfer-Encoding: chunked"), -1, origin.RefusedEnd, true},
		{"HEAD says 0", "", data, says(200, "Content-Length: 0"), -1, origin.RefusedEnd, true},
		{"HEAD fails", "", data, says(500, ""), -1, origin.RefusedEnd, true},
		{"HEAD is about another version", "ETag: \"1\"\r\n", data, says(200, `ETag: "2"|Content-Length: 100000`), -1, origin.RefusedEnd, true},
		{"HEAD is about the same version", "ETag: \"1\"\r\n", data, says(200, `ETag: "1"|Content-Length: 100000`), 100_000, "", true},
		{"HEAD fails and there is a digest", digest, data, says(500, ""), -1, "", true},
	} {
		o := closeDelimited(t, c.fields, c.body, c.head)
		got, obj, err := fetch(o, origin.Request{Name: "a", Length: -1})
		if obj.Size != c.size || obj.Refused != c.refused || !obj.OpenEnded {
			t.Errorf("%s: %d bytes, refused as %q, want %d and %q", c.what, obj.Size, obj.Refused, c.size, c.refused)
		}
		if c.whole && (err != nil || !bytes.Equal(got, data)) || !c.whole && !errors.Is(err, origin.ErrUnavailable) {
			t.Errorf("%s: %d bytes, %v", c.what, len(got), err)
		}
	}
}

// TestFramedEnd checks that a body whose end is marked needs nobody's word.
func TestFramedEnd(t *testing.T) {
	data := random(1, 100_000)
	for _, chunked := range []bool{false, true} {
		s := newServer(t, data)
		s.chunked = chunked
		obj := expect(t, s.origin(t), origin.Request{Name: "a", Length: -1}, data)
		if obj.OpenEnded || obj.Refused != "" || len(s.seen()) != 1 {
			t.Errorf("chunked %v: %+v after %d questions", chunked, obj, len(s.seen()))
		}
	}
}
