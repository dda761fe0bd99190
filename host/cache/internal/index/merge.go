package index

import (
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Merge merges records of the driver in use into the index. The hits of an image
// are those of its record plus those in the record log; its last access is the
// later one. A record without an image, a stranger, is deleted; a record of another
// version or size is replaced. A record without a version was made by another
// program, or by a driver that keeps none, and fits any image of its size. lossy
// says that the driver may have lost what it had acknowledged, such as a restored
// database: then a record gets back the hits that it lacks. Merge adds the ids of
// images with a record to seen, and returns the number of strangers.
func (x *Index) Merge(entries []sdk.Entry, seen map[string]bool, lossy bool) (strangers int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	log := x.journals[0]
	for _, e := range entries {
		unsent := log.Unacknowledged(e.ID)
		im := x.images[e.ID]
		if im == nil {
			strangers++
			if !unsent.Any && sdk.ValidID(e.ID) { // otherwise a delete is on its way, or a put of an image that was removed since
				log.Delete(e.ID)
			}
			continue
		}
		seen[e.ID] = true
		if im.Info.Version == "" && e.Size == im.Size {
			im.Info.Version = e.Version // the file's own was lost with its block table, or it never had one
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

// maxAhead is how far an access in a record may be ahead of the clock. If it is
// further ahead the driver made a mistake, and later accesses must not be moved
// behind it.
const maxAhead = 10 * 365 * 24 * time.Hour

// rememberLocked notes the last access that a record has for an image.
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

// PutMissing sends the driver a record of each image that is not in seen.
func (x *Index) PutMissing(seen map[string]bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, im := range x.images {
		if !seen[id] {
			x.journals[0].Put(im.entry())
		}
	}
}
