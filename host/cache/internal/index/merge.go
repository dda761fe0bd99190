package index

import (
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

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
	log := x.journals[0]
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
			x.journals[0].Put(im.entry())
		}
	}
}
