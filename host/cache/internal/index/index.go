// Package index knows every cached image with its readers, hits and times. It
// reports what happens to the images, in one order, to the record logs of the
// drivers, to the events that a policy sees, and to the traced requests. Only this
// package uses its mutex: questions about several images at once are methods here.
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

// Index is what the host knows about all cached images. Which images exist is
// decided by the files that a scan finds; the driver's records are merged in. API,
// prune and policy learn about images only from here.
//
// The mutexes of pool, journal, events and pins may be taken under mu, never the
// other way round. None is held during I/O.
type Index struct {
	now    func() time.Time
	mu     sync.Mutex
	images map[string]*Image
	byKey  map[sdk.Key]*Image
	// quarantined holds, by id, the inode of a file that turned out to be
	// corrupt. It is never taken for an image again, even by a request that
	// still finds it under its name or has it open.
	quarantined map[string]uint64
	// departed holds the removed images whose bytes are still charged. A request
	// that opened such a file before it lost its name reads that image; the file
	// does not become a new one.
	departed map[fileID]*Image
	// released counts the departed images whose bytes have returned.
	released uint64

	// onDisk is how many bytes of the disk the images take.
	onDisk int64

	// newest is the latest access in the records. New accesses are noted after
	// it if the clock is behind.
	newest time.Time
	// merged says that the driver's records were merged since the start.
	merged bool

	// pool counts the bytes of images. The index returns those of a removed
	// image once it is unlinked and its last reader has gone.
	pool *space.Pool
	// journals get what the drivers have to learn. They are called under mu, so
	// that their order is the index's order.
	journals journal.Logs
	// events get what the policy has to learn, under mu.
	events *Events
	// requests get each hit, under mu.
	requests *Requests
}

// New returns an index without images. It charges the pool for images, and reports
// to the record log, the events and the requests what happens.
func New(now func() time.Time, p *space.Pool, j *journal.Journal, e *Events, r *Requests) *Index {
	return &Index{
		now: now, images: map[string]*Image{}, byKey: map[sdk.Key]*Image{}, quarantined: map[string]uint64{},
		departed: map[fileID]*Image{},
		pool:     p, journals: journal.Logs{j}, events: e, requests: r,
	}
}

// Found returns the image of a file on disk, or nil if the file is quarantined. A
// file that was not known, or that replaced the known one behind the host's back,
// becomes a new image, for which the pool is charged. The file of an image that is
// leaving still belongs to that image.
func (x *Index) Found(info store.Info) *Image {
	x.mu.Lock()
	defer x.mu.Unlock()
	im, _ := x.foundLocked(info, x.released)
	return im
}

// foundLocked is Found without the mutex. released is what x.released was before
// the file was looked at. stale says that the file is not known and may belong to
// an image that has left since: then the caller must look again.
func (x *Index) foundLocked(info store.Info, released uint64) (im *Image, stale bool) {
	if inode, ok := x.quarantined[info.ID]; ok && inode == info.Inode {
		return nil, false
	}
	if im := x.images[info.ID]; im != nil {
		if sameFile(im.Info, info) {
			if info.Version == "" {
				info.Version = im.Info.Version // the driver's record may know it
			}
			if info.Verified || !im.Info.Verified { // a scan may know less than opening the file found out
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

// newLocked adds a file that was not charged yet.
func (x *Index) newLocked(info store.Info, from moment) *Image {
	x.pool.Charge(info.Size)
	now := x.now()
	im := x.addLocked(info, earlier(info.ModTime, now), from)
	im.guessed = info.ModTime.After(now) // the clock was set back since: no file is from the future
	return im
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// sameFile reports whether two looks at an id saw the same file.
func sameFile(a, b store.Info) bool {
	return a.Size == b.Size && a.ModTime.Equal(b.ModTime)
}

// Commit adds a stored image and returns it, with the older generation that it
// replaces, or nil. The caller becomes a reader of the image and ends that with
// [Index.Close]. The fill has charged the pool for it already.
func (x *Index) Commit(info store.Info, now time.Time) (im, old *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.quarantined[info.ID] == info.Inode {
		delete(x.quarantined, info.ID) // the inode was reused
	}
	old = x.images[info.ID]
	switch {
	case old != nil && sameFile(old.Info, info):
		// A reader found the file after its rename and before this call.
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

// Remove forgets the image of id and returns it, or nil. The caller must move its
// file away and call [Index.Unlinked] afterwards.
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

// RemoveExactly is Remove for this generation of an image only. It reports whether
// the image was still there.
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

// Quarantine forgets the image that is in the same file as im, and never takes the
// file for an image again. It returns the image, or nil if that was done already
// or the file has left the cache.
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

// informLocked notes what is known about the file of an image in the index.
func (x *Index) informLocked(im *Image, info store.Info) {
	x.onDisk += info.OnDisk - im.Info.OnDisk
	im.Info = info
}

// Unguard says that the block tables of all images may be gone. An image counts as
// verified again as soon as a table of it is found.
func (x *Index) Unguard() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, im := range x.images {
		im.Info.Verified = false
	}
}

// Enrich notes what was found out about the file of an image. If its version was
// not known before, it is sent to the driver, but not before the driver's records
// are merged: until then a put could cost the hits of a record without a version,
// and [Index.Merge] sends the version anyway.
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

// OnDisk returns how many bytes of the disk the images take. If their files have
// holes, this is less than their sizes.
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

// View returns what is known about an image at this moment.
func (x *Index) View(im *Image) View {
	x.mu.Lock()
	defer x.mu.Unlock()
	return im.view()
}
