// Package index knows every cached image, its readers, hits and times, and
// tells in one order what happens to them: the record logs of the drivers, the
// events that a policy sees, and the requests that are traced. Its mutex is
// its own: what others ask of several images at once is a method here.
package index

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/journal"
	"github.com/imgcache/imgcache-host/host/cache/internal/space"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/trace"
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

	// newest is the latest access on record, when the clock is behind it.
	newest time.Time
	// merged says that the driver's records have been taken in since the start.
	merged bool

	// pool says how many bytes images hold; the index returns those of a
	// removed image once it is unlinked and its last reader has gone.
	pool *space.Pool
	// log is told, under mu so that its order is the index's order, what
	// the driver has to learn.
	log journal.Logs
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
		pool:     p, log: journal.Logs{j}, events: e, requests: r,
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

// Releases counts the images whose bytes have returned to the pool.
func (x *Index) Releases() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.released
}

// Opened is found for a file that was opened after releases were counted. The
// image is acquired. It is stale when the file was unknown and may have left
// meanwhile, and its bytes with it: then it has to be opened again.
func (x *Index) Opened(info store.Info, released uint64) (im *Image, stale bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	im, stale = x.foundLocked(info, released)
	if im != nil {
		x.holdLocked(im)
		im.readers++
	}
	return im, stale
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
				im.Info = info
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

// Stays says that the file of a removed image is where it was: it becomes an
// image again. The bytes of the removed one are not released yet.
func (x *Index) Stays(im *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.departed, im.file())
	if x.images[im.ID] == nil {
		x.newLocked(im.Info, sinceStart)
	}
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
	im.checked = now
	x.useLocked(im, now)
	x.holdLocked(im)
	im.readers++
	if old != nil && old.Info.Version == info.Version {
		// The same content fetched again keeps its hits, as the driver will.
		x.hitsLocked(im, old.hits, sinceStart)
	}
	x.log.Put(im.entry())
	return im, old
}

func (x *Index) addLocked(info store.Info, admitted time.Time, from moment) *Image {
	im := &Image{ID: info.ID, Key: sdk.KeyOf(info.ID), Size: info.Size, Info: info, admitted: admitted, accessed: admitted}
	x.images[info.ID], x.byKey[im.Key] = im, im
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
		x.log.Delete(id)
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
	x.log.Delete(im.ID)
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
	x.log.Delete(im.ID)
	return bad
}

func (x *Index) removeLocked(im *Image, reason sdk.Reason, now time.Time, from moment) {
	im.removed = true
	x.departed[im.file()] = im
	delete(x.images, im.ID)
	delete(x.byKey, im.Key)
	x.events.add(sdk.Event{Kind: sdk.EventRemoved, Key: im.Key, Size: uint64(im.Size), At: now.UnixNano(), Reason: reason}, from)
	x.events.weigh(-weightOf(im, im.hits), from)
}

// Unlinked says that the removed image's file has no name any more. Its bytes
// return to the pool now, or when the last reader closes.
func (x *Index) Unlinked(im *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unlinkedLocked(im)
}

func (x *Index) unlinkedLocked(im *Image) {
	if im.unlinked {
		return
	}
	im.unlinked = true
	x.refundLocked(im)
}

// refundLocked returns the bytes of an image that is unlinked, when nobody has
// it open.
func (x *Index) refundLocked(im *Image) {
	if !im.unlinked || im.holders > 0 {
		return
	}
	if x.departed[im.file()] == im {
		delete(x.departed, im.file())
	}
	x.released++
	x.pool.Release(im.Size)
}

// Close ends what opened or commit began.
func (x *Index) Close(im *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	im.readers--
	x.unholdLocked(im)
}

// Hold counts somebody who has the file open, so that its bytes count until
// drop, but is no reader on whose account it might not be evicted.
func (x *Index) Hold(im *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.holdLocked(im)
}

// Unhold ends what hold began.
func (x *Index) Unhold(im *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unholdLocked(im)
}

func (x *Index) holdLocked(im *Image) {
	if im.unlinked && im.holders == 0 {
		x.pool.Charge(im.Size)
	}
	im.holders++
}

func (x *Index) unholdLocked(im *Image) {
	im.holders--
	x.refundLocked(im)
}

// hot is how long ago an image may have been asked for to be asked for again
// soon: its bytes are worth the memory they take.
const hot = 10 * time.Minute

// Idle reports whether an image has left the index, and whether nobody reads
// it these days.
func (x *Index) Idle(im *Image, now time.Time) (removed, idle bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return im.removed, im.readers == 0 && now.Sub(im.accessed) > hot
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
	im.Info = info
	if changed && x.merged {
		x.log.Put(im.entry())
	}
}

// Access moves the last access, at the start of a GET.
func (x *Index) Access(im *Image, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.requests.Report(im.Key, im.Size, trace.Hit, now)
	if im.removed {
		return
	}
	x.useLocked(im, now)
	x.log.Touch(im.ID, 0, im.accessed)
	x.events.add(sdk.Event{Kind: sdk.EventAccessed, Key: im.Key, Size: uint64(im.Size), At: now.UnixNano(), Count: 1}, sinceStart)
}

// useLocked moves the last access of an image to now.
func (x *Index) useLocked(im *Image, now time.Time) {
	im.used, im.guessed = now, false
	if at := x.momentLocked(now); at.After(im.accessed) {
		im.accessed = at
	}
}

// momentLocked is the time of an access: now, or, when the clock is behind the
// records because it was set back, a moment after all others. So the order of
// accesses is that in which they happened, and no record goes back. A
// microsecond is the least that drivers keep.
func (x *Index) momentLocked(now time.Time) time.Time {
	if !now.Before(x.newest) {
		return now
	}
	x.newest = x.newest.Add(time.Microsecond)
	return x.newest
}

// AsOf is a time that no access up to now is after, and every later one is.
func (x *Index) AsOf(now time.Time) time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !now.Before(x.newest) {
		return now
	}
	return x.newest
}

// KeepOrder says that all records are merged. What was used while they were
// not known, by a clock that turns out to be behind them, was used after what
// they tell of.
func (x *Index) KeepOrder(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.merged = true
	x.events.Stir()
	if !now.Before(x.newest) {
		return
	}
	var list []*Image
	for _, im := range x.images {
		if !im.used.IsZero() {
			list = append(list, im)
		}
	}
	slices.SortFunc(list, func(a, b *Image) int {
		return cmp.Or(a.used.Compare(b.used), a.accessed.Compare(b.accessed))
	})
	for _, im := range list {
		im.accessed = x.momentLocked(now)
		x.log.Touch(im.ID, 0, im.accessed)
	}
}

// Hit counts a download whose last byte has left.
func (x *Index) Hit(im *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if im.removed {
		return
	}
	x.hitsLocked(im, im.hits+1, sinceStart)
	x.log.Touch(im.ID, 1, im.accessed)
}

// hitsLocked sets the hits of an image.
func (x *Index) hitsLocked(im *Image, hits uint64, from moment) {
	x.events.weigh(weightOf(im, hits)-weightOf(im, im.hits), from)
	im.hits = hits
}

// Confirm remembers that the origin has the image's version now.
func (x *Index) Confirm(im *Image, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	im.checked = now
}

// CheckedAt returns when the origin last confirmed the version; zero: never.
func (x *Index) CheckedAt(im *Image) time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return im.checked
}

// Evict is removeExactly for an image that may leave, as may says of it under
// the mutex. It reports whether the image left.
func (x *Index) Evict(im *Image, now time.Time, may func(*Image, Use) bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if im.removed || !may(im, im.use()) {
		return false
	}
	x.removeLocked(im, sdk.ReasonEvicted, now, sinceStart)
	x.log.Delete(im.ID)
	return true
}

// Among divides images, in their order, into those that are still cached and of
// which may, which is called under the mutex, says yes, and the others.
func (x *Index) Among(list []*Image, may func(*Image, Use) bool) (yes, no []*Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, im := range list {
		if !im.removed && may(im, im.use()) {
			yes = append(yes, im)
		} else {
			no = append(no, im)
		}
	}
	return yes, no
}

// Candidates returns the images that may leave, as may says of each under the
// mutex, with their records, in no order.
func (x *Index) Candidates(may func(*Image, Use) bool) (images []*Image, records []sdk.Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, im := range x.images {
		if may(im, im.use()) {
			images, records = append(images, im), append(records, im.record())
		}
	}
	return images, records
}

// Sample returns the records of at most n images.
func (x *Index) Sample(n int) (records []sdk.Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, im := range x.images {
		if len(records) >= n {
			break
		}
		records = append(records, im.record())
	}
	return records
}

// ImagesOf returns the images of keys that a policy has named. Foreign counts
// the keys that the policy made up or named twice, but not those of images that
// have left since the policy was last told what happened.
func (x *Index) ImagesOf(keys []sdk.Key) (list []*Image, foreign int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	seen, left := map[sdk.Key]bool{}, x.events.removed()
	for _, key := range keys {
		im := x.byKey[key]
		switch {
		case seen[key], im == nil && !left[key]:
			foreign++
		case im != nil:
			list = append(list, im)
		}
		seen[key] = true
	}
	return list, foreign
}

// Replay returns the records of all images, in no order, as they are at this
// moment; missed are the events up to it that nobody had taken, lost says that
// there were more, and position is where they end.
func (x *Index) Replay() (records []sdk.Record, missed []sdk.Event, lost bool, position uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	missed, lost, position = x.events.Take()
	for _, im := range x.images {
		records = append(records, im.record())
	}
	return records, missed, lost, position
}

// FinishStart ends the start for the policy once the driver's records are
// merged: see [Events.finishStart]. First is false as long as they are not.
func (x *Index) FinishStart() (list []sdk.Event, loaded uint64, whole, first bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.merged {
		return nil, 0, false, false
	}
	return x.events.finishStart()
}

// Get returns the image of id, or nil.
func (x *Index) Get(id string) *Image {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.images[id]
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
	return slices.Clone(x.log)
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

// Merge takes the records of the driver in use in: hits are the record's plus
// what the record log holds, the last access is the later. A record without an image, a
// stranger, is deleted, one of another version or size replaced. One that has no
// version was made by another program, or by a driver that keeps none: it is of
// any image of its size. When the driver has lost what it had acknowledged, as a
// database that was restored, a record gets back the hits that it lacks. The ids
// of images are noted in seen; how many strangers there were is returned.
func (x *Index) Merge(entries []sdk.Entry, seen map[string]bool, lossy bool) (strangers int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	log := x.log[0]
	for _, e := range entries {
		unsent := log.Unacknowledged(e.ID)
		im := x.images[e.ID]
		if im == nil {
			strangers++
			if !unsent.Any && sdk.ValidID(e.ID) { // else a delete, or a put of what was removed since, is on its way
				log.Delete(e.ID)
			}
			continue
		}
		seen[e.ID] = true
		if im.Info.Version == "" && e.Size == im.Size {
			im.Info.Version = e.Version // lost with the block table, or never there
		}
		fits := e.Version == im.Info.Version
		if e.Version == "" {
			fits = e.Size == im.Size
		}
		if fits {
			had := e.Hits + unsent.Hits
			if lossy && had < im.hits {
				log.Touch(e.ID, im.hits-had, im.accessed)
			}
			x.hitsLocked(im, max(im.hits, had), atStart)
			x.rememberLocked(im, e.LastAccessed)
		} else {
			log.Delete(e.ID) // a put of the same version would keep its hits
		}
		if e.Version != im.Info.Version || e.Size != im.Size {
			log.Put(im.entry())
		}
	}
	return strangers
}

// maxAhead is how far ahead of the clock an access on record may be. One that
// is further ahead is a mistake of the driver, and must not put every later
// access beside it.
const maxAhead = 10 * 365 * 24 * time.Hour

// rememberLocked takes in an access that is on record.
func (x *Index) rememberLocked(im *Image, at time.Time) {
	if at.Sub(x.now()) > maxAhead {
		return
	}
	if im.guessed || at.After(im.accessed) {
		im.accessed, im.guessed = at, false
	}
	if at.After(x.newest) {
		x.newest = at
	}
}

// PutMissing tells the driver of the images of which it has no record.
func (x *Index) PutMissing(seen map[string]bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, im := range x.images {
		if !seen[id] {
			x.log[0].Put(im.entry())
		}
	}
}
