package cache

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
)

// diskHealth remembers that the cache directory cannot be written to, so that not
// every miss has to find that out.
type diskHealth struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	reason error
	until  time.Time
}

// diskPause is how long nothing is stored after the disk failed. It is short, since
// a full disk may be emptied at any time, and long enough that only some fills
// have to try a dead one.
const diskPause = 5 * time.Second

func (d *diskHealth) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason == nil {
		d.log.Error("the cache directory fails; images are passed through", "error", err)
	}
	d.reason, d.until = err, d.now().Add(diskPause)
}

// ok is called when the disk worked.
func (d *diskHealth) ok() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason != nil {
		d.log.Info("the cache directory works again")
	}
	d.reason = nil
}

// inOrder is called when the directory was found in order. It forgets a failure whose
// reason was that the directory was not.
func (d *diskHealth) inOrder() {
	d.mu.Lock()
	reason := d.reason
	d.mu.Unlock()
	if errors.Is(reason, store.ErrNotOpen) || errors.Is(reason, store.ErrUnusable) {
		d.ok()
	}
}

// broken returns why nothing is to be stored now, or nil. The error is an
// [ErrNoSpace].
func (d *diskHealth) broken() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason != nil && d.now().Before(d.until) {
		return diskError{d.reason}
	}
	return nil
}

// diskError says that nothing is stored because the disk failed just now.
type diskError struct{ reason error }

func (e diskError) Error() string { return "the disk failed just now: " + e.reason.Error() }
func (e diskError) Unwrap() error { return ErrNoSpace }

func (d *diskHealth) state() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason == nil {
		return "ok"
	}
	return d.reason.Error()
}

// storeError says why an image could not be stored, in words that do not need the
// name of the image.
type storeError struct {
	reason string
	err    error
}

func (e storeError) Error() string { return e.reason }
func (e storeError) Unwrap() error { return e.err }
