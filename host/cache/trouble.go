package cache

import (
	"errors"
	"log/slog"
	"sync"
	"time"
)

// notes remembers, of each image, the last thing that kept it from being
// cached or took it out.
type notes struct {
	mu   sync.Mutex
	ids  []string // oldest first
	text map[string]string
}

// maxNotes bounds the notes: a few hundred KiB.
const maxNotes = 1000

func newNotes() *notes { return &notes{text: map[string]string{}} }

func (n *notes) add(id string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.text[id]; !known {
		n.ids = append(n.ids, id)
	}
	n.text[id] = err.Error()
	for len(n.ids) > maxNotes {
		delete(n.text, n.ids[0])
		n.ids = n.ids[1:]
	}
}

func (n *notes) get(id string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text[id]
}

func (n *notes) clear(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.text[id]; known {
		n.text[id] = ""
	}
}

// disk remembers that the cache directory cannot be written, so that not
// every miss has to find out by itself.
type disk struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	reason error
	until  time.Time
}

// diskPause is how long nothing is stored after the disk failed: short, since
// a full disk may be emptied any time, and long enough that a dead one costs
// a fill in a while and not each.
const diskPause = 5 * time.Second

func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason == nil {
		d.log.Error("the cache directory fails; images are passed through", "error", err)
	}
	d.reason, d.until = err, d.now().Add(diskPause)
}

// ok is called when the disk worked.
func (d *disk) ok() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason != nil {
		d.log.Info("the cache directory works again")
	}
	d.reason = nil
}

// broken returns why nothing is to be stored now, or nil.
func (d *disk) broken() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason != nil && d.now().Before(d.until) {
		return d.reason
	}
	return nil
}

func (d *disk) state() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason == nil {
		return "ok"
	}
	return d.reason.Error()
}

// storeFailed notes that an image could not be stored. Its clients do not
// notice.
func (c *Cache) storeFailed(id string, err error) {
	c.notes.add(id, err)
	c.log.Warn("image is not stored", "image", id, "error", err)
	if !errors.Is(err, ErrNoSpace) {
		c.disk.fail(err)
	}
}

// fetchFailed notes that an image could not be fetched.
func (c *Cache) fetchFailed(id string, err error) {
	if errors.Is(err, errStopped) {
		return
	}
	c.notes.add(id, err)
	if errors.Is(err, ErrNotFound) {
		c.log.Info("the origin has no such image", "image", id, "error", err)
		return
	}
	c.log.Warn("image could not be fetched", "image", id, "error", err)
}
