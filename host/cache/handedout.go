package cache

import (
	"container/list"
	"slices"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
)

// A hit is a whole image that a client got: in one response, or in ranges that
// together contain all of its bytes.

// handedOut remembers which parts of cached images clients got in ranges.
type handedOut struct {
	now func() time.Time

	mu    sync.Mutex
	parts map[recipient]*list.Element // of *coverage
	order *list.List                  // the front is the one that grew last
}

// recipient is a client and an image.
type recipient struct {
	client string
	image  *index.Image
}

// coverage is what a client got of an image.
type coverage struct {
	recipient
	spans []span // disjoint, in order
	grew  time.Time
}

// span is the bytes [from, to).
type span struct{ from, to int64 }

const (
	// maxCoverages bounds the memory to a few MiB. A forgotten download is not
	// counted as a hit.
	maxCoverages = 4096
	// maxSpans bounds the spans of one coverage: a client with so many separate
	// pieces is not downloading the whole image.
	maxSpans = 256
	// coverageFor is how long a download in ranges may pause.
	coverageFor = time.Hour
)

// add notes that a client got the bytes [from, to) of an image, and reports whether
// it has the whole image now. After that its coverage begins again.
func (h *handedOut) add(client string, im *index.Image, from, to int64) bool {
	if from == 0 && to == im.Size {
		return true
	}
	if from >= to {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	who, now := recipient{client, im}, h.now()
	el := h.parts[who]
	if el == nil || now.Sub(el.Value.(*coverage).grew) > coverageFor {
		el = h.begin(who, el)
	}
	c := el.Value.(*coverage)
	c.spans, c.grew = join(c.spans, span{from, to}), now
	h.order.MoveToFront(el)
	whole := len(c.spans) == 1 && c.spans[0] == span{0, im.Size}
	if whole || len(c.spans) > maxSpans {
		h.forget(el)
	}
	return whole
}

// begin adds an empty coverage, in place of old if that is not nil, and returns it.
// The caller holds h.mu.
func (h *handedOut) begin(who recipient, old *list.Element) *list.Element {
	if h.parts == nil {
		h.parts, h.order = map[recipient]*list.Element{}, list.New()
	}
	if old != nil {
		h.forget(old)
	}
	if len(h.parts) >= maxCoverages {
		h.forget(h.order.Back())
	}
	el := h.order.PushFront(&coverage{recipient: who})
	h.parts[who] = el
	return el
}

func (h *handedOut) forget(el *list.Element) {
	delete(h.parts, el.Value.(*coverage).recipient)
	h.order.Remove(el)
}

// join adds a span to spans that are disjoint and in order.
func join(spans []span, s span) []span {
	i, _ := slices.BinarySearchFunc(spans, s.from, func(have span, from int64) int {
		if have.to < from {
			return -1
		}
		return 1
	})
	j := i
	for j < len(spans) && spans[j].from <= s.to {
		s.from, s.to = min(s.from, spans[j].from), max(s.to, spans[j].to)
		j++
	}
	return slices.Replace(spans, i, j, s)
}
