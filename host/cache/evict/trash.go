package evict

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/store"
)

// UnlinkInTrash unlinks a file in trash later. Its bytes must count as being
// freed already. im is the image that the file was, or nil.
func (e *Evictor) UnlinkInTrash(file store.Trashed, im *index.Image) {
	e.unlinkLater(trashed{file: file, im: im})
}

// trashed is a file that waits to be unlinked.
type trashed struct {
	file store.Trashed
	im   *index.Image // nil: left over from an earlier run
	done func()       // called after the first attempt to unlink it; may be nil

	tried bool // the first attempt was made
}

func (t trashed) size() int64 {
	if t.im != nil {
		return t.im.Size
	}
	return t.file.Size
}

// Discard moves the file of an image to trash. The image must have left the
// index, and its bytes must count as being freed. After an error the image is in
// the index again.
func (e *Evictor) Discard(im *index.Image, done func()) error {
	file, err := e.store.Trash(im.ID)
	if err == nil {
		e.unlinkLater(trashed{file: file, im: im, done: done})
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // another program removed the file
	} else {
		e.index.Stays(im) // before its bytes return to the pool
		e.log.Warn("could not move an image to trash; it stays in the cache", "image", im.ID, "error", err)
	}
	e.gone(im)
	if done != nil {
		done()
	}
	return err
}

// unlinkLater hands a file in trash to the goroutine that unlinks. Once the cache
// is stopped the file stays in trash until the next start.
func (e *Evictor) unlinkLater(t trashed) {
	select {
	case e.trash <- t:
	case <-e.stopped:
		if t.done != nil {
			t.done()
		}
	}
}

func (e *Evictor) gone(im *index.Image) {
	e.pool.EndFreeing(im.Size)
	e.index.Unlinked(im)
}

// ReclaimAgain is how long a file that could not be unlinked is left alone.
const ReclaimAgain = time.Minute

// reclaim unlinks files in trash in a goroutine of its own, because a GiB takes
// a quarter of a second. A file that cannot be unlinked is tried again; its bytes
// stay charged, since they are on the disk, but no longer count as being freed,
// so that nobody waits for them.
func (e *Evictor) reclaim(ctx context.Context) {
	var stuck []trashed
	tick := time.NewTicker(ReclaimAgain)
	defer tick.Stop()
	for {
		select {
		case t := <-e.trash:
			if !e.unlink(&t) {
				stuck = append(stuck, t)
			}
		case <-tick.C:
			stuck = slices.DeleteFunc(stuck, func(t trashed) bool { return e.unlink(&t) })
		case <-ctx.Done():
			return
		}
	}
}

// Empty unlinks the files that wait in trash. It is called after Run has ended.
func (e *Evictor) Empty() {
	for {
		select {
		case t := <-e.trash:
			e.unlink(&t)
		default:
			return
		}
	}
}

// unlink tries to unlink a file and reports whether its bytes were released.
func (e *Evictor) unlink(t *trashed) bool {
	err := e.store.Reclaim(t.file)
	first := !t.tried
	t.tried = true
	if first {
		e.pool.EndFreeing(t.size()) // before their release, which wakes everybody who waits for room
	}
	switch {
	case err != nil:
		e.log.Warn("could not unlink a file in trash; its bytes still count, and it is tried again", "file", t.file.Name, "error", err)
	case t.im != nil:
		e.index.Unlinked(t.im)
	default:
		e.pool.Release(t.file.Size)
	}
	if first && t.done != nil {
		t.done()
	}
	return err == nil
}
