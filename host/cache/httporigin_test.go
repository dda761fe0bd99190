package cache

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/origin/origintest"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// web is a cache whose images come from an HTTP server, all in a bubble.
type web struct {
	*Cache
	t    *testing.T
	pipe *origintest.Pipe

	mu      sync.Mutex
	answers http.HandlerFunc
	asked   []string // methods, in order; of a GET with a range "PART"
	sent    int      // bytes of bodies
}

// webConfig says what is particular to a web; the zero value is what a
// configuration without options has.
type webConfig struct {
	terms   origin.Terms
	headers map[string]string
	options options.Options
}

// inWeb runs f with a cache before a server that answers as told.
func inWeb(t *testing.T, cfg webConfig, answers http.HandlerFunc, f func(t *testing.T, w *web)) {
	t.Helper()
	dir := storetest.MemoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := &web{t: t, pipe: origintest.NewPipe(), answers: answers}
		from, err := origin.NewHTTP(origin.HTTPConfig{
			Name: "web", Endpoint: "http://127.0.0.1/", IdleTimeout: 30 * time.Second, AllowRedirects: true,
			Headers: cfg.headers, Terms: cfg.terms, Dial: w.pipe.Dial,
		})
		if err != nil {
			t.Fatal(err)
		}
		st, err := store.Open(store.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		o := cfg.options
		o.Limit, o.Fill.KeepFilling = options.LimitHard, true
		if o.MaxSize == 0 {
			o.MaxSize = 1 << 30
		}
		if w.Cache, err = New(complete(Config{Store: st, Origins: oneOrigin{from}, Options: o})); err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: w}
		go func() { _ = server.Serve(w.pipe) }()
		w.Start()
		<-w.scanned
		defer func() {
			if err := errors.Join(w.Close(), st.Close(), from.Close(), server.Close()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour) // for answers that nobody waits for any more
		}()
		f(t, w)
	})
}

// ServeHTTP implements [http.Handler].
func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	what := r.Method
	if r.Header.Get("Range") != "" {
		what = "PART"
	}
	w.mu.Lock()
	w.asked = append(w.asked, what)
	answers := w.answers
	w.mu.Unlock()
	answers(&countingWriter{rw, w}, r)
}

// countingWriter counts the bytes of a body.
type countingWriter struct {
	http.ResponseWriter
	w *web
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.sent += n
	return n, err
}

func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// answer changes how the server answers.
func (w *web) answer(answers http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers = answers
}

// wantAsked fails the test unless the server was asked so since the last time.
func (w *web) wantAsked(what string, want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.asked, want) {
		w.t.Errorf("%s: the origin was asked for %q, expected %q", what, w.asked, want)
	}
	w.asked = nil
}

// get downloads an image.
func (w *web) get(ctx context.Context, id string) ([]byte, Outcome, error) {
	k, err := w.Open(ctx, id)
	if err != nil {
		return nil, Outcome{}, err
	}
	defer k.Close()
	var got bytes.Buffer
	n, err := k.CopyTo(ctx, &got, 0, -1)
	if size := k.Info().Size; err == nil && size >= 0 && n != size {
		w.t.Errorf("%s: %d of %d bytes without an error", id, n, size)
	}
	return got.Bytes(), k.Outcome(), err
}

// wants downloads an image and fails the test unless it is want. It returns when
// the image is stored, if it is.
func (w *web) wants(what, id string, want []byte) Outcome {
	w.t.Helper()
	got, out, err := w.get(w.t.Context(), id)
	if err != nil || !bytes.Equal(got, want) {
		w.t.Errorf("%s: %d bytes, right: %v, %v; expected %d", what, len(got), bytes.Equal(got, want), err, len(want))
	}
	synctest.Wait()
	return out
}

// fails downloads an image and fails the test unless that fails with an error.
func (w *web) fails(what, id string, want error) error {
	w.t.Helper()
	got, _, err := w.get(w.t.Context(), id)
	if !errors.Is(err, want) {
		w.t.Errorf("%s: %d bytes, %v; expected the error %v", what, len(got), err, want)
	}
	synctest.Wait()
	return err
}

// image answers with an image. Fields are name and value in turn.
func image(body []byte, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		for i := 0; i < len(fields); i += 2 {
			w.Header().Set(fields[i], fields[i+1])
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}
}

// status answers with an error. Fields are name and value in turn.
func status(code int, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(fields); i += 2 {
			w.Header().Set(fields[i], fields[i+1])
		}
		http.Error(w, http.StatusText(code), code)
	}
}

// reset breaks the connection off.
func reset(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// byMethod answers HEAD in one way and GET in another.
func byMethod(head, get http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			head(w, r)
			return
		}
		get(w, r)
	}
}

// first answers n times in one way, and then in another.
func first(n int, begin, then http.HandlerFunc) http.HandlerFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n--
		begins := n >= 0
		mu.Unlock()
		if begins {
			begin(w, r)
			return
		}
		then(w, r)
	}
}

// together runs f so many times at once and waits for all.
func together(n int, f func()) {
	var all sync.WaitGroup
	for range n {
		all.Go(f)
	}
	all.Wait()
}

var (
	oldImage = bytes.Repeat([]byte("old "), 40_000)
	newImage = bytes.Repeat([]byte("new "), 40_000) // as long
)

const (
	monday  = "Mon, 07 Jul 2025 10:00:00 GMT"
	tuesday = "Tue, 08 Jul 2025 10:00:00 GMT"
)
