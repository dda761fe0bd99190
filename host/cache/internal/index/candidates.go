package index

import (
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Evict forgets an image if may, which is called under the mutex, says that it may
// leave. It reports whether the image left.
func (x *Index) Evict(im *Image, now time.Time, may func(*Image, Use) bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if im.removed || !may(im, im.use()) {
		return false
	}
	x.removeLocked(im, sdk.ReasonEvicted, now, sinceStart)
	x.journals.Delete(im.ID)
	return true
}

// Among divides images, in their order: yes are those that are still cached and
// may leave, and no are the others. may is called under the mutex.
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

// Candidates returns the images that may leave, with their records, in no order.
// may is called under the mutex.
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

// ImagesOf returns the images of keys that a policy has named. foreign counts
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

// Replay returns the records of all images as they are now, in no order. missed
// are the events up to now that nobody had taken, lost says that there were more,
// and position is where they end.
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
// merged: see [Events.finishStart]. Until then first is false.
func (x *Index) FinishStart() (list []sdk.Event, loaded uint64, whole, first bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.merged {
		return nil, 0, false, false
	}
	return x.events.finishStart()
}
