package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/origin/origintest"
)

// TestWildOrigin has eight clients ask a service for images whose origin does
// everything wrong: no clean end of bytes that are no version, nothing behind its
// time but what is marked as stale, nothing fetched twice that need not be. When
// the origin is well again everybody gets what it has.
func TestWildOrigin(t *testing.T) {
	length := 10 * time.Second
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		length = 2 * time.Minute
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("the seed is %d", seed)
	w := &wildRun{t: t, wild: origintest.NewWild(seed)}
	w.wild.Stall, w.wild.MaxSize = 20*time.Second, 1<<20
	server := httptest.NewServer(w.wild)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	w.wild.Elsewhere = strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/"
	for _, style := range origintest.Styles() {
		name := fmt.Sprintf("image-%d", style)
		w.wild.Offer(name, style)
		w.names = append(w.names, name)
	}
	w.d = start(t, setup{origin: fmt.Sprintf(
		"origin \"http\" \"wild\" {\n  endpoint = %q\n  revalidate_after = %q\n  negative_ttl = \"0s\"\n  idle_timeout = \"1s\"\n  allow_redirects = true\n}\n",
		server.URL, wildTrust)})
	w.run(seed, length)
	w.recover()
	for _, name := range w.names {
		for _, v := range w.wild.Versions(name) {
			if v.Twice() {
				t.Errorf("%s: version %d was fetched whole %d times", name, v.Number, v.Whole)
			}
		}
	}
}

const (
	// wildTrust is how long an image is trusted.
	wildTrust = time.Second
	// wildSlack is how long an answer may be under way: what the service waits for
	// one, and what a busy machine takes.
	wildSlack = 15 * time.Second
)

// wildRun is one run.
type wildRun struct {
	t     *testing.T
	d     *daemon
	wild  *origintest.Wild
	names []string

	mu  sync.Mutex
	got map[string]int
}

// run has clients ask and images change for a time.
func (w *wildRun) run(seed uint64, length time.Duration) {
	w.got = map[string]int{}
	w.wild.SetOdds(4)
	ctx, stop := context.WithTimeout(w.t.Context(), length)
	defer stop()
	var all sync.WaitGroup
	for n := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, n))
		all.Go(func() {
			for ctx.Err() == nil {
				w.ask(rng, w.names[rng.IntN(len(w.names))])
				time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond) // as a busy network does
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	for ctx.Err() == nil {
		select {
		case <-time.After(time.Duration(rng.IntN(500)) * time.Millisecond):
		case <-ctx.Done():
		}
		name := w.names[rng.IntN(len(w.names))]
		if rng.IntN(8) == 0 {
			w.wild.Withdraw(name)
		} else {
			w.wild.Replace(name)
		}
	}
	all.Wait()
	w.t.Logf("%v", w.got)
	if w.got["hits"] == 0 || w.got["fetched"] == 0 {
		w.t.Errorf("clients got %v: this test sees nothing", w.got)
	}
}

// ask sends one request and judges its answer.
func (w *wildRun) ask(rng *rand.Rand, name string) {
	from, fields := int64(0), []string(nil)
	switch rng.IntN(10) {
	case 0:
		w.d.do(http.MethodHead, name)
		return
	case 1, 2:
		from = rng.Int64N(1 << 19)
		fields = []string{"Range", fmt.Sprintf("bytes=%d-%d", from, from+rng.Int64N(1<<17))}
	}
	asked := time.Now()
	a := w.d.get(name, fields...)
	what := "errors"
	switch {
	case a.err != nil:
		what = "cut"
	case a.status == http.StatusPartialContent:
		what = "ranges"
		if _, ok := w.wild.Part(name, a.body, from, -1); !ok {
			w.t.Errorf("%s: %d bytes from %d that no version has; %v", name, len(a.body), from, a.header)
		}
	case a.status == http.StatusOK:
		what = w.whole(name, asked, a)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got[what]++
}

// whole judges an answer with a clean end, and says what it is.
func (w *wildRun) whole(name string, asked time.Time, a answer) string {
	says := a.cacheStatus()
	hit := strings.Contains(says, "; hit")
	v, ok := w.wild.Whole(name, a.body)
	age := asked.Sub(v.Until)
	switch {
	case !ok && string(a.body) == origintest.Page && strings.Contains(says, "not-an-image"):
		return "pages"
	case !ok && !hit && a.header.Get("Content-Length") == "" && w.wild.Endless(name, a.body):
		return "without an end"
	case !ok:
		w.t.Errorf("%s: a clean end of %d bytes that are no version; %v", name, len(a.body), a.header)
	case v.NoStore && hit:
		w.t.Errorf("%s: version %d must not be stored, and is a hit", name, v.Number)
	case v.Style == origintest.Strong && a.header.Get("ETag") != v.ETag:
		w.t.Errorf("%s: bytes of %s as %s", name, v.ETag, a.header.Get("ETag"))
	case strings.Contains(says, "stale"):
		return "stale"
	case !v.Until.IsZero() && age > wildTrust+wildSlack:
		w.t.Errorf("%s: version %d was over for %v; %s", name, v.Number, age, says)
	case hit:
		return "hits"
	}
	return "fetched"
}

// recover has the origin do nothing wrong, and waits until each image is what the
// origin has. A client that wants it fresh ends the pause after failures.
func (w *wildRun) recover() {
	w.wild.SetOdds(0)
	for _, name := range w.names {
		w.wild.Replace(name)
	}
	left := slices.Clone(w.names)
	defer func() {
		if len(left) > 0 {
			w.t.Logf("not so are %q", left)
		}
	}()
	w.d.eventually("each image is what the origin has", func() bool {
		left = slices.DeleteFunc(left, func(name string) bool {
			now, _ := w.wild.Current(name)
			v, ok := w.wild.Whole(name, w.d.get(name, "Cache-Control", "no-cache").body)
			return ok && v.Number == now.Number
		})
		return len(left) == 0
	})
}
