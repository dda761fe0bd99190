package pins

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/imgcache/imgcache-host/host/cache/internal/lines"
	"github.com/imgcache/imgcache-host/sdk"
)

// The file of pins has a head, as many pins as the head says, and after them the
// changes since, each in a line. It is rewritten when there are as many changes as
// pins. So a change costs only one line, however many pins there are.

// pinsHead is the first line of the file.
type pinsHead struct {
	Pins int `json:"pins"` // number of pins that follow; after them come changes
}

// unpinned is the line for a pin that was removed. The line for a pin that was set is
// the pin.
type unpinned struct {
	ID string `json:"unpinned"`
}

// leastChanges is how many changes a file has at least before it is rewritten.
const leastChanges = 100

// change is a pin that is set, or one that is removed.
type change struct {
	pin  Pin  // if it is removed, only the id counts, unless only is set
	gone bool // it is removed
	only bool // it is removed only if it is exactly this pin
}

// batch is a number of changes that are written to the file together.
type batch struct {
	changes []change
	over    bool // it was written, or failed with err; guarded by Pins.changing
	err     error
}

// Load reads the pins of earlier requests. It never fails: if parts of the file
// cannot be read, only the pins in them are lost, and that is logged.
func (p *Pins) Load() {
	data, err := lines.ReadFile(p.fs, "pins.read", p.path)
	if lines.Absent(err) {
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
// it. If changes are missing at the end, from the beginning of a line on, that is
// not noticed.
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

// setAside keeps a damaged file under another name for inspection, and writes a new
// one with the pins that could be read.
func (p *Pins) setAside(err error) {
	aside := p.path + ".damaged"
	p.log.Error("the file of pins is damaged; pins that could not be read are lost and must be set again",
		"file", aside, "read", len(p.requested), "error", err)
	if err := p.fs.Rename("pins.setaside", p.path, aside); err != nil {
		p.log.Error("could not rename the damaged file of pins", "file", p.path, "error", err)
	}
	p.changing.Lock()
	defer p.changing.Unlock()
	if err := p.save(p.requested); err != nil {
		p.log.Error("could not write the pins that could be read; they will be lost when the service ends", "error", err)
	}
}

// Renew rewrites the file after another program removed or replaced it. The pins in
// the other file are added.
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
		p.log.Error("could not write the pins; they will be lost when the service ends, unless one is set or removed before", "error", err)
	}
}

// Set adds or replaces the pin of a request. It is written to disk first: after an
// error nothing has changed. Calls that come while the file is being written are
// written together.
func (p *Pins) Set(pin Pin) error { return p.apply(change{pin: pin}) }

// Remove removes the pin of an image that a request has set. Like Set it writes to
// disk first. An absent pin is not an error.
func (p *Pins) Remove(id string) error { return p.apply(change{pin: Pin{ID: id}, gone: true}) }

// apply writes changes to disk, and then makes them effective. The first call to get
// the file writes the changes of all calls that wait for it.
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

// write writes changes to disk, and then makes them effective. The caller holds
// p.changing.
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

// toDisk appends n lines to the file. It rewrites the file if that has too many lines,
// cannot be appended to, or was not written in this run.
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
