// Package origintest is an HTTP origin for tests that does, at random and by a
// seed, all that origins do: it breaks off, stalls, redirects, refuses HEAD,
// changes its validators and its images, and says lengths that are not true. It
// knows afterwards which bytes were right, and when.
package origintest

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Style is by which validators the versions of an image can be told apart.
type Style int

// The styles.
const (
	Strong  Style = iota // a strong ETag, and the time
	Digest               // a declared digest, and an ETag that is another one in each answer
	Weak                 // a weak ETag, and the time
	Odd                  // an ETag without quotes
	Time                 // the time of the last change
	Moody                // a strong ETag and the time, of which one may be missing
	Nothing              // no validator at all
	styles
)

// Exact reports whether two answers about one version always say so.
func (s Style) Exact() bool { return s == Strong || s == Digest }

// Version is what became of a version of an image. Times are by the clock of the
// origin.
type Version struct {
	Number   int
	Style    Style
	Size     int64
	ETag     string    // of the styles Strong and Moody, as in their answers
	NoStore  bool      // each answer forbade to keep it
	From     time.Time // it is the image since
	Until    time.Time // it was the image until; zero: it still is
	LastSent time.Time // bytes of it were last sent; zero: never
	Sending  int       // answers under way with bytes of it

	// Whole counts the right answers to requests for all of it that sent its
	// last byte.
	Whole int
	// Excused says that an answer was such that fetching it again is right: it
	// told another length, or nobody could know that it was whole.
	Excused bool
}

// Twice reports whether it was fetched more often than is right.
func (v Version) Twice() bool { return v.Style.Exact() && v.Whole > 1 && !v.NoStore && !v.Excused }

// version is a Version and its bytes.
type version struct {
	Version
	content
	modified time.Time
	digest   string // Repr-Digest
	endless  atomic.Bool
}

// offered is an image.
type offered struct {
	style     Style
	versions  []*version // the newest last
	withdrawn bool
	trouble   time.Time // when an answer was last wrong, or none
}

// Wild is the origin. It is an [http.Handler].
type Wild struct {
	Now       func() time.Time // its clock
	Stall     time.Duration    // how long it is silent; longer than anybody's patience
	Elsewhere string           // where it redirects to, with a slash behind; "": nowhere
	MaxSize   int64            // bytes of an image

	mu     sync.Mutex
	rng    *rand.Rand
	odds   int // one answer in odds is wrong; 0: none
	images map[string]*offered
}

// NewWild returns an origin that begins without images, and with answers that
// are all right.
func NewWild(seed uint64) *Wild {
	return &Wild{
		Now: time.Now, Stall: time.Hour, MaxSize: 3 << 20,
		rng: rand.New(rand.NewPCG(seed, 11)), images: map[string]*offered{},
	}
}

// SetOdds lets one answer in odds go wrong; 0: none.
func (w *Wild) SetOdds(odds int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.odds = odds
}

// Offer begins to offer an image.
func (w *Wild) Offer(name string, style Style) {
	w.mu.Lock()
	w.images[name] = &offered{style: style}
	w.mu.Unlock()
	w.Replace(name)
}

// Styles returns all styles.
func Styles() []Style {
	list := make([]Style, styles)
	for i := range list {
		list[i] = Style(i)
	}
	return list
}

// Withdraw lets the image be absent until it is replaced.
func (w *Wild) Withdraw(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	img := w.images[name]
	img.withdrawn = true
	img.end(w.Now())
}

// end notes that the newest version is no longer the image.
func (img *offered) end(now time.Time) {
	if n := len(img.versions); n > 0 && img.versions[n-1].Until.IsZero() {
		img.versions[n-1].Until = now
	}
}

// Replace gives the image new bytes. The length stays the same now and then.
func (w *Wild) Replace(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	img, now := w.images[name], w.Now()
	n := len(img.versions)
	size := 1 + w.rng.Int64N(w.MaxSize>>w.rng.IntN(10))
	if n > 0 && w.rng.IntN(3) == 0 {
		size = img.versions[n-1].Size
	}
	img.end(now)
	img.withdrawn = false
	v := &version{
		Version: Version{Number: n, Style: img.style, Size: size, From: now, NoStore: w.rng.IntN(12) == 0},
		content: newContent(name, n, size),
		// Times have seconds; two versions of one second are none of our business.
		modified: time.Unix(1_000_000_000+int64(n), 0).UTC(),
	}
	switch img.style {
	case Strong, Moody:
		v.ETag = fmt.Sprintf(`"%s-%d"`, name, n)
	case Digest:
		sum := sha256.Sum256(v.part(0, size))
		v.digest = "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	}
	img.versions = append(img.versions, v)
}

// Current returns the version that is the image now; false: it is withdrawn.
func (w *Wild) Current(name string) (Version, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	img := w.images[name]
	return img.versions[len(img.versions)-1].Version, !img.withdrawn
}

// Versions returns all versions of an image, the oldest first.
func (w *Wild) Versions(name string) []Version {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []Version
	for _, v := range w.images[name].versions {
		list = append(list, v.Version)
	}
	return list
}

// Trouble returns when an answer about an image was last wrong, or none; zero:
// never.
func (w *Wild) Trouble(name string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.images[name].trouble
}

// Whole returns the version of which p are all bytes.
func (w *Wild) Whole(name string, p []byte) (Version, bool) {
	return w.find(name, func(v *version) bool { return v.Size == int64(len(p)) && v.has(p, 0) })
}

// Part returns the version of which p are bytes from off on, which has to be of
// a size where that is not -1.
func (w *Wild) Part(name string, p []byte, off, size int64) (Version, bool) {
	return w.find(name, func(v *version) bool { return (size < 0 || v.Size == size) && v.has(p, off) })
}

func (w *Wild) find(name string, is func(*version) bool) (Version, bool) {
	w.mu.Lock()
	versions := w.images[name].versions
	w.mu.Unlock()
	for i := len(versions) - 1; i >= 0; i-- { // the bytes and sizes of versions never change
		if is(versions[i]) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return versions[i].Version, true
		}
	}
	return Version{}, false
}

// Prefix reports whether p are the first bytes of a version.
func (w *Wild) Prefix(name string, p []byte) bool {
	_, ok := w.Part(name, p, 0, -1)
	return ok
}

// Endless reports whether p are the first bytes of a version of which an answer
// was cut that only the end of its connection ended: nobody could know.
func (w *Wild) Endless(name string, p []byte) bool {
	_, ok := w.find(name, func(v *version) bool { return v.endless.Load() && v.has(p, 0) })
	return ok
}

// Page is what comes in place of an image when the origin wants a login.
const Page = "<!DOCTYPE html><html><body>Please log in.</body></html>"

// ServeHTTP implements [http.Handler].
func (w *Wild) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	a, ok := w.plan(r)
	if !ok {
		http.NotFound(rw, r)
		return
	}
	a.send(rw, r)
}
