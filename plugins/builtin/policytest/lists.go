package policytest

import (
	"slices"

	"github.com/imgcache/imgcache-host/sdk"
)

// LRU is a list of images that one is moved to the end of when it is read.
func LRU() Textbook { return &list{place: end} }

// FIFO is a list of images that none is moved in.
func FIFO() Textbook { return &list{place: end, still: true} }

// LFU is a list of images by the number of times that they were read; of
// equals the one that was read last stands last.
func LFU() Textbook { return &list{place: behindEquals} }

// list holds the images in the order in which they leave.
type list struct {
	images []counted
	place  func([]counted, counted) int // where a new image stands, and one goes that is read
	still  bool                         // one that is read does not move
	kept   []sdk.Key                    // whom the host does not let go at present
}

// counted is an image that was read so many times.
type counted struct {
	Request
	reads int
}

func end(images []counted, _ counted) int { return len(images) }

func behindEquals(images []counted, im counted) int {
	for i, other := range images {
		if other.reads > im.reads {
			return i
		}
	}
	return len(images)
}

func (l *list) find(key sdk.Key) int {
	return slices.IndexFunc(l.images, func(im counted) bool { return im.Key == key })
}

func (l *list) insert(im counted) {
	l.images = slices.Insert(l.images, l.place(l.images, im), im)
}

// Resize implements [Textbook].
func (l *list) Resize(uint64) { l.kept = nil }

// Access implements [Textbook].
func (l *list) Access(key sdk.Key) bool {
	l.kept = nil
	i := l.find(key)
	if i < 0 || l.still {
		return i >= 0
	}
	im := l.images[i]
	im.reads++
	l.images = slices.Delete(l.images, i, i+1)
	l.insert(im)
	return true
}

// Admit implements [Textbook].
func (l *list) Admit(r Request) { l.insert(counted{Request: r}) }

// Next implements [Textbook]: a host passes over those that it keeps.
func (l *list) Next() (Request, bool) {
	for _, im := range l.images {
		if !slices.Contains(l.kept, im.Key) {
			return im.Request, true
		}
	}
	return Request{}, false
}

// Stay implements [Textbook].
func (l *list) Stay(key sdk.Key) { l.kept = append(l.kept, key) }

// Leave implements [Textbook].
func (l *list) Leave(key sdk.Key, _ sdk.Reason) {
	i := l.find(key)
	l.images = slices.Delete(l.images, i, i+1)
}
