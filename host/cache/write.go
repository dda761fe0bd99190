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
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

//nolint:gosec // MD5 is checked because a client may know nothing stronger

// writes holds the images that clients are writing. A GET cannot follow a write.
type writes struct {
	c      *Cache
	mu     sync.Mutex // guards what follows; a write's own mutex is never taken under it
	byName map[string]*write
	byID   map[string]*write
}

// write is an image that a client is writing.
type write struct {
	name    string
	opts    WriteOptions
	size    int64 // -1: unknown
	started time.Time

	// turn is held by the call that appends bytes or commits, also while it waits
	// for its client. It is taken before mu.
	turn chan struct{}

	// mu guards what follows. It is held while bytes are stored, but not while a
	// client is waited for.
	mu      sync.Mutex
	staged  *store.Staged // set under the mutex of all writes too; nil: not begun
	sums    map[string]hash.Hash
	room    *space.Reservation
	expires time.Time
	ended   error // why it takes no more: it was committed, aborted or deleted; nil: it goes on
}

// maxWrites is how many writes there may be at once. Each has a file open, and by
// default a process may have 1024, of which a download needs two. No client writes so
// many images at the same time on purpose.
const maxWrites = 256

func newWrites(c *Cache) *writes {
	return &writes{c: c, byName: map[string]*write{}, byID: map[string]*write{}}
}

// errWriteEnded says that a write takes no more bytes.
var errWriteEnded = fmt.Errorf("the write has ended: %w", ErrNotFound)

// has reports whether an image is being written.
func (ws *writes) has(id string) bool { return ws.find(id) != nil }

func (ws *writes) find(id string) *write {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.byID[id]
}

// count returns how many images are being written.
func (ws *writes) count() int {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return len(ws.byName)
}

// list returns all writes.
func (ws *writes) list() []*write {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return slices.Collect(maps.Values(ws.byName))
}

// progress returns how far the writes are.
func (ws *writes) progress() []FillInfo {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var list []FillInfo
	for _, w := range ws.byName {
		info := FillInfo{
			ID: w.opts.ID, Phase: Writing, Write: w.name, Size: w.size, Written: w.writtenLocked(), Started: w.started,
		}
		if took := time.Since(w.started).Seconds(); took > 0 {
			info.Rate = int64(float64(info.Written) / took)
		}
		list = append(list, info)
	}
	return list
}

// written returns how many bytes of a write have come.
func (ws *writes) written(w *write) int64 {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return w.writtenLocked()
}

// writtenLocked returns how many bytes have come. The caller holds the mutex of all
// writes.
func (w *write) writtenLocked() int64 {
	if w.staged == nil {
		return 0
	}
	return w.staged.Size()
}

func (ws *writes) named(name string) (*write, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.byName[name]; w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("write %.40q: %w", name, ErrNotFound)
}

// use calls f with a write that has not ended, under the write's mutex.
func (ws *writes) use(name string, f func(*write) error) error {
	w, err := ws.named(name)
	if err != nil {
		return err
	}
	return w.use(func() error { return f(w) })
}

func (w *write) use(f func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended != nil {
		return w.ended
	}
	return f()
}

// inTurn calls f with a write when no other call appends bytes to it or commits it.
func (ws *writes) inTurn(ctx context.Context, name string, f func(*write) error) error {
	w, err := ws.named(name)
	if err != nil {
		return err
	}
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
		return f(w)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// add registers a write, unless its image is being written already or there are too
// many writes.
func (ws *writes) add(w *write) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.byID[w.opts.ID] != nil {
		return fmt.Errorf("%w: image %q is being written", ErrConflict, w.opts.ID)
	}
	if len(ws.byName) >= maxWrites {
		return fmt.Errorf("%w: %d images are being written, which is the most; commit or abort one, or wait until idle ones end", sdk.ErrUnavailable, maxWrites)
	}
	ws.byName[w.name], ws.byID[w.opts.ID] = w, w
	return nil
}

// begun sets the file of a write.
func (ws *writes) begun(w *write, staged *store.Staged) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w.staged = staged
}

func (ws *writes) forget(w *write) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.byName, w.name)
	delete(ws.byID, w.opts.ID)
}

// BeginWrite begins a write of an image by a client. Room for it is made as its bytes
// come, and not by the declared size. The error wraps [ErrBadID]; [ErrConflict] if the
// image is cached, filling or being written; [ErrNoSpace] if there can never be room;
// [ErrVerify] for a malformed digest; and [sdk.ErrUnavailable] while there are too
// many writes. A write to which no bytes come for WriteTimeout is aborted.
func (c *Cache) BeginWrite(_ context.Context, o WriteOptions) (WriteStatus, error) {
	if !sdk.ValidID(o.ID) {
		return WriteStatus{}, badID(o.ID)
	}
	w := &write{
		name: rand.Text(), opts: o, size: -1, started: time.Now(),
		turn: make(chan struct{}, 1), sums: map[string]hash.Hash{"sha256": sha256.New()},
	}
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
	if err := c.openWrite(w); err != nil {
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
			return fmt.Errorf("%w: %s is %.140q; expected %d hex digits", ErrVerify, algorithm, want, 2*h.Size())
		}
		w.sums[algorithm] = h
	}
	return nil
}

// declared returns the digests that the client declared, in lower-case hex.
func (w *write) declared() map[string]string {
	d := map[string]string{"md5": w.opts.MD5, "sha256": w.opts.SHA256, "sha512": w.opts.SHA512}
	for algorithm, hex := range d {
		if d[algorithm] = strings.ToLower(hex); hex == "" {
			delete(d, algorithm)
		}
	}
	return d
}

func (c *Cache) openWrite(w *write) error {
	least := max(w.size, 0)
	if err := c.admits(least); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	if err := c.fits(least); err != nil {
		return err
	}
	if err := c.disk.broken(); err != nil {
		return err
	}
	staged, err := c.store.Stage(w.opts.ID)
	if err != nil {
		return fmt.Errorf("begin write: %w", err)
	}
	w.room = space.NewReservation(c.pool, c.free)
	c.writes.begun(w, staged)
	return nil
}

// putOff postpones the expiry of a write.
func (c *Cache) putOff(w *write) { w.expires = c.cfg.Now().Add(c.cfg.WriteTimeout) }

func (w *write) status() WriteStatus {
	return WriteStatus{Write: w.name, Offset: w.staged.Size(), Expires: w.expires.UTC()}
}

// WriteData appends the bytes that r yields. offset is where they belong; offset < 0
// means at the end. The status says how far the write is now, also after an error.
// The error wraps [ErrNotFound] if there is no such write, or it has ended;
// [ErrConflict] if the write continues at another offset; [ErrVerify] for more bytes
// than were declared; and [ErrNoSpace] if there is no room for them. After all errors
// but ErrNotFound the write can be continued.
func (c *Cache) WriteData(ctx context.Context, name string, offset int64, r io.Reader) (status WriteStatus, err error) {
	err = c.writes.inTurn(ctx, name, func(w *write) error {
		err := w.use(func() error {
			if at := w.staged.Size(); offset >= 0 && offset != at {
				return fmt.Errorf("%w: the write continues at offset %d, not %d", ErrConflict, at, offset)
			}
			return nil
		})
		if err == nil {
			err = c.copyWrite(ctx, w, r)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
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
		stored := w.use(func() error {
			if n > 0 {
				c.putOff(w)
			}
			return c.appendWrite(ctx, w, buf[:n])
		})
		switch {
		case stored != nil:
			return stored
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read body: %w", err)
		}
	}
}

// appendWrite stores bytes. It makes room only for these: nobody knows how many bytes
// a client will send, and writes must not reserve room that they do not use.
func (c *Cache) appendWrite(ctx context.Context, w *write, p []byte) error {
	after := w.staged.Size() + int64(len(p))
	if w.size >= 0 && after > w.size {
		return fmt.Errorf("%w: more than the declared %d bytes", ErrVerify, w.size)
	}
	if err := c.admits(after); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	if err := c.reserve(ctx, max(0, after-w.room.Bytes()), w.room); err != nil {
		return err
	}
	if _, err := w.staged.Write(p); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	w.room.OnDisk(w.staged.Size(), w.staged.Size())
	for _, h := range w.sums {
		h.Write(p)
	}
	return nil
}

// WriteState returns how far a write is. The error wraps [ErrNotFound] if there is no
// such write, or it has ended.
func (c *Cache) WriteState(name string) (status WriteStatus, err error) {
	err = c.writes.use(name, func(w *write) error {
		status = w.status()
		return nil
	})
	return status, err
}

// CommitWrite makes a write an image of the cache. The error wraps [ErrVerify] if
// size or digests are not the declared ones, [ErrConflict] if the image was cached
// meanwhile, and [ErrNotFound] if there is no such write. After a conflict the write
// can be continued; after any other error it has ended, and its file is in invalid/.
func (c *Cache) CommitWrite(ctx context.Context, name string) (info ImageInfo, err error) {
	err = c.writes.inTurn(ctx, name, func(w *write) error {
		return w.use(func() (err error) {
			info, err = c.commitWrite(w)
			return err
		})
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
	im, err := c.commitStaged(w.staged, meta, w.room, c.cfg.Now(), forever)
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
		return fmt.Errorf("%w: %d bytes were written; expected the declared %d", ErrVerify, at, w.size)
	}
	for algorithm, want := range w.declared() {
		if got := hex.EncodeToString(w.sums[algorithm].Sum(nil)); got != want {
			return fmt.Errorf("%w: %s is %s; expected the declared %s", ErrVerify, algorithm, got, want)
		}
	}
	return nil
}

// AbortWrite ends a write. What was written goes to invalid/. The error wraps
// [ErrNotFound] if there is no such write, or it has ended.
func (c *Cache) AbortWrite(_ context.Context, name string) error {
	return c.writes.use(name, func(w *write) error {
		c.endWrite(w, errWriteEnded)
		return nil
	})
}

// endWrite ends a write without a commit and keeps its file for inspection. The
// caller holds w.mu.
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
	w.mu.Lock() // waits for a running commit
	defer w.mu.Unlock()
	if w.ended == nil {
		ws.c.endWrite(w, fmt.Errorf("%w: %w", errDeleted, ErrNotFound))
	}
	return nil
}

// writesTick is how often idle writes are looked for.
const writesTick = 10 * time.Second

// expire aborts idle writes until the context ends, and then all others.
func (ws *writes) expire(ctx context.Context) {
	tick := time.NewTicker(min(ws.c.cfg.WriteTimeout, writesTick))
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
	for _, w := range ws.list() {
		w.mu.Lock()
		if w.ended == nil && w.staged != nil && which(w) {
			ws.c.endWrite(w, errWriteEnded)
		}
		w.mu.Unlock()
	}
}
