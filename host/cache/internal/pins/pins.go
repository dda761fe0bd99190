// Package pins remembers which images may not be evicted: those that the
// configuration names, and those that requests have pinned, which a file stores.
package pins

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
)

// Pin keeps an image from being evicted.
type Pin struct {
	ID    string    `json:"id"`
	Name  string    `json:"name,omitempty"` // of the image at its origin, if the id does not tell it
	Until time.Time `json:"until,omitzero"` // zero: for ever
	From  string    `json:"from,omitempty"` // where it comes from; in Config.Pins: its place in the configuration
}

// Pins say which images may not be evicted: those that the configuration names, and
// those that requests have pinned, which a file stores. An id may be pinned before
// its image is cached, and stays pinned when the image is deleted.
type Pins struct {
	fs   store.FS
	path string
	log  *slog.Logger
	now  func() time.Time

	configured map[string]Pin // never changes

	// changing is held while the file is changed, and taken before mu.
	changing sync.Mutex
	appended int // lines after the pins of the file; -1: the file has to be rewritten

	// mu guards what follows. It may be taken under the index's mutex, and is
	// not held during I/O.
	mu        sync.Mutex
	requested map[string]Pin // those in the file; some may have ended
	next      *batch         // the one to be written next; nil: there is none
}

// New returns the pins of the configuration. [Pins.Load] adds those of earlier
// requests.
func New(fsys store.FS, path string, log *slog.Logger, now func() time.Time, configured []Pin) *Pins {
	p := &Pins{
		fs: fsys, path: path, log: log, now: now,
		configured: map[string]Pin{}, requested: map[string]Pin{}, appended: -1,
	}
	for _, pin := range configured {
		pin.From = cmp.Or(pin.From, FromConfiguration)
		if other, ok := p.configured[pin.ID]; !ok || pin.outlasts(other) {
			p.configured[pin.ID] = pin
		}
	}
	return p
}

// Holds reports whether an image is pinned.
func (p *Pins) Holds(id string, now time.Time) bool {
	_, ok := p.Get(id, now)
	return ok
}

// Get returns the pin of an image that lasts longest.
func (p *Pins) Get(id string, now time.Time) (Pin, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.getLocked(id, now)
}

func (p *Pins) getLocked(id string, now time.Time) (Pin, bool) {
	pin, ok := p.configured[id]
	ok = ok && pin.Lasts(now)
	if other, asked := p.requested[id]; asked && other.Lasts(now) && (!ok || other.outlasts(pin)) {
		return other, true
	}
	return pin, ok
}

// IsRequested reports whether a request has pinned the image. The pin may have ended.
func (p *Pins) IsRequested(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.requested[id]
	return ok
}

// ConfiguredFor returns the pin of an image in the configuration.
func (p *Pins) ConfiguredFor(id string, now time.Time) (Pin, bool) {
	pin, ok := p.configured[id]
	return pin, ok && pin.Lasts(now)
}

// All returns the pins that are in force, one for each id, ordered by id.
func (p *Pins) All(now time.Time) []Pin {
	var pins []Pin
	p.Each(now, func(pin Pin) { pins = append(pins, pin) })
	slices.SortFunc(pins, func(a, b Pin) int { return strings.Compare(a.ID, b.ID) })
	return pins
}

// Each calls f with each pin that is in force, one for each id, in no order. f must
// not call methods of the pins or the index.
func (p *Pins) Each(now time.Time, f func(Pin)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.configured {
		if pin, ok := p.getLocked(id, now); ok {
			f(pin)
		}
	}
	for id := range p.requested {
		if _, done := p.configured[id]; done {
			continue
		}
		if pin, ok := p.getLocked(id, now); ok {
			f(pin)
		}
	}
}

// Drop forgets the pins that have ended.
func (p *Pins) Drop() {
	now := p.now()
	var ended []Pin
	p.mu.Lock()
	for _, pin := range p.requested {
		if !pin.Lasts(now) {
			ended = append(ended, pin)
		}
	}
	p.mu.Unlock()
	if len(ended) == 0 {
		return
	}
	var changes []change
	for _, pin := range ended {
		changes = append(changes, change{pin: pin, gone: true, only: true})
	}
	err := p.apply(changes...)
	if err != nil {
		return // they have no effect any more, and the next call tries again
	}
	for _, pin := range ended {
		p.log.Info("a pin has ended", "image", pin.ID, "until", pin.End())
	}
}

// Lasts reports whether the pin is in force at the time now.
func (p Pin) Lasts(now time.Time) bool { return p.Until.IsZero() || now.Before(p.Until) }

// End returns the end of the pin as a text for messages.
func (p Pin) End() string {
	if p.Until.IsZero() {
		return "for ever"
	}
	return p.Until.Format(time.RFC3339)
}

// outlasts reports whether the pin ends later than another.
func (p Pin) outlasts(other Pin) bool {
	return !other.Until.IsZero() && (p.Until.IsZero() || p.Until.After(other.Until))
}

// Where a pin comes from, unless [Pin.From] is more precise.
const (
	FromConfiguration = "a pin of the configuration"
	FromRequest       = "a request"
)
