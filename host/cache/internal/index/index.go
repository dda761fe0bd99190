// Package index knows every cached image, its readers, hits and times, and
// tells in one order what happens to them: the record logs of the drivers, the
// events that a policy sees, and the requests that are traced. Its mutex is
// its own: what others ask of several images at once is a method here.
package index

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/journal"
	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// Index is what the host knows of all cached images. Files found by scanning
// are the truth about which images there are; the driver's records are merged
// in. It is the only source for API, prune and policy.
//
// The mutexes of pool, journal, events and pins may be taken under mu, never the
// other way round. None is held for I/O.
type Index struct {
	now    func() time.Time
	mu     sync.Mutex
	images map[string]*Image
	byKey  map[sdk.Key]*Image
	// quarantined holds, by id, the inode of a file that turned out to be
	// corrupt. It is none of the images any more, whoever still finds it under
	// its name or has it open.
	quarantined map[string]uint64
	// departed holds the removed images whose bytes are still charged. Whoever
	// opened such a file before it lost its name reads that image, and no new
	// one.
	departed map[fileID]*Image
	// released counts the departed images whose bytes have returned.
	released uint64

	// onDisk is what the images take of the disk, in bytes.
	onDisk int64

	// newest is the latest access on record, when the clock is behind it.
	newest time.Time
	// merged says that the driver's records have been taken in since the start.
	merged bool

	// pool says how many bytes images hold; the index returns those of a
	// removed image once it is unlinked and its last reader has gone.
	pool *space.Pool
	// log is told, under mu so that its order is the index's order, what
	// the driver has to learn.
	journals journal.Logs
	// events are told, under mu, what the policy has to learn.
	events *Events
	// requests are told, under mu, of each hit.
	requests *Requests
}

// New returns an index without images. It charges the pool, and tells the
// record log, the events and the requests what happens.
func New(now func() time.Time, p *space.Pool, j *journal.Journal, e *Events, r *Requests) *Index {
	return &Index{
		now: now, images: map[string]*Image{}, byKey: map[sdk.Key]*Image{}, quarantined: map[string]uint64{},
		departed: map[fileID]*Image{},
		pool:     p, journals: journal.Logs{j}, events: e, requests: r,
	}
}

// Found makes sure that a file on disk is known and returns its image, or nil
// when the file is quarantined. The pool is charged when it is new. A file whose
// inode was exchanged behind the host's back is a new generation. One that just
// leaves is the image that it was.
func (x *Index) Found(info store.Info) *Image {
	x.mu.Lock()
	defer x.mu.Unlock()
	im, _ := x.foundLocked(info, x.released)
	return im
}

func (x *Index) foundLocked(info store.Info, released uint64) (im *Image, stale bool) {
	if inode, ok := x.quarantined[info.ID]; ok && inode == info.Inode {
		return nil, false
	}
	if im := x.images[info.ID]; im != nil {
		if sameFile(im.Info, info) {
			if info.Version == "" {
				info.Version = im.Info.Version // the driver's record may know it
			}
			if info.Verified || !im.Info.Verified { // a scan may know less than who opens the file
				x.informLocked(im, info)
			}
			return im, false
		}
	}
	if im := x.departed[fileID{info.ID, info.Inode}]; im != nil && sameFile(im.Info, info) {
		return im, false
	}
	if released != x.released {
		return nil, true
	}
	if im := x.images[info.ID]; im != nil {
		x.removeLocked(im, sdk.ReasonReplaced, info.ModTime, atStart)
		x.unlinkedLocked(im)
		fresh := x.newLocked(info, atStart)
		x.journals.Delete(info.ID) // a put alone would keep the hits of the other file
		x.journals.Put(fresh.entry())
		return fresh, false
	}
	return x.newLocked(info, atStart), false
}

// newLocked adds a file that nobody had charged.
func (x *Index) newLocked(info store.Info, from moment) *Image {
	x.pool.Charge(info.Size)
	now := x.now()
	im := x.addLocked(info, earlier(info.ModTime, now), from)
	im.guessed = info.ModTime.After(now) // the clock was set back since; the future has no images
	return im
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// sameFile reports whether two looks at an id saw one file.
func sameFile(a, b store.Info) bool {
	return a.Size == b.Size && a.ModTime.Equal(b.ModTime)
}

// Commit makes a stored image known, in place of an older generation, which
// is returned. The image is acquired. The pool has been charged for it by its
// fill.
func (x *Index) Commit(info store.Info, now time.Time) (im, old *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.quarantined[info.ID] == info.Inode {
		delete(x.quarantined, info.ID) // the inode has found a new use
	}
	old = x.images[info.ID]
	switch {
	case old != nil && sameFile(old.Info, info):
		// A reader was faster: it found the file between its rename and
		// this call.
		im, old = old, nil
		x.pool.Release(info.Size)
	case old != nil:
		x.removeLocked(old, sdk.ReasonReplaced, now, sinceStart)
		fallthrough
	default:
		im = x.addLocked(info, now, sinceStart)
	}
	x.useLocked(im, now)
	x.holdLocked(im)
	im.readers++
	if old != nil && old.Info.Version == info.Version {
		// The same content fetched again keeps its hits, as the driver will.
		x.hitsLocked(im, old.hits, sinceStart)
	}
	x.journals.Put(im.entry())
	return im, old
}

func (x *Index) addLocked(info store.Info, admitted time.Time, from moment) *Image {
	im := &Image{ID: info.ID, Key: sdk.KeyOf(info.ID), Size: info.Size, Info: info, admitted: admitted, accessed: admitted}
	x.images[info.ID], x.byKey[im.Key] = im, im
	x.onDisk += info.OnDisk
	x.events.add(sdk.Event{Kind: sdk.EventAdmitted, Key: im.Key, Size: uint64(info.Size), At: admitted.UnixNano()}, from)
	x.events.weigh(weightOf(im, 0), from)
	return im
}

// Remove forgets the image of id and returns it, or nil. Its file is the
// caller's to move away; unlinked must be called for it afterwards.
func (x *Index) Remove(id string, reason sdk.Reason, now time.Time) *Image {
	x.mu.Lock()
	defer x.mu.Unlock()
	im := x.images[id]
	if im != nil {
		x.removeLocked(im, reason, now, sinceStart)
		x.journals.Delete(id)
	}
	return im
}

// RemoveExactly is remove for this very generation; it reports whether the
// image was still there.
func (x *Index) RemoveExactly(im *Image, reason sdk.Reason, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if im.removed {
		return false
	}
	x.removeLocked(im, reason, now, sinceStart)
	x.journals.Delete(im.ID)
	return true
}

// Quarantine forgets the image that is in the same file as im, and the file for
// ever. It returns the image, or nil when somebody else did that, or the file
// has left the cache.
func (x *Index) Quarantine(im *Image, now time.Time) *Image {
	x.mu.Lock()
	defer x.mu.Unlock()
	bad := x.images[im.ID]
	if bad == nil || bad.Info.Inode != im.Info.Inode {
		return nil
	}
	x.quarantined[im.ID] = im.Info.Inode
	x.removeLocked(bad, sdk.ReasonCorrupt, now, sinceStart)
	x.journals.Delete(im.ID)
	return bad
}

func (x *Index) removeLocked(im *Image, reason sdk.Reason, now time.Time, from moment) {
	im.removed = true
	x.onDisk -= im.Info.OnDisk
	x.departed[im.file()] = im
	delete(x.images, im.ID)
	delete(x.byKey, im.Key)
	x.events.add(sdk.Event{Kind: sdk.EventRemoved, Key: im.Key, Size: uint64(im.Size), At: now.UnixNano(), Reason: reason}, from)
	x.events.weigh(-weightOf(im, im.hits), from)
}

// informLocked notes what is known of the file of an image that is in the index.
func (x *Index) informLocked(im *Image, info store.Info) {
	x.onDisk += info.OnDisk - im.Info.OnDisk
	im.Info = info
}

// Unguard says that the block tables of all images are gone, or may be. Each image
// is guarded again as soon as somebody finds a table of it.
func (x *Index) Unguard() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, im := range x.images {
		im.Info.Verified = false
	}
}

// Enrich notes what was found out about the file of an image. The driver
// learns of a version that was not known; while its records are not known
// either, that is left to merge, lest a put forget the hits of a record without
// a version.
func (x *Index) Enrich(im *Image, info store.Info) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if im.removed {
		return
	}
	changed := im.Info.Version != info.Version
	x.informLocked(im, info)
	if changed && x.merged {
		x.journals.Put(im.entry())
	}
}

// Get returns the image of id, or nil.
func (x *Index) Get(id string) *Image {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.images[id]
}

// OnDisk returns how many bytes of the disk the images take, fewer than they have
// if their files have holes.
func (x *Index) OnDisk() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.onDisk
}

// Count returns the number of images.
func (x *Index) Count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.images)
}

// Logs returns the record logs, that of the driver in use first.
func (x *Index) Logs() journal.Logs {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.journals)
}

// All returns the views of all images, ordered by id.
func (x *Index) All() []View {
	x.mu.Lock()
	list := make([]View, 0, len(x.images))
	for _, im := range x.images {
		list = append(list, im.view())
	}
	x.mu.Unlock()
	slices.SortFunc(list, func(a, b View) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// View returns what is known of an image at this moment.
func (x *Index) View(im *Image) View {
	x.mu.Lock()
	defer x.mu.Unlock()
	return im.view()
}
