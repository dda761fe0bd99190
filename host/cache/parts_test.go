package cache

import (
	"bytes"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
)

// TestRangesOfWhatIsNotStored: ranges of an image that is not stored cost these
// ranges, whatever its validator, and are counted as fetched.
func TestRangesOfWhatIsNotStored(t *testing.T) {
	big := bigContent(3)
	for _, tt := range []struct {
		what   string
		fields []string
		max    int64
	}{
		{"too large, a time", []string{"Last-Modified", monday}, 1 << 20},
		{"too large, a weak ETag", []string{"ETag", `W/"a"`}, 1 << 20},
		{"too large, a digest", []string{"Repr-Digest", sha256Field(big)}, 1 << 20},
		{"no-store, a strong ETag", []string{"ETag", `"a"`, "Cache-Control", "no-store"}, 0},
		{"no-store, an ETag without quotes", []string{"ETag", `a`, "Cache-Control", "no-store"}, 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			inWeb(t, webConfig{options: options.Options{MaxImageSize: tt.max}}, image(big, tt.fields...), func(t *testing.T, w *web) {
				part := func(off, n int64) {
					t.Helper()
					ctx := WithRange(t.Context())
					k, err := w.Open(ctx, "image")
					if err != nil {
						t.Fatal(err)
					}
					defer k.Close()
					var got bytes.Buffer
					if m, err := k.CopyTo(ctx, &got, off, n); err != nil || m != n || !bytes.Equal(got.Bytes(), big[off:off+n]) {
						t.Errorf("%d bytes from %d: %d, right: %v, %v", n, off, m, bytes.Equal(got.Bytes(), big[off:off+n]), err)
					}
				}
				part(0, 1000) // with which it is found out
				synctest.Wait()
				w.mu.Lock()
				begun := w.sent
				w.mu.Unlock()
				fetched := w.Usage().BytesFetched
				for i := range int64(10) {
					part(i<<19+100, 64<<10)
				}
				synctest.Wait()
				w.mu.Lock()
				defer w.mu.Unlock()
				if sent := w.sent - begun; sent != 640<<10 {
					t.Errorf("ten ranges of 64 KiB: the origin sent %d bytes", sent)
				}
				if n := w.Usage().BytesFetched - fetched; n != 640<<10 {
					t.Errorf("ten ranges of 64 KiB: %d bytes are counted", n)
				}
			})
		})
	}
}

// TestRangeOfAnotherVersion: a range is of the version that the client was told
// of, or fails; also where the length is all that is known.
func TestRangeOfAnotherVersion(t *testing.T) {
	big := bigContent(3)
	for _, tt := range []struct {
		what     string
		old, new []string
		cut      int // bytes that the new one is shorter
	}{
		{"strong ETags", []string{"ETag", `"a"`}, []string{"ETag", `"b"`}, 0},
		{"weak ETags", []string{"ETag", `W/"a"`}, []string{"ETag", `W/"b"`}, 0},
		{"times", []string{"Last-Modified", monday}, []string{"Last-Modified", tuesday}, 0},
		{"lengths", nil, nil, 1},
	} {
		t.Run(tt.what, func(t *testing.T) {
			inWeb(t, webConfig{options: options.Options{MaxImageSize: 1 << 20}}, image(big, tt.old...), func(t *testing.T, w *web) {
				ctx := WithRange(t.Context())
				k, err := w.Open(ctx, "image")
				if err != nil {
					t.Fatal(err)
				}
				defer k.Close()
				w.answer(image(bigContent(4)[tt.cut:], tt.new...))
				var got bytes.Buffer
				if _, err := k.CopyTo(ctx, &got, 2<<20, 1000); !errors.Is(err, origin.ErrChanged) || got.Len() > 0 {
					t.Errorf("%d bytes, %v; expected %v", got.Len(), err, origin.ErrChanged)
				}
			})
		})
	}
}

// TestCodings: a label that only repeats the name is about the file; any other one
// is refused, on HEAD as on GET.
func TestCodings(t *testing.T) {
	for _, tt := range []struct {
		name, coding string
		served       bool
	}{
		{"disk.tgz", "gzip", true},
		{"disk.img.xz", "xz", true},
		{"disk.qcow2.zst", "zstd", true},
		{"disk.tar.bz2", "x-bzip2", true},
		{"DISK.IMG.GZ", "X-GZip", true},
		{"disk.img.gz", "identity", true},
		{"disk.img", "gzip", false},
		{"disk.img.gz", "br", false},
		{"disk.img.gz", "gzip, gzip", false},
		{"disk.gz.img", "gzip", false},
	} {
		t.Run(tt.name+" "+tt.coding, func(t *testing.T) {
			inWeb(t, webConfig{}, image(oldImage, "ETag", `"a"`, "Content-Encoding", tt.coding, "Content-Length", "160000"), func(t *testing.T, w *web) {
				for _, when := range []string{"cold", "again"} {
					k, err := w.Stat(t.Context(), tt.name)
					switch {
					case !tt.served && !errors.Is(err, origin.ErrUnavailable):
						t.Errorf("%s: HEAD: %v", when, err)
					case tt.served && (err != nil || k.Info().Size != int64(len(oldImage))):
						t.Errorf("%s: HEAD: %+v, %v", when, k, err)
					}
					if tt.served {
						w.wants(when, tt.name, oldImage)
					} else {
						w.fails(when, tt.name, origin.ErrUnavailable)
					}
				}
			})
		})
	}
}

// TestSignedElsewhere: an origin sends each request to an address that is good for
// GET alone, and for a while.
func TestSignedElsewhere(t *testing.T) {
	big := bigContent(5)
	for _, refusal := range []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusGone} {
		cuts := 2
		signed := func(w http.ResponseWriter, r *http.Request) {
			at, err := time.Parse(time.RFC3339Nano, r.URL.Query().Get("until"))
			if err != nil || r.Method != http.MethodGet || time.Now().After(at) {
				status(refusal)(w, r)
				return
			}
			if cuts--; cuts >= 0 && r.Header.Get("Range") != "bytes=0-0" {
				w = &cutWriter{ResponseWriter: w, left: 1 << 20}
			}
			image(big, "ETag", `"a"`)(w, r)
		}
		redirect := func(w http.ResponseWriter, r *http.Request) {
			if r.Host == "localhost" {
				signed(w, r)
				return
			}
			until := time.Now().Add(50 * time.Millisecond) // a retry comes after it
			http.Redirect(w, r, "http://localhost"+r.URL.Path+"?until="+until.Format("2006-01-02T15:04:05.999999999Z"), http.StatusFound)
		}
		inWeb(t, webConfig{terms: origin.Terms{RevalidateAfter: trusted}}, redirect, func(t *testing.T, w *web) {
			w.wants("cut after the address has expired", "image", big)
			time.Sleep(trusted)
			if out := w.wants("due", "image", big); !out.Hit || out.Detail != "" {
				t.Errorf("refused with %d, and due: %+v", refusal, out)
			}
			if k, err := w.Stat(t.Context(), "other"); err != nil || k.Info().Size != int64(len(big)) {
				t.Errorf("refused with %d: HEAD of another image: %v", refusal, err)
			}
		})
	}
}

// cutWriter breaks the connection off behind some bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return c.ResponseWriter.Write(p)
}
