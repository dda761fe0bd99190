package cache

import (
	"container/heap"
	"slices"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
)

// turns holds the queued images in the order in which they are fetched. Images that
// were never tried come first, so that any number of bad names does not delay a good
// one; then the others in the order in which they are due. Of equal ones, the image
// that was queued first comes first. The cost of a step does not grow with the length
// of the queue, or hardly. The caller serialises the calls.
type turns struct {
	byID    map[string]*queued
	waiting waiting // the images that are not being fetched
}

// queued is an image in the queue. Failures are only remembered in memory: after a
// restart every image is new.
type queued struct {
	store.Marker
	tries int // number of failed ones
	err   error
	next  time.Time // it is not tried before; zero: as soon as its turn comes
	busy  bool      // it is being fetched
	at    int       // its position in waiting
}

func newTurns() turns { return turns{byID: map[string]*queued{}} }

// add adds an image, unless it is there already.
func (t *turns) add(m store.Marker) {
	if t.byID[m.ID] == nil {
		q := &queued{Marker: m}
		t.byID[m.ID] = q
		heap.Push(&t.waiting, q)
	}
}

// remove removes an image. If it is being fetched, the result will be ignored.
func (t *turns) remove(id string) {
	if q := t.byID[id]; q != nil {
		delete(t.byID, id)
		if !q.busy {
			heap.Remove(&t.waiting, q.at)
		}
	}
}

// begin returns the image whose turn it is. The caller must call end for it. If no
// image is due, begin returns nil and when the next one is; zero: there is none.
func (t *turns) begin(now time.Time) (q *queued, next time.Time) {
	if len(t.waiting) == 0 {
		return nil, time.Time{}
	}
	if first := t.waiting[0]; first.next.After(now) {
		return nil, first.next
	}
	q = heap.Pop(&t.waiting).(*queued)
	q.busy = true
	return q, time.Time{}
}

// end says that an image was tried. Without an error it leaves; otherwise it is tried
// again at next. end reports whether the image was still queued.
func (t *turns) end(q *queued, err error, next time.Time) bool {
	if t.byID[q.ID] != q {
		return false
	}
	q.busy = false
	if err == nil {
		delete(t.byID, q.ID)
		return true
	}
	q.tries, q.err, q.next = q.tries+1, err, next
	heap.Push(&t.waiting, q)
	return true
}

// renew forgets the failed tries of an image.
func (t *turns) renew(id string) {
	q := t.byID[id]
	if q == nil {
		return
	}
	q.tries, q.err, q.next = 0, nil, time.Time{}
	if !q.busy {
		heap.Fix(&t.waiting, q.at)
	}
}

// hurry makes every image due.
func (t *turns) hurry() {
	for _, q := range t.waiting {
		q.next = time.Time{}
	}
	heap.Init(&t.waiting)
}

// agree adds and removes images to fit a list of the markers. Markers without a time
// belong to images that are known already.
func (t *turns) agree(list []store.Marker) {
	there := make(map[string]bool, len(list))
	for _, m := range list {
		there[m.ID] = true
		if !m.At.IsZero() {
			t.add(m)
		}
	}
	for id := range t.byID {
		if !there[id] {
			t.remove(id)
		}
	}
}

// list returns the images in the order in which they were queued.
func (t *turns) list() []*queued {
	list := make([]*queued, 0, len(t.byID))
	for _, q := range t.byID {
		list = append(list, q)
	}
	slices.SortFunc(list, func(a, b *queued) int { return store.CompareMarkers(a.Marker, b.Marker) })
	return list
}

// waiting is a heap.
type waiting []*queued

func (w waiting) Len() int { return len(w) }

func (w waiting) Less(i, j int) bool {
	a, b := w[i], w[j]
	if a.tries == 0 || b.tries == 0 {
		if a.tries != b.tries {
			return a.tries == 0
		}
	} else if !a.next.Equal(b.next) {
		return a.next.Before(b.next)
	}
	return store.CompareMarkers(a.Marker, b.Marker) < 0
}

func (w waiting) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].at, w[j].at = i, j
}

// Push implements [heap.Interface].
func (w *waiting) Push(x any) {
	q := x.(*queued)
	q.at = len(*w)
	*w = append(*w, q)
}

// Pop implements [heap.Interface].
func (w *waiting) Pop() any {
	last := len(*w) - 1
	q := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	return q
}
