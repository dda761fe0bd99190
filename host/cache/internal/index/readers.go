package index

import "github.com/imgcache/imgcache-host/host/store"

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
