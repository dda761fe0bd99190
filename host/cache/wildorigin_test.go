package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/origin/origintest"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// TestWildOrigin has eight clients ask for the images of an origin that does
// everything wrong, and then nothing for a while, and again. No client gets a
// clean end of bytes that are no version; nothing is served that is older than
// the terms allow; no version with a strong validator is fetched twice; and where
// the origin does nothing wrong everybody gets what it has. The name of a subtest
// is its seed.
func TestWildOrigin(t *testing.T) {
	seeds, steps := uint64(10), 400
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		seeds, steps = 12, 10_000
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			stuck := time.AfterFunc(10*time.Minute, func() { panic(fmt.Sprintf("seed %d spins or hangs", seed)) })
			defer stuck.Stop()
			dir := storetest.MemoryDir(t)
			synctest.Test(t, func(t *testing.T) { newWilderness(t, seed, steps, dir).run() })
		})
	}
}

// wilderness is one run.
type wilderness struct {
	t      *testing.T
	rng    *rand.Rand // of the publisher
	seed   uint64
	terms  origin.Terms
	wild   *origintest.Wild
	pipe   *origintest.Pipe
	origin *origin.HTTP
	cache  *Cache
	names  []string
	steps  atomic.Int64 // still to be done
	calm   atomic.Int64 // since when everything is to be right, in Unix nanoseconds; 0: it is not

	mu      sync.Mutex
	hit     map[string]time.Time // when a version had first come as a hit
	stale   map[string]time.Time // when a version was first served behind its time, unconfirmed
	counted map[string]int       // what clients got, for the log
}

const (
	// answerTime is how long an answer of the origin may take to arrive: what it
	// says may be over by then.
	answerTime = originTimeout + time.Second
	// settling is how long after the last wrong answer the cache may still leave
	// the origin alone.
	settling = 6 * time.Minute
)

func newWilderness(t *testing.T, seed uint64, steps int, dir string) *wilderness {
	w := &wilderness{
		t: t, rng: rand.New(rand.NewPCG(seed, 12)), seed: seed, wild: origintest.NewWild(seed), pipe: origintest.NewPipe(),
		hit: map[string]time.Time{}, stale: map[string]time.Time{}, counted: map[string]int{},
	}
	w.steps.Store(int64(steps))
	w.wild.Elsewhere = "http://localhost/"
	for _, style := range origintest.Styles() {
		name := fmt.Sprintf("image-%d", style)
		w.wild.Offer(name, style)
		w.names = append(w.names, name)
	}
	pick := func(list ...time.Duration) time.Duration { return list[w.rng.IntN(len(list))] }
	w.terms = origin.Terms{
		RevalidateAfter: pick(0, time.Second, 10*time.Second, time.Minute),
		NegativeTTL:     pick(0, time.Second, 10*time.Second),
		FailWhenDown:    w.rng.IntN(4) == 0,
		OnDenied:        []origin.OnDenied{origin.DeniedServeStale, origin.DeniedRefuse}[w.rng.IntN(2)],
		Expect:          origin.Expect{NotHTML: true},
	}
	if !w.terms.FailWhenDown && w.rng.IntN(3) == 0 {
		w.terms.Revalidate = origin.RevalidateBehind
	}
	var err error
	w.origin, err = origin.NewHTTP(origin.HTTPConfig{
		Name: "wild", Endpoint: "http://127.0.0.1/", ConnectTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second,
		AllowRedirects: true, Terms: w.terms, Dial: w.pipe.Dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Store: st, Origins: oneOrigin{w.origin}, Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true}}}
	if w.cache, err = New(complete(cfg)); err != nil {
		t.Fatal(err)
	}
	return w
}

// oneOrigin is where all images come from.
type oneOrigin struct{ origin.Origin }

func (o oneOrigin) ByID(id string) (origin.Origin, string, error) { return o.Origin, id, nil }

func (o oneOrigin) Learn(string, string) {}

func (o oneOrigin) NameOf(id string) string { return id }

func (w *wilderness) run() {
	server := &http.Server{Handler: w.wild}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(w.pipe) })
	w.cache.Start()
	<-w.cache.scanned
	var clients sync.WaitGroup
	done := make(chan struct{})
	for n := range 8 {
		clients.Go(func() { w.client(rand.New(rand.NewPCG(w.seed, uint64(100+n)))) })
	}
	served.Go(func() { w.publish(done) })
	clients.Wait()
	close(done)
	if err := errors.Join(w.cache.Close(), w.cache.store.Close(), w.origin.Close(), server.Close()); err != nil {
		w.t.Error(err)
	}
	served.Wait()
	w.once()
	w.t.Logf("terms %+v: %v", w.terms, w.counted)
}

// publish replaces and withdraws images, and has the origin go wrong and right
// again, until done is closed.
func (w *wilderness) publish(done <-chan struct{}) {
	for phase := 0; ; phase++ {
		calm := phase%2 == 1
		w.calm.Store(0)
		w.wild.SetOdds([]int{2, 3, 6, 20}[w.rng.IntN(4)])
		length := 4 * time.Minute
		if calm {
			w.wild.SetOdds(0)
			w.pipe.SetAway(false)
			w.calm.Store(time.Now().Add(settling).UnixNano())
			length = settling + 10*time.Minute
		}
		for end := time.Now().Add(length); time.Now().Before(end); {
			select {
			case <-time.After(time.Duration(w.rng.IntN(20_000)) * time.Millisecond):
			case <-done:
				return
			}
			name := w.names[w.rng.IntN(len(w.names))]
			switch n := w.rng.IntN(10); {
			case n == 0:
				w.wild.Withdraw(name)
			case n < 6:
				w.wild.Replace(name)
			case n == 6 && !calm:
				w.pipe.SetAway(true)
			default:
				w.pipe.SetAway(false)
			}
		}
	}
}

// client asks for images until there are no steps left.
func (w *wilderness) client(rng *rand.Rand) {
	for w.steps.Add(-1) >= 0 {
		time.Sleep(time.Duration(rng.IntN(8_000)) * time.Millisecond)
		if c := w.calm.Load(); c > time.Now().UnixNano() && rng.IntN(3) > 0 {
			time.Sleep(time.Until(time.Unix(0, c)))
		}
		name := w.names[rng.IntN(len(w.names))]
		switch n := rng.IntN(20); {
		case n < 13:
			w.get(w.t.Context(), name)
		case n == 13:
			w.get(WithFresh(w.t.Context()), name)
		case n < 16:
			w.parts(rng, name)
		case n < 18:
			w.head(name)
		default:
			ctx, leave := context.WithTimeout(w.t.Context(), time.Duration(rng.IntN(2_000))*time.Millisecond)
			w.get(ctx, name)
			leave()
		}
	}
}

// get downloads an image whole and judges what came.
func (w *wilderness) get(ctx context.Context, name string) {
	asked := time.Now()
	k, err := w.cache.Open(ctx, name)
	if err != nil {
		w.failed(ctx, name, asked, err)
		return
	}
	defer k.Close()
	var got bytes.Buffer
	n, err := k.CopyTo(ctx, &got, 0, -1)
	if size := k.Info().Size; err == nil && size >= 0 && n != size {
		w.t.Errorf("%s: %d bytes of %d without an error", name, n, size)
	}
	if err != nil {
		if !w.wild.Prefix(name, got.Bytes()) && !strings.HasPrefix(origintest.Page, got.String()) {
			w.counts("cut behind other bytes")
		}
		w.failed(ctx, name, asked, err)
		return
	}
	out := k.Outcome()
	v, ok := w.wild.Whole(name, got.Bytes())
	switch {
	case !ok && !out.Hit && !out.Stored && out.Detail == DetailNotAnImage && got.String() == origintest.Page:
		w.counts("a page")
	case !ok && !out.Hit && !out.Stored && k.Info().Size < 0 && w.wild.Endless(name, got.Bytes()):
		w.counts("a body without an end")
	case !ok:
		w.t.Errorf("%s: a clean end of %d bytes that are no version; %+v, %s", name, got.Len(), out, k.Info().Version)
	default:
		w.isRight(ctx, name, asked, v, k)
	}
}

// counts notes what a client got.
func (w *wilderness) counts(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counted[what]++
}

// isRight judges a version that came whole.
func (w *wilderness) isRight(ctx context.Context, name string, asked time.Time, v origintest.Version, k Content) {
	out := k.Outcome()
	key := fmt.Sprint(name, "#", v.Number)
	w.mu.Lock()
	at, known := w.hit[key]
	stored := known && at.Before(asked)
	if out.Hit && !known {
		w.hit[key] = time.Now()
	}
	switch {
	case out.Detail == DetailStale:
		w.counted["stale"]++
	case out.Hit:
		w.counted["hits"]++
	case out.Collapsed:
		w.counted["followed"]++
	default:
		w.counted["fetched"]++
	}
	w.mu.Unlock()
	if v.ETag != "" && strings.HasPrefix(k.Info().Version, `"`) && k.ETag() != v.ETag {
		w.t.Errorf("%s: bytes of version %d, which is %s, as %s", name, v.Number, v.ETag, k.ETag())
	}
	if v.NoStore && out.Hit {
		w.t.Errorf("%s: version %d must not be stored, and is a hit", name, v.Number)
	}
	if stored && !out.Hit && !out.Collapsed && v.Style.Exact() && !v.Excused {
		w.t.Errorf("%s: version %d is stored, and was fetched again at %v: %+v", name, v.Number, asked, out)
	}
	if why := w.tooOld(ctx, name, key, asked, v, out); why != "" {
		w.t.Errorf("%s at %v: version %d was over for %v: %s; %+v", name, asked, v.Number, asked.Sub(v.Until), why, out)
	}
}

// tooOld says why a version must not have been served; "": it might.
func (w *wilderness) tooOld(ctx context.Context, name, key string, asked time.Time, v origintest.Version, out Outcome) string {
	age := asked.Sub(v.Until)
	if v.Until.IsZero() || age <= 0 {
		return ""
	}
	trust := w.terms.RevalidateAfter
	if WantsFresh(ctx) {
		trust = 0
	}
	trouble := w.wild.Trouble(name)
	switch {
	case out.Detail == DetailStale && w.terms.FailWhenDown:
		return "stale, though the origin has to confirm it"
	case out.Detail == DetailStale && trouble.After(asked.Add(-settling)), out.Detail == DetailStale && !w.quiet(asked):
		return ""
	case out.Detail == DetailStale && w.terms.Revalidate == origin.RevalidateBehind && !WantsFresh(ctx):
		w.mu.Lock()
		first, again := w.stale[key]
		if !again {
			w.stale[key] = asked
		}
		w.mu.Unlock()
		if again && asked.Sub(first) > answerTime {
			return fmt.Sprintf("the origin was asked behind a hit %v ago", asked.Sub(first))
		}
	case out.Detail == DetailStale:
		return "stale without any trouble"
	case out.Hit && age > trust+answerTime:
		return "it is trusted for " + trust.String()
	case out.Collapsed && v.Sending == 0 && asked.Sub(v.LastSent) > answerTime:
		return "its transfer was over"
	case !out.Hit && !out.Collapsed:
		return "the origin was asked afterwards"
	}
	return ""
}

// quiet reports whether everything was to be right at a time.
func (w *wilderness) quiet(at time.Time) bool {
	calm := w.calm.Load()
	return calm > 0 && at.UnixNano() >= calm
}

// failed judges an error: none is right while the origin does nothing wrong, but
// for an image that is not there or was replaced.
func (w *wilderness) failed(ctx context.Context, name string, asked time.Time, err error) {
	w.counts("errors")
	if ctx.Err() != nil {
		return
	}
	if !w.quiet(asked) {
		return
	}
	around := asked.Add(-w.terms.NegativeTTL - answerTime)
	v, there := w.wild.Current(name)
	versions := w.wild.Versions(name)
	withdrawn := len(versions) > 1 && versions[len(versions)-2].Until.Before(v.From) && v.From.After(around)
	replaced := v.From.After(around)
	if there && !withdrawn && !replaced {
		w.t.Errorf("%s at %v: the origin does nothing wrong, and the client gets: %v", name, asked, err)
	}
}

// parts downloads ranges of one version.
func (w *wilderness) parts(rng *rand.Rand, name string) {
	asked := time.Now()
	ctx := WithRange(w.t.Context())
	k, err := w.cache.Open(ctx, name)
	if err != nil {
		w.failed(ctx, name, asked, err)
		return
	}
	defer k.Close()
	size := k.Info().Size
	if size <= 0 || size == int64(len(origintest.Page)) {
		return
	}
	number := -1
	for range 1 + rng.IntN(3) {
		off := rng.Int64N(size)
		n := 1 + rng.Int64N(size-off)
		var got bytes.Buffer
		m, err := k.CopyTo(ctx, &got, off, n)
		if err != nil {
			if v, _ := w.wild.Current(name); v.Style != origintest.Moody { // whose answers need not say what they are
				w.failed(ctx, name, asked, err)
			}
			return
		}
		v, ok := w.wild.Part(name, got.Bytes(), off, size)
		if !ok || m != n {
			w.t.Errorf("%s: %d of %d bytes from %d of %d, which no version of that size has; %+v, %s", name, m, n, off, size, k.Outcome(), k.Info().Version)
			return
		}
		if n < 8 {
			continue // so few bytes may be those of another version
		}
		if number >= 0 && v.Number != number {
			w.t.Errorf("%s: ranges of versions %d and %d in one content", name, number, v.Number)
		}
		number = v.Number
	}
	w.counts("ranges")
}

// head asks what the image is.
func (w *wilderness) head(name string) {
	asked := time.Now()
	k, err := w.cache.Stat(w.t.Context(), name)
	if err != nil {
		w.failed(w.t.Context(), name, asked, err)
		return
	}
	w.counts("heads")
	if err := k.Close(); err != nil {
		w.t.Error(err)
	}
}

// once checks that no version with a strong validator came whole more than once.
func (w *wilderness) once() {
	for _, name := range w.names {
		for _, v := range w.wild.Versions(name) {
			if v.Twice() {
				w.t.Errorf("%s: version %d was fetched whole %d times", name, v.Number, v.Whole)
			}
		}
	}
}
