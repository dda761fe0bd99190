package cache

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

const trusted = time.Minute

// TestFreshnessThroughTheEngine replaces what an origin says of an image, or the
// image, and asks when that is due: what has changed is fetched, and nothing else.
func TestFreshnessThroughTheEngine(t *testing.T) {
	longer := append(bytes.Clone(oldImage), "longer"...)
	for _, tt := range []struct {
		what      string
		old, new  []string // fields
		bytes     []byte
		refetched bool
	}{
		{"a weak ETag differs", []string{"ETag", `W/"a"`}, []string{"ETag", `W/"b"`}, newImage, true},
		{"an ETag without quotes differs", []string{"ETag", `5-1a`}, []string{"ETag", `5-1b`}, newImage, true},
		{"an ETag in single quotes differs", []string{"ETag", `'a'`}, []string{"ETag", `'b'`}, newImage, true},
		{"the time is a later one", []string{"Last-Modified", monday}, []string{"Last-Modified", tuesday}, newImage, true},
		{"the time is an earlier one", []string{"Last-Modified", tuesday}, []string{"Last-Modified", monday}, newImage, true},
		{"only the length differs", nil, nil, longer, true},
		{"the length and the time differ", []string{"Last-Modified", monday}, []string{"Last-Modified", tuesday}, longer, true},
		{"the length differs and the ETag does not", []string{"ETag", `W/"a"`}, []string{"ETag", `W/"a"`}, longer, true},
		{"nothing can be compared", []string{"ETag", `"a"`}, []string{"Last-Modified", monday}, newImage, true},
		{"the ETag is another one of the same digest", []string{"ETag", `"a"`, "Repr-Digest", sha256Field(oldImage)}, []string{"ETag", `"b"`, "Repr-Digest", sha256Field(oldImage)}, oldImage, false},
		{"a strong ETag became a weak one", []string{"ETag", `"a"`}, []string{"ETag", `W/"a"`}, oldImage, false},
		{"the ETag is gone and the time the same", []string{"ETag", `"a"`, "Last-Modified", monday}, []string{"Last-Modified", monday}, oldImage, false},
		{"the time has come and the ETag is the same", []string{"ETag", `"a"`}, []string{"ETag", `"a"`, "Last-Modified", monday}, oldImage, false},
		{"the time differs and the ETag does not", []string{"ETag", `"a"`, "Last-Modified", monday}, []string{"ETag", `"a"`, "Last-Modified", tuesday}, oldImage, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			inWeb(t, webConfig{terms: origin.Terms{RevalidateAfter: trusted}}, image(oldImage, tt.old...), func(t *testing.T, w *web) {
				w.wants("cold", "image", oldImage)
				w.answer(image(tt.bytes, tt.new...))
				w.wants("trusted", "image", oldImage)
				w.wantAsked("until it is due", "GET")
				time.Sleep(trusted)
				out := w.wants("due", "image", tt.bytes)
				if out.Hit == tt.refetched || out.Detail == DetailStale {
					t.Errorf("due: %+v, expected it to be fetched again: %v", out, tt.refetched)
				}
				if want := []string{"HEAD", "GET"}; tt.refetched {
					w.wantAsked("due", want...)
				} else {
					w.wantAsked("due", want[:1]...)
				}
			})
		})
	}
}

func sha256Field(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

func sha512Field(b []byte) string {
	sum := sha512.Sum512(b)
	return "sha-512=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// TestDigestIsNoPromise replaces and withdraws images of which a digest is
// declared: that is noticed, unless the origin is said to be immutable.
func TestDigestIsNoPromise(t *testing.T) {
	glance := func(b []byte) string { return fmt.Sprintf("%x", md5.Sum(b)) }
	for _, tt := range []struct {
		field string
		value func([]byte) string
	}{{"Repr-Digest", sha256Field}, {"Repr-Digest", sha512Field}, {"Content-MD5", glance}} {
		for _, immutable := range []bool{false, true} {
			inWeb(t, webConfig{terms: origin.Terms{RevalidateAfter: trusted, Immutable: immutable}}, image(oldImage, tt.field, tt.value(oldImage)), func(t *testing.T, w *web) {
				w.wants("cold", "image", oldImage)
				w.answer(image(newImage, tt.field, tt.value(newImage)))
				time.Sleep(trusted)
				if immutable {
					w.wants("immutable", "image", oldImage)
					w.answer(status(http.StatusNotFound))
					time.Sleep(100 * trusted)
					w.wants("immutable and withdrawn", "image", oldImage)
					w.wantAsked("immutable", "GET")
					return
				}
				w.wants("replaced", "image", newImage)
				w.answer(status(http.StatusGone))
				time.Sleep(trusted)
				w.fails("withdrawn", "image", origin.ErrNotFound)
			})
		}
	}
}

// TestHeadIsRefused: whatever an origin answers to HEAD, its GET decides.
func TestHeadIsRefused(t *testing.T) {
	for _, tt := range []struct {
		what string
		head http.HandlerFunc
	}{
		{"401", status(http.StatusUnauthorized)},
		{"410", status(http.StatusGone)},
		{"405", status(http.StatusMethodNotAllowed)},
		{"501", status(http.StatusNotImplemented)},
		{"502", status(http.StatusBadGateway)},
		{"416", status(http.StatusRequestedRangeNotSatisfiable)},
		{"a reset connection", reset},
		{"a length of 0", image(nil, "ETag", `"a"`)},
	} {
		t.Run(tt.what, func(t *testing.T) {
			get := image(oldImage, "ETag", `"a"`)
			inWeb(t, webConfig{terms: origin.Terms{RevalidateAfter: trusted, NegativeTTL: time.Hour}}, byMethod(tt.head, get), func(t *testing.T, w *web) {
				k, err := w.Stat(t.Context(), "image")
				if err != nil || k.Info().Size != int64(len(oldImage)) {
					t.Fatalf("HEAD of a client: %+v, %v", k, err)
				}
				w.wants("GET after HEAD", "image", oldImage)
				time.Sleep(trusted)
				if out := w.wants("due", "image", oldImage); !out.Hit || out.Detail != "" {
					t.Errorf("due: %+v, expected a hit that is confirmed", out)
				}
			})
		})
	}
}

// TestStampede: forty hits that become due at once cost one question, and one
// transfer if the image has changed.
func TestStampede(t *testing.T) {
	slowly := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			h(w, r)
		}
	}
	for _, tt := range []struct {
		what   string
		terms  origin.Terms
		then   http.HandlerFunc
		want   []byte
		detail Detail
		asked  []string
	}{
		{"unchanged", origin.Terms{}, image(oldImage, "ETag", `"a"`), oldImage, "", []string{"HEAD"}},
		{"replaced", origin.Terms{}, image(newImage, "ETag", `"b"`), newImage, "", []string{"HEAD", "GET"}},
		{"down", origin.Terms{}, status(http.StatusTooManyRequests), oldImage, DetailStale, []string{"HEAD"}},
		{"silent", origin.Terms{}, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, oldImage, DetailStale, []string{"HEAD"}},
		{"behind", origin.Terms{Revalidate: origin.RevalidateBehind}, image(oldImage, "ETag", `"a"`), oldImage, DetailStale, []string{"HEAD"}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			tt.terms.RevalidateAfter = trusted
			inWeb(t, webConfig{terms: tt.terms}, image(oldImage, "ETag", `"a"`), func(t *testing.T, w *web) {
				w.wants("cold", "image", oldImage)
				w.wantAsked("cold", "GET")
				time.Sleep(trusted)
				w.answer(slowly(tt.then))
				together(40, func() {
					got, out, err := w.get(t.Context(), "image")
					if err != nil || !bytes.Equal(got, tt.want) || out.Detail != tt.detail {
						t.Errorf("%d bytes, right: %v, %+v, %v", len(got), bytes.Equal(got, tt.want), out, err)
					}
				})
				time.Sleep(2 * time.Second)
				w.wantAsked("forty hits", tt.asked...)
			})
		})
	}
}

// TestPauses: an origin that cannot answer is left alone for a while, which grows,
// and hits do not wait for it meanwhile.
func TestPauses(t *testing.T) {
	for _, tt := range []struct {
		what  string
		down  http.HandlerFunc
		pause time.Duration // the first
	}{
		{"429", status(http.StatusTooManyRequests), 10 * time.Second},
		{"429 with Retry-After", status(http.StatusTooManyRequests, "Retry-After", "45"), 45 * time.Second},
		{"silence", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 10 * time.Second},
	} {
		t.Run(tt.what, func(t *testing.T) {
			inWeb(t, webConfig{terms: origin.Terms{RevalidateAfter: time.Second}}, image(oldImage, "ETag", `"a"`), func(t *testing.T, w *web) {
				w.wants("cold", "image", oldImage)
				time.Sleep(time.Second)
				w.answer(tt.down)
				w.wants("the first hit", "image", oldImage)
				w.wantAsked("the first hit", "GET", "HEAD")
				for end := time.Now().Add(tt.pause - time.Millisecond); time.Now().Before(end); time.Sleep(time.Second) {
					begun := time.Now()
					if out := w.wants("a hit", "image", oldImage); out.Detail != DetailStale {
						t.Errorf("a hit in the pause: %+v", out)
					}
					if waited := time.Since(begun); waited > 0 {
						t.Errorf("a hit in the pause waits for %v", waited)
					}
				}
				w.wantAsked("the pause")
				w.wants("a hit after the pause", "image", oldImage)
				w.wantAsked("after the pause", "HEAD")
				time.Sleep(tt.pause)
				if tt.pause == 10*time.Second { // the second one is longer
					w.wants("a hit in the second pause", "image", oldImage)
					w.wantAsked("the second pause")
				}
				w.answer(image(oldImage, "ETag", `"a"`))
				time.Sleep(time.Minute)
				if out := w.wants("well again", "image", oldImage); out.Detail != "" {
					t.Errorf("well again: %+v", out)
				}
			})
		})
	}
}

// TestBehind: with revalidate = "behind" no hit waits, and one alone gets what the
// origin has replaced or withdrawn.
func TestBehind(t *testing.T) {
	for _, tt := range []struct {
		what string
		then http.HandlerFunc
		want []byte
		err  error
	}{
		{"replaced, by ETag", image(newImage, "ETag", `"b"`), newImage, nil},
		{"replaced, by length", image(newImage[4:]), newImage[4:], nil},
		{"withdrawn", status(http.StatusNotFound), nil, origin.ErrNotFound},
		{"denied", status(http.StatusForbidden), nil, origin.ErrDenied},
	} {
		t.Run(tt.what, func(t *testing.T) {
			inWeb(t, webConfig{terms: origin.Terms{RevalidateAfter: trusted, Revalidate: origin.RevalidateBehind}}, image(oldImage, "ETag", `"a"`), func(t *testing.T, w *web) {
				w.wants("cold", "image", oldImage)
				time.Sleep(trusted)
				w.answer(tt.then)
				begun := time.Now()
				if out := w.wants("the first hit that is due", "image", oldImage); out.Detail != DetailStale || time.Since(begun) > 0 {
					t.Errorf("the first hit waits for %v: %+v", time.Since(begun), out)
				}
				for range 3 {
					if tt.err != nil {
						w.fails("the hits after it", "image", tt.err)
					} else {
						w.wants("the hits after it", "image", tt.want)
					}
				}
			})
		})
	}
}

// TestOnDenied: an answer that speaks of our credential says nothing of the image.
func TestOnDenied(t *testing.T) {
	token := map[string]string{"Authorization": "Bearer t1"}
	for _, tt := range []struct {
		what    string
		code    int
		headers map[string]string
		on      origin.OnDenied
		served  bool
	}{
		{"401", http.StatusUnauthorized, nil, origin.DeniedServeStale, true},
		{"401 to a token", http.StatusUnauthorized, token, origin.DeniedServeStale, true},
		{"403 to a token", http.StatusForbidden, token, origin.DeniedServeStale, true},
		{"403 to a key in another field", http.StatusForbidden, map[string]string{"X-Api-Key": "k"}, origin.DeniedServeStale, true},
		{"403 to nobody in particular", http.StatusForbidden, map[string]string{"User-Agent": "cache"}, origin.DeniedServeStale, false},
		{"401, refuse", http.StatusUnauthorized, token, origin.DeniedRefuse, false},
		{"403, refuse", http.StatusForbidden, token, origin.DeniedRefuse, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			inWeb(t, webConfig{terms: origin.Terms{RevalidateAfter: trusted, OnDenied: tt.on}, headers: tt.headers}, image(oldImage, "ETag", `"a"`), func(t *testing.T, w *web) {
				w.wants("cold", "image", oldImage)
				time.Sleep(trusted)
				w.answer(status(tt.code))
				for range 3 {
					if !tt.served {
						w.fails("denied", "image", origin.ErrDenied)
					} else if out := w.wants("denied", "image", oldImage); out.Detail != DetailStale {
						t.Errorf("denied: %+v, expected it stale", out)
					}
				}
				if trouble := w.reach.list(); tt.served != (len(trouble) == 1) {
					t.Errorf("the operator is told of %+v", trouble)
				}
			})
		})
	}
}

// TestAnnouncedButNotDelivered: the origin says that it has another version, and
// does not send it.
func TestAnnouncedButNotDelivered(t *testing.T) {
	announced := image(newImage, "ETag", `"b"`)
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<html>log in</html>"))
	}
	for _, tt := range []struct {
		what string
		get  http.HandlerFunc
	}{
		{"503", status(http.StatusServiceUnavailable)},
		{"400", status(http.StatusBadRequest)},
		{"a reset connection", reset},
		{"a page", page},
		{"another coding", image(newImage, "ETag", `"b"`, "Content-Encoding", "br")},
	} {
		for _, fail := range []bool{false, true} {
			if fail && tt.what == "a page" {
				continue // which is passed through then
			}
			t.Run(tt.what, func(t *testing.T) {
				terms := origin.Terms{RevalidateAfter: trusted, FailWhenDown: fail, Expect: origin.Expect{NotHTML: true}}
				inWeb(t, webConfig{terms: terms}, image(oldImage, "ETag", `"a"`), func(t *testing.T, w *web) {
					w.wants("cold", "image", oldImage)
					time.Sleep(trusted)
					w.answer(byMethod(announced, tt.get))
					if fail {
						w.fails("with on_origin_down = fail", "image", origin.ErrUnavailable)
						return
					}
					if out := w.wants("not delivered", "image", oldImage); out.Detail != DetailStale {
						t.Errorf("not delivered: %+v", out)
					}
					w.answer(announced)
					time.Sleep(10 * time.Second)
					w.wants("delivered", "image", newImage)
				})
			})
		}
	}
}

// TestCacheControl: what the origin says of keeping is kept to, unless the
// configuration says otherwise.
func TestCacheControl(t *testing.T) {
	past := "Mon, 01 Jan 1990 00:00:00 GMT"
	for _, tt := range []struct {
		what   string
		fields []string
		ignore bool
		stored bool
		trust  time.Duration
	}{
		{"nothing", nil, false, true, time.Hour},
		{"no-store", []string{"Cache-Control", "max-age=3600, No-Store"}, false, false, 0},
		{"private", []string{"Cache-Control", "private"}, false, false, 0},
		{"no-store, ignored", []string{"Cache-Control", "no-store"}, true, true, time.Hour},
		{"no-cache", []string{"Cache-Control", "no-cache"}, false, true, 0},
		{"max-age", []string{"Cache-Control", "public, max-age=60"}, false, true, time.Minute},
		{"max-age beyond revalidate_after", []string{"Cache-Control", "max-age=86400"}, false, true, time.Hour},
		{"s-maxage before max-age", []string{"Cache-Control", "max-age=60, s-maxage=120"}, false, true, 2 * time.Minute},
		{"max-age, ignored", []string{"Cache-Control", "max-age=60"}, true, true, time.Hour},
		{"Expires in the past", []string{"Expires", past}, false, true, 0},
		{"Expires that is no date", []string{"Expires", "0"}, false, true, 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			terms := origin.Terms{RevalidateAfter: time.Hour, IgnoreCacheControl: tt.ignore}
			inWeb(t, webConfig{terms: terms}, image(oldImage, append(tt.fields, "ETag", `"a"`)...), func(t *testing.T, w *web) {
				out := w.wants("cold", "image", oldImage)
				if info, _ := w.Image("image"); (info.State == StateCached) != tt.stored || !tt.stored && out.Detail != DetailNoStore {
					t.Fatalf("%+v, and it is %s; expected it stored: %v", out, info.State, tt.stored)
				}
				w.answer(image(newImage, append(tt.fields, "ETag", `"b"`)...))
				if tt.trust > 0 {
					time.Sleep(tt.trust - time.Second)
					w.wants("trusted", "image", oldImage)
					time.Sleep(time.Second)
				}
				w.wants("due", "image", newImage)
			})
		})
	}
}

// TestMustRevalidate: what must not be served stale is not.
func TestMustRevalidate(t *testing.T) {
	for _, tt := range []struct {
		control string
		ignore  bool
		served  bool
	}{
		{"must-revalidate", false, false},
		{"max-age=5, proxy-revalidate", false, false},
		{"must-revalidate", true, true},
		{"max-age=5", false, true},
	} {
		t.Run(tt.control, func(t *testing.T) {
			terms := origin.Terms{RevalidateAfter: trusted, IgnoreCacheControl: tt.ignore}
			inWeb(t, webConfig{terms: terms}, image(oldImage, "ETag", `"a"`, "Cache-Control", tt.control), func(t *testing.T, w *web) {
				w.wants("cold", "image", oldImage)
				time.Sleep(trusted)
				w.answer(status(http.StatusServiceUnavailable))
				for range 2 {
					if tt.served {
						w.wants("down", "image", oldImage)
					} else {
						w.fails("down", "image", origin.ErrUnavailable)
					}
				}
				w.answer(image(oldImage, "ETag", `"a"`))
				time.Sleep(time.Minute)
				w.wants("well again", "image", oldImage)
			})
		})
	}
}

// TestFresh: a client that wants an image fresh has the origin asked now, and what
// is stored stays until the new one is whole.
func TestFresh(t *testing.T) {
	for _, tt := range []struct {
		what string
		then http.HandlerFunc
		want []byte
	}{
		{"the same", image(oldImage, "ETag", `W/"a"`), oldImage},
		{"another weak ETag", image(newImage, "ETag", `W/"b"`), newImage},
		{"another length", image(newImage[8:]), newImage[8:]},
		{"an origin that is down", status(http.StatusBadGateway), oldImage},
		{"a transfer that breaks off", byMethod(image(newImage, "ETag", `"b"`), reset), oldImage},
	} {
		t.Run(tt.what, func(t *testing.T) {
			inWeb(t, webConfig{terms: origin.Terms{RevalidateAfter: time.Hour}}, image(oldImage, "ETag", `W/"a"`), func(t *testing.T, w *web) {
				w.wants("cold", "image", oldImage)
				w.answer(tt.then)
				w.wants("trusted", "image", oldImage)
				w.wantAsked("until somebody wants it fresh", "GET")
				got, _, err := w.get(WithFresh(t.Context()), "image")
				if err != nil || !bytes.Equal(got, tt.want) {
					t.Errorf("fresh: %d bytes, right: %v, %v", len(got), bytes.Equal(got, tt.want), err)
				}
				synctest.Wait()
				w.wants("afterwards", "image", tt.want)
			})
		})
	}
}

// TestNotAnImage: what comes in place of an image is passed through once, not
// kept, and leaves what is stored in its place.
func TestNotAnImage(t *testing.T) {
	page := []byte("<html><body>Maintenance until noon.</body></html>")
	for _, tt := range []struct {
		what   string
		name   string
		expect origin.Expect
		typ    string
		image  bool
	}{
		{"a page", "x.qcow2", origin.Expect{NotHTML: true}, "text/html", false},
		{"a page of XHTML", "x.raw", origin.Expect{NotHTML: true}, "application/xhtml+xml; charset=utf-8", false},
		{"another type", "x.img", origin.Expect{ContentTypes: []string{"application/octet-stream"}}, "application/json", false},
		{"too small", "x.vmdk", origin.Expect{MinSize: 1000}, "application/octet-stream", false},
		{"a page that is wanted", "index.html", origin.Expect{NotHTML: true}, "text/html", true},
		{"a type that is expected", "x.img", origin.Expect{ContentTypes: []string{"text/*"}}, "text/plain", true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			right := image(oldImage, "ETag", `"a"`, "Content-Type", "application/octet-stream")
			if tt.image {
				right = image(oldImage, "ETag", `"a"`, "Content-Type", tt.typ)
			}
			wrong := image(page, "Content-Type", tt.typ)
			inWeb(t, webConfig{terms: origin.Terms{RevalidateAfter: trusted, Expect: tt.expect}}, wrong, func(t *testing.T, w *web) {
				out := w.wants("cold", tt.name, page)
				if tt.image {
					if !out.Stored {
						t.Errorf("what is expected: %+v", out)
					}
					return
				}
				if out.Stored || out.Detail != DetailNotAnImage {
					t.Errorf("what is no image: %+v", out)
				}
				w.answer(right)
				w.wants("the image", tt.name, oldImage)
				time.Sleep(trusted)
				w.answer(wrong)
				if out := w.wants("stored", tt.name, oldImage); out.Detail != DetailStale {
					t.Errorf("stored: %+v", out)
				}
			})
		})
	}
}

// TestTrustBeginsWithTheAnswer: a transfer that takes longer than an image is
// trusted does not make what was replaced meanwhile fresh.
func TestTrustBeginsWithTheAnswer(t *testing.T) {
	for _, pieces := range []int{2, 5, 30} {
		slow := func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"a"`)
			for i := range pieces {
				time.Sleep(2 * trusted / time.Duration(pieces))
				_, _ = w.Write(oldImage[i*len(oldImage)/pieces : (i+1)*len(oldImage)/pieces])
				_ = http.NewResponseController(w).Flush()
			}
		}
		inWeb(t, webConfig{terms: origin.Terms{RevalidateAfter: trusted, MinRate: 0}}, slow, func(t *testing.T, w *web) {
			time.AfterFunc(2*time.Second, func() { w.answer(image(newImage, "ETag", `"b"`)) })
			_, _, err := w.get(t.Context(), "image")
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("in %d pieces: %v", pieces, err)
			}
			synctest.Wait()
			w.wants("replaced during the transfer", "image", newImage)
		})
	}
}
