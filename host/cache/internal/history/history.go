// Package history logs what happens to images and remembers the last events of
// each, so that the service can say why an image is not cached.
package history

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/lines"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// The events of images. The log uses the same words.
const (
	Queued      = "queued"
	Cached      = "cached"
	NotFetched  = "not fetched"
	NotStored   = "not stored"
	Evicted     = "evicted"
	Deleted     = "deleted"
	Replaced    = "replaced"
	Quarantined = "quarantined"
	Vanished    = "vanished"    // another program removed the file
	Interrupted = "interrupted" // the service stopped while it was fetched
)

// Event is a thing that happened to an image.
type Event struct {
	Time   time.Time `json:"time"`
	Event  string    `json:"event"`            // such as [Cached] or [Evicted]
	Reason string    `json:"reason,omitempty"` // why, or how
	Times  int       `json:"times,omitempty"`  // how often it happened in a row, if more than once; Time is that of the last
}

const (
	// maxEvents is how many events of an image are kept: a life from the
	// queue to the eviction, and the one before.
	maxEvents = 8
	// maxReason cuts a reason, in bytes: enough for an error with a URL.
	maxReason = 500
	// maxHistory bounds the history of images that were in the cache, in bytes
	// of its file. It takes about as much memory. This is enough for several
	// thousand images, and the file is read or written in a tenth of a second.
	maxHistory = 4 << 20
	// maxStrangers is the same for images that were never in the cache: requests
	// for names that do not exist cannot push out the rest.
	maxStrangers = 256 << 10
	// saveEvery is how often the history is written if there is something new. A
	// kill of the host loses no more than that.
	saveEvery = 10 * time.Second
)

// History remembers the last events of images, and so can say why an image is not
// cached. It is bounded: it forgets those images first to which nothing has
// happened for longest. It is kept in a file; losing that does no harm.
type History struct {
	fs   store.FS
	path string
	log  *slog.Logger
	now  func() time.Time

	// mu guards what follows. It is not held during I/O.
	mu      sync.Mutex
	byID    map[string]*list.Element // of *past, in known or others
	known   shelf
	others  shelf
	changed bool // since the last save
	loaded  bool // the file was read
	failing bool // the last save failed
}

// past is what happened to one image, oldest first. It is never changed, so
// that it can be read outside the mutex.
type past struct {
	ID     string  `json:"id"`
	Events []Event `json:"events"`

	known bool // the image was in the cache once
	bytes int  // about the length of its line in the file
}

// shelf holds pasts up to a number of bytes, the most recently extended last.
type shelf struct {
	list  *list.List
	max   int
	bytes int
}

// New returns a history that is kept in the file path of fsys. [History.Run] reads
// the file. Events are logged to log.
func New(fsys store.FS, path string, log *slog.Logger, now func() time.Time) *History {
	return &History{
		fs: fsys, path: path, log: log, now: now,
		byID:   map[string]*list.Element{},
		known:  shelf{list: list.New(), max: maxHistory},
		others: shelf{list: list.New(), max: maxStrangers},
	}
}

// Happened logs what happens to an image and remembers it. more are further
// attributes of the log line.
func (h *History) Happened(level slog.Level, id, event, reason string, more ...any) {
	h.add(id, event, reason)
	attrs := []any{"image", id}
	if reason != "" {
		attrs = append(attrs, "reason", reason)
	}
	h.log.Log(context.Background(), level, event, append(attrs, more...)...)
}

// add remembers what happened to an image.
func (h *History) add(id, event, reason string) {
	e := Event{Time: h.now().UTC(), Event: event, Reason: cut(reason)}
	h.mu.Lock()
	defer h.mu.Unlock()
	var before []Event
	if el := h.byID[id]; el != nil {
		before = el.Value.(*past).Events
	}
	h.put(&past{ID: id, Events: extend(before, e)}, (*list.List).PushBack)
	h.changed = true
}

// extend returns events with one more; the oldest may be dropped.
func extend(events []Event, e Event) []Event {
	if n := len(events); n > 0 {
		if last := events[n-1]; last.Event == e.Event && last.Reason == e.Reason {
			e.Times = max(last.Times, 1) + 1
			events = events[:n-1]
		}
	}
	events = events[max(0, len(events)-maxEvents+1):]
	return append(events[:len(events):len(events)], e)
}

// cut shortens a long reason, between two characters.
func cut(reason string) string {
	if len(reason) <= maxReason {
		return reason
	}
	return strings.ToValidUTF8(reason[:maxReason], "") + "..."
}

// put makes p the past of its image, and forgets other images if there are too
// many bytes.
func (h *History) put(p *past, place func(*list.List, any) *list.Element) {
	p.known, p.bytes = wasCached(p.Events), len(p.ID)+20
	for _, e := range p.Events {
		p.bytes += len(e.Event) + len(e.Reason) + 80 // the rest is a time and names
	}
	if el := h.byID[p.ID]; el != nil {
		old := el.Value.(*past)
		p.known = p.known || old.known
		h.forget(el)
	}
	s := h.shelf(p)
	h.byID[p.ID] = place(s.list, p)
	s.bytes += p.bytes
	for s.bytes > s.max {
		h.forget(s.list.Front())
	}
}

func (h *History) forget(el *list.Element) {
	p := el.Value.(*past)
	s := h.shelf(p)
	s.list.Remove(el)
	s.bytes -= p.bytes
	delete(h.byID, p.ID)
}

func (h *History) shelf(p *past) *shelf {
	if p.known {
		return &h.known
	}
	return &h.others
}

// wasCached reports whether the events say that the image was in the cache.
func wasCached(events []Event) bool {
	for _, e := range events {
		switch e.Event {
		case Queued, NotFetched, NotStored, Interrupted:
		default:
			return true
		}
	}
	return false
}

// Of returns what happened to an image, oldest first.
func (h *History) Of(id string) []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	if el := h.byID[id]; el != nil {
		return el.Value.(*past).Events
	}
	return nil
}

// Trouble returns what keeps an image from being cached, if the last event says
// so, or "".
func Trouble(events []Event) string {
	if len(events) == 0 {
		return ""
	}
	switch last := events[len(events)-1]; last.Event {
	case Queued, Cached:
		return ""
	case NotFetched, NotStored:
		return last.Reason
	default:
		return strings.TrimSuffix(last.Event+": "+last.Reason, ": ")
	}
}

// Run reads the file, and writes it regularly if there is something new, until
// the context ends.
func (h *History) Run(ctx context.Context) {
	loaded := h.load()
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if !loaded {
				loaded = h.load()
			}
			h.Save()
		case <-ctx.Done():
			return // the caller saves once more when nothing can happen any longer
		}
	}
}

// load adds what an earlier run has saved before the events of this run. It
// returns false while the cache directory is not open.
func (h *History) load() bool {
	data, err := lines.ReadFile(h.fs, "history.read", h.path)
	if errors.Is(err, store.ErrNotOpen) {
		return false
	}
	if err != nil && !lines.Absent(err) {
		h.log.Warn("could not read the history of images", "file", h.path, "error", err)
	}
	var pasts []*past
	damaged := 0
	for text := range bytes.Lines(data) {
		p := &past{}
		if lines.Parse(bytes.TrimSuffix(text, []byte("\n")), p) && sdk.ValidID(p.ID) && len(p.Events) > 0 {
			pasts = append(pasts, p)
		} else {
			damaged++
		}
	}
	if damaged > 0 {
		h.log.Warn("a part of the history of images is lost: lines of its file are damaged", "file", h.path, "lines", damaged)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loaded = true
	for i := len(pasts) - 1; i >= 0; i-- {
		h.precede(pasts[i])
	}
	return true
}

// precede puts an older past before the known past of its image.
func (h *History) precede(p *past) {
	el := h.byID[p.ID]
	if el == nil {
		h.put(p, (*list.List).PushFront)
		return
	}
	for _, e := range el.Value.(*past).Events {
		p.Events = extend(p.Events, e)
	}
	h.put(p, (*list.List).PushBack)
}

// Renew makes the next call of Save write the file again. It is called when another
// program removed the file.
func (h *History) Renew() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed = true
}

// Save writes the file if there is something new. The next call tries again after
// a failure, which is logged once.
func (h *History) Save() {
	h.mu.Lock()
	if !h.changed || !h.loaded {
		h.mu.Unlock()
		return
	}
	h.changed = false
	var pasts []*past
	for _, s := range []shelf{h.others, h.known} {
		for el := s.list.Front(); el != nil; el = el.Next() {
			pasts = append(pasts, el.Value.(*past))
		}
	}
	h.mu.Unlock()

	var b []byte
	for _, p := range pasts {
		b = lines.Append(b, p)
	}
	f, err := lines.ReplaceFile(h.fs, "history", h.path, b)
	if err == nil {
		err = f.Close()
	}
	h.mu.Lock()
	again := h.failing
	h.failing = err != nil
	h.changed = h.changed || err != nil
	h.mu.Unlock()
	if err != nil && !again {
		h.log.Warn("could not write the history of images", "file", h.path, "error", err)
	}
}
