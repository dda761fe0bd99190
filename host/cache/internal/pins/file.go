package pins

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/imgcache/imgcache-host/host/cache/internal/lines"
	"github.com/imgcache/imgcache-host/sdk"
)

// The file of pins has a head, as many pins as that says, and behind them what
// was changed since, a line each. It is written anew when the changes have become
// as many as the pins, so that a change costs a line, however many pins there are.

// pinsHead is the first line of the file.
type pinsHead struct {
	Pins int `json:"pins"` // number of pins that follow; behind them come changes
}

// unpinned is the line of a pin that was removed. A line that is a pin sets it.
type unpinned struct {
	ID string `json:"unpinned"`
}

// leastChanges is how many changes a file has at least before it is written anew.
const leastChanges = 100

// change is a pin that is set, or one that is removed.
type change struct {
	pin  Pin // of one that is removed the id counts
	gone bool
	only bool // it is removed only if it is this very pin
}

// batch are changes that come to the file together.
type batch struct {
	changes []change
	over    bool // under Pins.changing
	err     error
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

// parsePins reads what can be read of the file, and reports whether that is all of
// it. Changes that are cut off at the end of a line are not missed.
func parsePins(data []byte) (list map[string]Pin, whole bool) {
	texts := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	var head pinsHead
	whole = lines.Parse(texts[0], &head) && len(texts) > head.Pins
	list = map[string]Pin{}
	for i, text := range texts[1:] {
		var pin Pin
		var gone unpinned
		switch {
		case lines.Parse(text, &pin) && sdk.ValidID(pin.ID):
			list[pin.ID] = pin
		case i >= head.Pins && lines.Parse(text, &gone) && sdk.ValidID(gone.ID):
			delete(list, gone.ID)
		default:
			whole = false
		}
	}
	return list, whole
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
	p.changing.Lock()
	defer p.changing.Unlock()
	if err := p.save(p.requested); err != nil {
		p.log.Error("the pins that could be read will be lost with the end of the service", "error", err)
	}
}

// Renew writes the file anew, since somebody else took it away or put another in
// its place. The pins in that hold as well.
func (p *Pins) Renew() {
	p.changing.Lock()
	defer p.changing.Unlock()
	there := map[string]Pin{}
	if data, err := lines.ReadFile(p.fs, "pins.read", p.path); err == nil {
		there, _ = parsePins(data)
	}
	p.mu.Lock()
	maps.Copy(there, p.requested)
	p.requested = there
	list := maps.Clone(p.requested)
	p.mu.Unlock()
	if err := p.save(list); err != nil {
		p.log.Error("the pins will be lost with the end of the service, unless one is set or removed before", "error", err)
	}
}

// Set adds a pin to those that were asked for, or replaces it, on disk first: after
// an error those from before hold. Calls that come while the file is written
// are written together.
func (p *Pins) Set(pin Pin) error { return p.apply(change{pin: pin}) }

// Remove removes the pin of an image from those that were asked for, as Set
// adds one. An absent one is no error.
func (p *Pins) Remove(id string) error { return p.apply(change{pin: Pin{ID: id}, gone: true}) }

// apply brings changes to disk, and then into force. Whoever comes to the file
// first writes the changes of all who wait for it.
func (p *Pins) apply(changes ...change) error {
	p.mu.Lock()
	if p.next == nil {
		p.next = &batch{}
	}
	mine := p.next
	mine.changes = append(mine.changes, changes...)
	p.mu.Unlock()

	p.changing.Lock()
	defer p.changing.Unlock()
	if !mine.over {
		p.mu.Lock()
		p.next = nil
		p.mu.Unlock()
		mine.err, mine.over = p.write(mine.changes), true
	}
	return mine.err
}

// write brings changes to disk, and then into force. The caller holds p.changing.
func (p *Pins) write(changes []change) error {
	changed := map[string]*Pin{} // nil: it is removed
	var b []byte
	n := 0
	for _, c := range changes {
		id := c.pin.ID
		before, known := p.requested[id]
		if now, again := changed[id]; again {
			if known = now != nil; known {
				before = *now
			}
		}
		switch {
		case !c.gone:
			changed[id] = &c.pin
			b = lines.Append(b, c.pin)
		case known && (!c.only || before == c.pin):
			changed[id] = nil
			b = lines.Append(b, unpinned{id})
		default:
			continue
		}
		n++
	}
	if n == 0 {
		return nil
	}
	if err := p.toDisk(b, n, changed); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	enforce(p.requested, changed)
	return nil
}

func enforce(list map[string]Pin, changed map[string]*Pin) {
	for id, pin := range changed {
		if pin == nil {
			delete(list, id)
		} else {
			list[id] = *pin
		}
	}
}

// toDisk appends n lines to the file. It writes the file anew when it has
// too many of them, cannot be appended to, or was not written in this run.
func (p *Pins) toDisk(b []byte, n int, changed map[string]*Pin) error {
	if p.appended >= 0 && p.appended+n <= max(leastChanges, len(p.requested)) && p.append(b) == nil {
		p.appended += n
		return nil
	}
	next := maps.Clone(p.requested)
	enforce(next, changed)
	return p.save(next)
}

func (p *Pins) append(b []byte) error {
	f, err := p.fs.OpenFile("pins.append", p.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// save replaces the file. The caller holds p.changing.
func (p *Pins) save(list map[string]Pin) error {
	p.appended = -1
	b := lines.Append(nil, pinsHead{Pins: len(list)})
	for _, id := range slices.Sorted(maps.Keys(list)) {
		b = lines.Append(b, list[id])
	}
	f, err := lines.ReplaceFile(p.fs, "pins", p.path, b)
	if err != nil {
		return fmt.Errorf("write pins: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write pins: %w", err)
	}
	p.appended = 0
	return nil
}
