package xattr

import (
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// held is what the attributes of a file say of its image.
type held struct {
	entry   sdk.Entry
	exists  bool    // there is an entry
	foreign bool    // it began as Glance's, and the host has put none since
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
		h.exists, h.foreign, h.news = true, true, true
	case *hits > h.entry.Hits:
		h.entry.Hits, h.entry.LastAccessed, h.news = *hits, later(h.entry.LastAccessed, im.accessed()), true
	}
}

// apply returns what some operations leave. What Glance counted belongs to the
// bytes in the file, whatever version they turn out to be: the first entry that
// the host puts must not fall behind it.
func (h held) apply(ops []sdk.Op) held {
	for _, op := range ops {
		if h.foreign && op.Kind == sdk.OpPut {
			op.Entry.Hits, op.Entry.LastAccessed = max(op.Entry.Hits, h.entry.Hits), later(op.Entry.LastAccessed, h.entry.LastAccessed)
			h.exists = false
		}
		h.foreign = h.foreign && op.Kind == sdk.OpTouch
		h.entry, h.exists = op.Apply(h.entry, h.exists)
	}
	return h
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
