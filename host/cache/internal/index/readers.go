package index

import "github.com/imgcache/imgcache-host/host/store"

// Releases returns how many images have returned their bytes to the pool.
func (x *Index) Releases() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.released
}

// Opened returns the image of a file that was opened, as [Index.Found] does, and
// makes the caller a reader of it until [Index.Close]. released is what
// [Index.Releases] returned before the file was opened. stale says that the file is
// not known and may have left the cache in the meantime: then the caller must open
// it again.
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

// Unlinked says that the file of a removed image no longer has a name. Its bytes
// return to the pool now, or when the last reader closes it.
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

// refundLocked returns the bytes of an image to the pool if it is unlinked and
// nobody has it open.
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

// Close ends the use of an image by a reader, which began with Opened or Commit.
func (x *Index) Close(im *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	im.readers--
	x.unholdLocked(im)
}

// Hold says that somebody has the file of an image open, so that its bytes count
// until [Index.Unhold]. Unlike a reader, a holder does not prevent eviction.
func (x *Index) Hold(im *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.holdLocked(im)
}

// Unhold ends what Hold began.
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

// Stays says that the file of a removed image is still where it was. It becomes a
// new image. The caller has still to release the bytes of the removed one.
func (x *Index) Stays(im *Image) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.departed, im.file())
	if x.images[im.ID] == nil {
		x.newLocked(im.Info, sinceStart)
	}
}
