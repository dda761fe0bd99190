package index

import (
	"cmp"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

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

// Access moves the last access, at the start of a GET.
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
		x.journals.Touch(im.ID, 0, im.accessed)
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
	x.journals.Touch(im.ID, 1, im.accessed)
}

// hitsLocked sets the hits of an image.
func (x *Index) hitsLocked(im *Image, hits uint64, from moment) {
	x.events.weigh(weightOf(im, hits)-weightOf(im, im.hits), from)
	im.hits = hits
}
