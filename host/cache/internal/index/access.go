package index

import (
	"cmp"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

// hot is how long an image counts as being in demand after an access. Until then
// its bytes are worth the memory that they take.
const hot = 10 * time.Minute

// Idle reports whether an image has left the index, and whether it is not being
// read and was not accessed for some time.
func (x *Index) Idle(im *Image, now time.Time) (removed, idle bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return im.removed, im.readers == 0 && now.Sub(im.accessed) > hot
}

// Access notes an access of an image at the start of a GET.
func (x *Index) Access(im *Image, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.requests.Report(im.Key, im.Size, trace.Hit, now)
	if im.removed {
		return
	}
	x.useLocked(im, now)
	x.journals.Touch(im.ID, 0, im.accessed)
	x.events.add(sdk.Event{Kind: sdk.EventAccessed, Key: im.Key, Size: uint64(im.Size), At: now.UnixNano(), Count: 1}, sinceStart)
}

// useLocked sets the last access of an image to now.
func (x *Index) useLocked(im *Image, now time.Time) {
	im.used, im.guessed = now, false
	if at := x.momentLocked(now); at.After(im.accessed) {
		im.accessed = at
	}
}

// momentLocked returns the time to note for an access at now. This is now, or, if
// the clock was set back and is behind the records, a microsecond after the newest
// access. So accesses keep the order in which they happened, and the time of a
// record never goes back. Drivers keep times to the microsecond.
func (x *Index) momentLocked(now time.Time) time.Time {
	if !now.Before(x.newest) {
		return now
	}
	x.newest = x.newest.Add(time.Microsecond)
	return x.newest
}

// AsOf returns a time that separates accesses: those up to now are not after it,
// and all later ones are.
func (x *Index) AsOf(now time.Time) time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !now.Before(x.newest) {
		return now
	}
	return x.newest
}

// KeepOrder says that all records are merged. If the clock turns out to be behind
// the records, the images that were used since the start are moved behind all
// others, in their order: they were used later than any record says.
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
		x.journals.Touch(im.ID, 0, im.accessed)
	}
}

// Hit counts a download whose last byte was sent.
func (x *Index) Hit(im *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if im.removed {
		return
	}
	x.hitsLocked(im, im.hits+1, sinceStart)
	x.journals.Touch(im.ID, 1, im.accessed)
}

// hitsLocked sets the hits of an image.
func (x *Index) hitsLocked(im *Image, hits uint64, from moment) {
	x.events.weigh(weightOf(im, hits)-weightOf(im, im.hits), from)
	im.hits = hits
}
