package cache

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

//nolint:gosec // checked because a client may know nothing stronger

// writes are the images that clients bring by themselves. No GET follows one.
type writes struct {
	c      *Cache
	mu     sync.Mutex // guards byName; a write's own mutex is never taken under it
	byName map[string]*write
}

// write is an image on its way in.
type write struct {
	name string
	opts WriteOptions
	size int64 // -1: unknown

	// mu serialises what is done to the write; it is held while bytes are
	// stored, as a write has one client.
	mu      sync.Mutex
	staged  *store.Staged
	sums    map[string]hash.Hash
	room    *space.Reservation
	expires time.Time
	ended   error // committed, aborted, deleted
}

func newWrites(c *Cache) *writes { return &writes{c: c, byName: map[string]*write{}} }

// errWriteEnded is why a write takes no more.
var errWriteEnded = fmt.Errorf("the write has ended: %w", ErrNotFound)

// has reports whether an image is being written.
func (ws *writes) has(id string) bool { return ws.find(id) != nil }

func (ws *writes) find(id string) *write {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.byName {
		if w.opts.ID == id {
			return w
		}
	}
	return nil
}

// use calls f with a write that takes more, under the write's mutex.
func (ws *writes) use(name string, f func(*write) error) error {
	ws.mu.Lock()
	w := ws.byName[name]
	ws.mu.Unlock()
	if w == nil {
		return fmt.Errorf("write %.40q: %w", name, ErrNotFound)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended != nil {
		return w.ended
	}
	return f(w)
}

// add registers a write unless its image is being written already.
func (ws *writes) add(w *write) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, other := range ws.byName {
		if other.opts.ID == w.opts.ID {
			return fmt.Errorf("%w: image %q is being written", ErrConflict, w.opts.ID)
		}
	}
	ws.byName[w.name] = w
	return nil
}

func (ws *writes) forget(w *write) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.byName, w.name)
}

// BeginWrite starts to take an image in from a client. The error wraps
// [ErrBadID], [ErrConflict] when the image is cached, filling or being written,
// [ErrNoSpace] when there is no room, and [ErrVerify] for a digest that can be
// none. A write to which no bytes come for the stall time is aborted.
func (c *Cache) BeginWrite(ctx context.Context, o WriteOptions) (WriteStatus, error) {
	if !sdk.ValidID(o.ID) {
		return WriteStatus{}, badID(o.ID)
	}
	w := &write{name: rand.Text(), opts: o, size: -1, sums: map[string]hash.Hash{"sha256": sha256.New()}}
	if o.Size != nil {
		w.size = max(*o.Size, -1)
	}
	if err := w.declare(); err != nil {
		return WriteStatus{}, err
	}
	if s := c.state(o.ID); s == StateCached || s == StateFilling {
		return WriteStatus{}, fmt.Errorf("%w: image %q is %s", ErrConflict, o.ID, s)
	}
	if err := c.writes.add(w); err != nil {
		return WriteStatus{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := c.openWrite(ctx, w); err != nil {
		w.ended = err
		c.writes.forget(w)
		return WriteStatus{}, err
	}
	c.putOff(w)
	return w.status(), nil
}

// declare checks the declared digests and prepares their computation.
func (w *write) declare() error {
	for algorithm, want := range w.declared() {
		var h hash.Hash
		switch algorithm {
		case "md5":
			h = md5.New() //nolint:gosec // see the import
		case "sha512":
			h = sha512.New()
		default:
			h = w.sums["sha256"]
		}
		if b, err := hex.DecodeString(want); err != nil || len(b) != h.Size() {
			return fmt.Errorf("%w: %s is %.140q, want %d hex digits", ErrVerify, algorithm, want, 2*h.Size())
		}
		w.sums[algorithm] = h
	}
	return nil
}

// declared returns the digests that the client knows, in lower-case hex.
func (w *write) declared() map[string]string {
	d := map[string]string{"md5": w.opts.MD5, "sha256": w.opts.SHA256, "sha512": w.opts.SHA512}
	for algorithm, hex := range d {
		if d[algorithm] = strings.ToLower(hex); hex == "" {
			delete(d, algorithm)
		}
	}
	return d
}

func (c *Cache) openWrite(ctx context.Context, w *write) error {
	first := max(w.size, 0)
	if err := c.admits(first); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	room := space.NewReservation(c.pool, c.free)
	if err := c.reserve(ctx, first, room); err != nil {
		room.Release()
		return err
	}
	staged, err := c.store.Stage(w.opts.ID)
	if err != nil {
		room.Release()
		return fmt.Errorf("begin write: %w", err)
	}
	w.room = room
	w.staged = staged
	return nil
}

// putOff puts the expiry off.
func (c *Cache) putOff(w *write) { w.expires = c.cfg.Now().Add(c.cfg.StallTime) }

func (w *write) status() WriteStatus {
	return WriteStatus{Write: w.name, Offset: w.staged.Size(), Expires: w.expires.UTC()}
}

// WriteData appends what r yields, which must belong at offset; offset < 0 means
// at the end. The status says how far the write is now, also after an error. The
// error wraps [ErrNotFound] when there is no such write, or none any more,
// [ErrConflict] when the write continues at another offset, [ErrVerify] for more
// bytes than were declared, and [ErrNoSpace] when there is no room for them.
// Only after ErrNotFound is there no write to go on with.
func (c *Cache) WriteData(ctx context.Context, name string, offset int64, r io.Reader) (status WriteStatus, err error) {
	err = c.writes.use(name, func(w *write) error {
		if at := w.staged.Size(); offset >= 0 && offset != at {
			status = w.status()
			return fmt.Errorf("%w: the write continues at offset %d, not %d", ErrConflict, at, offset)
		}
		err := c.copyWrite(ctx, w, r)
		status = w.status()
		return err
	})
	return status, err
}

func (c *Cache) copyWrite(ctx context.Context, w *write, r io.Reader) error {
	buf := blocks.get()
	defer blocks.put(buf)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := c.appendWrite(ctx, w, buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			c.putOff(w)
			return nil
		case err != nil:
			return fmt.Errorf("read body: %w", err)
		}
	}
}

func (c *Cache) appendWrite(ctx context.Context, w *write, p []byte) error {
	after := w.staged.Size() + int64(len(p))
	if w.size >= 0 && after > w.size {
		return fmt.Errorf("%w: more than the declared %d bytes", ErrVerify, w.size)
	}
	if err := c.admits(after); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	if short := after - w.room.Bytes(); short > 0 {
		if err := c.reserve(ctx, short, w.room); err != nil {
			return err
		}
	}
	if _, err := w.staged.Write(p); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	w.room.OnDisk(w.staged.Size())
	for _, h := range w.sums {
		h.Write(p)
	}
	c.putOff(w)
	return nil
}

// WriteState returns how far a write is. The error wraps [ErrNotFound] when
// there is no such write, or none any more.
func (c *Cache) WriteState(name string) (status WriteStatus, err error) {
	err = c.writes.use(name, func(w *write) error {
		status = w.status()
		return nil
	})
	return status, err
}

// CommitWrite publishes the image. The error wraps [ErrVerify] when size or
// digests are not those declared, [ErrConflict] when the image was cached
// meanwhile, and [ErrNotFound] when there is no such write. After a conflict the
// write goes on; after any other error it has ended, and its file went to
// invalid/.
func (c *Cache) CommitWrite(_ context.Context, name string) (info ImageInfo, err error) {
	err = c.writes.use(name, func(w *write) (err error) {
		info, err = c.commitWrite(w)
		return err
	})
	return info, err
}

func (c *Cache) commitWrite(w *write) (ImageInfo, error) {
	if err := w.verify(); err != nil {
		c.endWrite(w, errWriteEnded)
		c.history.Happened(slog.LevelWarn, w.opts.ID, NotStored, err.Error())
		return ImageInfo{}, err
	}
	if c.index.Get(w.opts.ID) != nil {
		return ImageInfo{}, fmt.Errorf("%w: image %q was cached meanwhile", ErrConflict, w.opts.ID)
	}
	sum := hex.EncodeToString(w.sums["sha256"].Sum(nil))
	meta := store.Meta{Version: "sha256:" + sum, SHA256: sum, Name: c.nameToKeep(w.opts.ID), Label: known{Written: true}.label()}
	im, err := c.commitStaged(w.staged, meta, w.room, forever)
	if err != nil {
		c.disk.fail(err)
		c.endWrite(w, errWriteEnded)
		return ImageInfo{}, err
	}
	w.ended = errWriteEnded
	c.writes.forget(w)
	w.staged.Release()
	defer c.index.Close(im)
	info := infoOf(c.index.View(im))
	info.Name = c.nameOf(info.ID, "")
	return info, nil
}

func (w *write) verify() error {
	if at := w.staged.Size(); w.size >= 0 && at != w.size {
		return fmt.Errorf("%w: %d bytes were written, %d declared", ErrVerify, at, w.size)
	}
	for algorithm, want := range w.declared() {
		if got := hex.EncodeToString(w.sums[algorithm].Sum(nil)); got != want {
			return fmt.Errorf("%w: %s is %s, declared is %s", ErrVerify, algorithm, got, want)
		}
	}
	return nil
}

// AbortWrite ends a write; what was written goes to invalid/. The error wraps
// [ErrNotFound] when there is no such write, or none any more.
func (c *Cache) AbortWrite(_ context.Context, name string) error {
	return c.writes.use(name, func(w *write) error {
		c.endWrite(w, errWriteEnded)
		return nil
	})
}

// endWrite ends a write without a commit, keeping the file for inspection.
// The caller holds w.mu.
func (c *Cache) endWrite(w *write, why error) {
	w.ended = why
	c.writes.forget(w)
	c.keepStaged(w.staged)
	w.staged.Release()
	w.room.Release()
}

// bar ends the write of an image that is deleted.
func (ws *writes) bar(_ context.Context, id string) error {
	w := ws.find(id)
	if w == nil {
		return nil
	}
	w.mu.Lock() // waits for a commit that runs
	defer w.mu.Unlock()
	if w.ended == nil {
		ws.c.endWrite(w, fmt.Errorf("%w: %w", errDeleted, ErrNotFound))
	}
	return nil
}

// expire aborts idle writes until the context ends, and then all others.
func (ws *writes) expire(ctx context.Context) {
	tick := time.NewTicker(min(ws.c.cfg.StallTime, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			ws.end(func(w *write) bool { return ws.c.cfg.Now().After(w.expires) })
		case <-ctx.Done():
			ws.end(func(*write) bool { return true })
			return
		}
	}
}

func (ws *writes) end(which func(*write) bool) {
	ws.mu.Lock()
	var list []*write
	for _, w := range ws.byName {
		list = append(list, w)
	}
	ws.mu.Unlock()
	for _, w := range list {
		w.mu.Lock()
		if w.ended == nil && w.staged != nil && which(w) {
			ws.c.endWrite(w, errWriteEnded)
		}
		w.mu.Unlock()
	}
}
