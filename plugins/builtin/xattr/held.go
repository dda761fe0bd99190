package xattr

import (
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// held is what the attributes of a file say of its image.
type held struct {
	entry   sdk.Entry
	exists  bool    // there is an entry
	news    bool    // it has from Glance what no record of ours has
	batches []batch // of the record
	long    string  // SHA-256 of the version, when that lies in a file of its own
	hits    *uint64 // those that Glance sees; nil: none
}

// see takes in what Glance has counted. More than there is on record it can
// only have counted since the file was given back to it, and then it has moved
// the access time of the file too.
func (h *held) see(im *image, hits *uint64) {
	h.hits = hits
	switch {
	case hits == nil:
	case !h.exists:
		h.entry = im.entry(*hits)
		h.exists, h.news = true, true
	case *hits > h.entry.Hits:
		h.entry.Hits, h.entry.LastAccessed, h.news = *hits, later(h.entry.LastAccessed, im.accessed()), true
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
