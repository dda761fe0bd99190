package cache

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
)

// TestFollowersOfWhatCannotBeFollowed: several clients ask for an image that is
// not stored, and of which nobody can ask for the rest: each gets all of it, or an
// error before its first byte.
func TestFollowersOfWhatCannotBeFollowed(t *testing.T) {
	big := bigContent(7)
	slowly := func(w http.ResponseWriter) {
		for at := 0; at < len(big); at += 1 << 20 {
			_, _ = w.Write(big[at:min(at+1<<20, len(big))])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	}
	sized := func(fields ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			image(nil, fields...)(&discard{w.Header()}, r)
			w.Header().Set("Content-Length", strconv.Itoa(len(big)))
			slowly(w)
		}
	}
	chunked := func(fields ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			image(nil, fields...)(&discard{w.Header()}, r)
			w.Header().Del("Content-Length")
			if r.Method == http.MethodGet {
				slowly(w)
			}
		}
	}
	for _, tt := range []struct {
		what    string
		answers http.HandlerFunc
		options options.Options
	}{
		{"chunks, a weak ETag, larger than the cache", chunked("ETag", `W/"a"`), options.Options{MaxSize: 4 << 20}},
		{"chunks, no validator, above max_image_size", chunked(), options.Options{MaxImageSize: 3 << 20}},
		{"a length, no validator, larger than the cache", sized(), options.Options{MaxSize: 4 << 20}},
		{"a length, an ETag without quotes, above max_image_size", sized("ETag", `x`), options.Options{MaxImageSize: 3 << 20}},
		{"a length, a weak ETag, no-store", sized("ETag", `W/"a"`, "Cache-Control", "no-store"), options.Options{}},
		{"the end of the connection", toTheEnd(big, len(big), -1), options.Options{}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			inWeb(t, webConfig{options: tt.options}, tt.answers, func(t *testing.T, w *web) {
				delay := make(chan time.Duration, 5)
				for i := range 5 {
					delay <- time.Duration(i) * 20 * time.Millisecond
				}
				whole := make(chan bool, 5)
				together(5, func() {
					time.Sleep(<-delay)
					got, out, err := w.get(t.Context(), "image")
					if err != nil && len(got) > 0 || err == nil && !bytes.Equal(got, big) {
						t.Errorf("a client got %d of %d bytes, %+v, %v", len(got), len(big), out, err)
					}
					whole <- err == nil
				})
				n := 0
				for range 5 {
					if <-whole {
						n++
					}
				}
				if n == 0 {
					t.Error("no client got the image")
				}
				if u := w.Usage(); u.Images != 0 || u.Bytes != 0 {
					t.Errorf("it is stored: %+v", u)
				}
			})
		})
	}
}

// discard takes the fields of an answer alone.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// toTheEnd sends n bytes of a body that its connection ends, as HTTP/1.0 does; HEAD
// tells a length, or refuses when that is negative.
func toTheEnd(body []byte, n, length int, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			if length < 0 {
				w.WriteHeader(http.StatusNotImplemented)
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(length))
			return
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = buf.WriteString("HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n")
		for i := 0; i < len(fields); i += 2 {
			fmt.Fprintf(buf, "%s: %s\r\n", fields[i], fields[i+1])
		}
		_, _ = buf.WriteString("\r\n")
		_, _ = buf.Write(body[:n])
		_ = buf.Flush()
	}
}

// TestTruncation: a body without a length that is cut is not stored, and nobody
// who could know takes it for whole.
func TestTruncation(t *testing.T) {
	third := len(oldImage) / 3
	digest := []string{"Repr-Digest", sha256Field(oldImage)}
	chunks := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(oldImage[:third])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	for _, tt := range []struct {
		what     string
		cut      http.HandlerFunc
		whole    http.HandlerFunc
		passedOn bool // nobody can know
		stored   bool // when it comes whole
	}{
		{"HEAD tells the length", toTheEnd(oldImage, third, len(oldImage)), toTheEnd(oldImage, len(oldImage), len(oldImage)), false, true},
		{"HEAD tells a length, and one byte is missing", toTheEnd(oldImage, len(oldImage)-1, len(oldImage)), toTheEnd(oldImage, len(oldImage), len(oldImage)), false, true},
		{"a digest", toTheEnd(oldImage, third, -1, digest...), toTheEnd(oldImage, len(oldImage), -1, digest...), false, true},
		{"chunks without the last one", chunks, image(oldImage), false, true},
		{"nothing tells", toTheEnd(oldImage, third, -1), toTheEnd(oldImage, len(oldImage), -1), true, false},
		{"HEAD tells 0", toTheEnd(oldImage, third, 0), toTheEnd(oldImage, len(oldImage), 0), true, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			inWeb(t, webConfig{terms: origin.Terms{RevalidateAfter: trusted}}, tt.cut, func(t *testing.T, w *web) {
				for range 2 {
					got, out, err := w.get(t.Context(), "image")
					if out.Hit || (err == nil) != tt.passedOn {
						t.Errorf("cut: %d bytes, %+v, %v", len(got), out, err)
					}
					if err == nil && out.Detail != DetailLengthUnknown {
						t.Errorf("passed on: %+v", out)
					}
				}
				w.answer(tt.whole)
				w.wants("whole", "image", oldImage)
				if out := w.wants("again", "image", oldImage); out.Hit != tt.stored {
					t.Errorf("again: %+v, expected a hit: %v", out, tt.stored)
				}
			})
		})
	}
}
