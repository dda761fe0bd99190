// Package origintest is an HTTP origin for tests. At random, by a seed, it does
// everything that origins do: it breaks off, stalls, redirects, refuses HEAD, changes
// its validators and its images, and declares wrong lengths. It knows afterwards
// which bytes were right, and when.
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

// Style says which validators the versions of an image have.
type Style int

// The styles.
const (
	Strong  Style = iota // a strong ETag, and the time
	Digest               // a declared digest, and an ETag that may change with each answer
	Weak                 // a weak ETag, and the time
	Odd                  // an ETag without quotes
	Time                 // the time of the last change
	Moody                // a strong ETag and the time; one of them may be missing
	Nothing              // no validator at all
	styles
)

// Exact reports whether two answers about the same version always show that.
func (s Style) Exact() bool { return s == Strong || s == Digest }

// Version says what happened to a version of an image. Times are those of the
// origin's clock.
type Version struct {
	Number   int
	Style    Style
	Size     int64
	ETag     string    // of the styles Strong and Moody, as in their answers
	NoStore  bool      // each answer forbade storing it
	From     time.Time // since when it is the image
	Until    time.Time // until when it was the image; zero: it still is
	LastSent time.Time // when bytes of it were last sent; zero: never
	Sending  int       // number of answers that are sending bytes of it

	// Whole counts the correct answers to requests for the whole version that
	// have sent its last byte.
	Whole int
	// Excused says that it is right to fetch the version again because of an
	// answer: that declared another length, or nobody could know whether it was
	// complete.
	Excused bool
}

// Twice reports whether the version was fetched more often than is right.
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
	trouble   time.Time // when an answer was last wrong or missing
}

// Wild is the origin. It is an [http.Handler].
type Wild struct {
	Now       func() time.Time // its clock
	Stall     time.Duration    // how long a stall is; longer than any timeout
	Elsewhere string           // where it redirects to, ending with a slash; "": it does not redirect
	MaxSize   int64            // most bytes of an image

	mu     sync.Mutex
	rng    *rand.Rand
	odds   int // one answer in odds is wrong; 0: none
	images map[string]*offered
}

// NewWild returns an origin without images, all of whose answers are right.
func NewWild(seed uint64) *Wild {
	return &Wild{
		Now: time.Now, Stall: time.Hour, MaxSize: 3 << 20,
		rng: rand.New(rand.NewPCG(seed, 11)), images: map[string]*offered{},
	}
}

// SetOdds makes one of odds answers wrong; 0: none.
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

// Withdraw makes the image absent until it is replaced.
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

// Replace gives the image new bytes. Sometimes the length stays the same.
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
		// Last-Modified has only seconds, so each version gets a second of its own.
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

// Trouble returns when an answer about an image was last wrong or missing; zero:
// never.
func (w *Wild) Trouble(name string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.images[name].trouble
}

// Whole returns the version whose bytes are p.
func (w *Wild) Whole(name string, p []byte) (Version, bool) {
	return w.find(name, func(v *version) bool { return v.Size == int64(len(p)) && v.has(p, 0) })
}

// Part returns the version that has the bytes p from off on. Its size must be size,
// unless that is -1.
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
// without a length was broken off, so that nobody could notice it.
func (w *Wild) Endless(name string, p []byte) bool {
	_, ok := w.find(name, func(v *version) bool { return v.endless.Load() && v.has(p, 0) })
	return ok
}

// Page is what the origin sends in place of an image to ask for a login.
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
