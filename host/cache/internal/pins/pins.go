// Package pins keeps which images may not be evicted: those that the
// configuration names, and those that were asked for, which a file keeps.
package pins

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/lines"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// Pin keeps an image from being evicted.
type Pin struct {
	ID    string    `json:"id"`
	Name  string    `json:"name,omitempty"` // of the image at its origin, if the id does not tell it
	Until time.Time `json:"until,omitzero"` // zero: for ever
	From  string    `json:"from,omitempty"` // who wants it; of Config.Pins: where in the configuration it stands
}

// Pins say which images may not be evicted: those that the configuration
// names, and those that were asked for, which a file keeps. An id may be
// pinned before its image is cached, and stays pinned when it is deleted.
type Pins struct {
	fs   store.FS
	path string
	log  *slog.Logger
	now  func() time.Time

	configured map[string]Pin // never changes

	// changing is held while the file is replaced, and taken before mu.
	changing sync.Mutex

	// mu guards what follows. It may be taken under the index's, and is held
	// for no I/O.
	mu        sync.Mutex
	requested map[string]Pin // as the file has them; some may have ended
}

// New returns the pins of the configuration. Those that were asked for
// earlier come with load.
func New(fsys store.FS, path string, log *slog.Logger, now func() time.Time, configured []Pin) *Pins {
	p := &Pins{
		fs: fsys, path: path, log: log, now: now,
		configured: map[string]Pin{}, requested: map[string]Pin{},
	}
	for _, pin := range configured {
		pin.From = cmp.Or(pin.From, FromConfiguration)
		if other, ok := p.configured[pin.ID]; !ok || pin.outlasts(other) {
			p.configured[pin.ID] = pin
		}
	}
	return p
}

// Load reads the pins that were asked for earlier. It never fails: a file that
// cannot be read costs the pins in it, which the log says, and no others.
func (p *Pins) Load() {
	data, err := lines.ReadFile(p.fs, "pins.read", p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	whole := false
	if err == nil {
		var list map[string]Pin
		list, whole = parsePins(data)
		p.mu.Lock()
		p.requested = list
		p.mu.Unlock()
	}
	if !whole {
		p.setAside(err)
	}
}

// pinsHead is the first line of the file. The others are pins.
type pinsHead struct {
	Pins int `json:"pins"` // number of lines that follow
}

// parsePins reads what can be read of the file, and reports whether that is
// all of it.
func parsePins(data []byte) (list map[string]Pin, whole bool) {
	texts := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	var head pinsHead
	whole = lines.Parse(texts[0], &head)
	list = map[string]Pin{}
	for _, text := range texts[1:] {
		var pin Pin
		if lines.Parse(text, &pin) && sdk.ValidID(pin.ID) {
			list[pin.ID] = pin
		}
	}
	return list, whole && head.Pins == len(list)
}

// setAside keeps a damaged file for whoever wants to look into it, and makes a
// new one of what could be read.
func (p *Pins) setAside(err error) {
	aside := p.path + ".damaged"
	p.log.Error("the file of pins is damaged; those that could be read hold, others must be set again",
		"file", aside, "read", len(p.requested), "error", err)
	if err := p.fs.Rename("pins.setaside", p.path, aside); err != nil {
		p.log.Error("set the damaged file of pins aside", "file", p.path, "error", err)
	}
	if err := p.save(p.requested); err != nil {
		p.log.Error("the pins that could be read will be lost with the end of the service", "error", err)
	}
}

// save replaces the file.
func (p *Pins) save(list map[string]Pin) error {
	b := lines.Append(nil, pinsHead{Pins: len(list)})
	for _, id := range slices.Sorted(maps.Keys(list)) {
		b = lines.Append(b, list[id])
	}
	f, err := lines.ReplaceFile(p.fs, "pins", p.path, b)
	if err != nil {
		return fmt.Errorf("write pins: %w", err)
	}
	return f.Close()
}

// Change replaces the pins that were asked for, on disk first: after an error
// those from before hold.
func (p *Pins) Change(f func(map[string]Pin)) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	p.mu.Lock()
	next := maps.Clone(p.requested)
	p.mu.Unlock()
	f(next)
	if err := p.save(next); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requested = next
	return nil
}

// Renew writes the file anew, since somebody else took it away or put another in
// its place. The pins in that hold as well.
func (p *Pins) Renew() {
	err := p.Change(func(list map[string]Pin) {
		data, err := lines.ReadFile(p.fs, "pins.read", p.path)
		if err != nil {
			return
		}
		there, _ := parsePins(data)
		for id, pin := range there {
			if _, known := list[id]; !known {
				list[id] = pin
			}
		}
	})
	if err != nil {
		p.log.Error("the pins will be lost with the end of the service, unless one is set or removed before", "error", err)
	}
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

// IsRequested reports whether somebody asked for a pin of the image, which may
// have ended.
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

// All returns the pins that hold, one for each id, ordered by id.
func (p *Pins) All(now time.Time) []Pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := map[string]bool{}
	for _, list := range []map[string]Pin{p.configured, p.requested} {
		for id := range list {
			ids[id] = true
		}
	}
	pins := []Pin{}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		if pin, ok := p.getLocked(id, now); ok {
			pins = append(pins, pin)
		}
	}
	return pins
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
	err := p.Change(func(list map[string]Pin) {
		for _, pin := range ended {
			if list[pin.ID] == pin { // not set anew meanwhile
				delete(list, pin.ID)
			}
		}
	})
	if err != nil {
		return // they have no effect, and the next time may be better
	}
	for _, pin := range ended {
		p.log.Info("a pin has ended", "image", pin.ID, "until", pin.End())
	}
}

// Lasts reports whether the pin holds at a time.
func (p Pin) Lasts(now time.Time) bool { return p.Until.IsZero() || now.Before(p.Until) }

// End says for the log when the pin ends.
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

// Where a pin comes from, unless [Pin.From] says it better.
const (
	FromConfiguration = "a pin of the configuration"
	FromRequest       = "a request"
)
