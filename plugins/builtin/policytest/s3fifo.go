package policytest

import (
	"slices"

	"github.com/imgcache/imgcache-host/sdk"
)

// S3FIFO is S3-FIFO on three slices, the oldest first.
type S3FIFO struct {
	Small, Ghost float64 // shares of the capacity
	Threshold    int     // accesses that move an image to the main queue

	Promoted int // images that went from the small to the main queue
	Returned int // images that were admitted to the main queue

	capacity uint64
	s, m, g  []credited
}

type credited struct {
	Request
	freq int
}

func bytesOf(list []credited) (n uint64) {
	for _, im := range list {
		n += im.Size
	}
	return n
}

func find(list []credited, key sdk.Key) int {
	return slices.IndexFunc(list, func(im credited) bool { return im.Key == key })
}

func pop(list *[]credited) credited {
	im := (*list)[0]
	*list = slices.Delete(*list, 0, 1)
	return im
}

// Resize implements [Textbook].
func (b *S3FIFO) Resize(capacity uint64) {
	b.capacity = capacity
	b.trim()
}

func (b *S3FIFO) trim() {
	for float64(bytesOf(b.g)) > b.Ghost*float64(b.capacity) {
		pop(&b.g)
	}
}

// Access implements [Textbook].
func (b *S3FIFO) Access(key sdk.Key) bool {
	for _, list := range [][]credited{b.s, b.m} {
		if i := find(list, key); i >= 0 {
			list[i].freq = min(list[i].freq+1, 3)
			return true
		}
	}
	return false
}

// Admit implements [Textbook].
func (b *S3FIFO) Admit(r Request) {
	if i := find(b.g, r.Key); i >= 0 {
		b.g = slices.Delete(b.g, i, i+1)
		b.m = append(b.m, credited{Request: r})
		b.Returned++
		return
	}
	b.s = append(b.s, credited{Request: r})
}

// turn is the queue that an image leaves from next.
func (b *S3FIFO) turn() *[]credited {
	if len(b.s) > 0 && (len(b.m) == 0 || float64(bytesOf(b.s)) >= b.Small*float64(b.capacity)) {
		return &b.s
	}
	return &b.m
}

// Next implements [Textbook].
func (b *S3FIFO) Next() (Request, bool) {
	if len(b.s)+len(b.m) == 0 {
		return Request{}, false
	}
	for {
		q := b.turn()
		switch im := &(*q)[0]; {
		case q == &b.s && im.freq >= b.Threshold:
			b.m = append(b.m, pop(q))
			b.Promoted++
		case q == &b.m && im.freq > 0:
			im.freq--
			b.m = append(b.m, pop(q))
		default:
			return im.Request, true
		}
	}
}

// Stay implements [Textbook]: the image goes to the end of its queue.
func (b *S3FIFO) Stay(sdk.Key) {
	q := b.turn()
	*q = append(*q, pop(q))
}

// Leave implements [Textbook]: an eviction is a search, whoever leaves by it.
// Only from the small queue it leaves a ghost.
func (b *S3FIFO) Leave(key sdk.Key, why sdk.Reason) {
	if why == sdk.ReasonEvicted {
		b.Next()
	}
	if i := find(b.m, key); i >= 0 {
		b.m = slices.Delete(b.m, i, i+1)
		return
	}
	i := find(b.s, key)
	im := b.s[i]
	b.s = slices.Delete(b.s, i, i+1)
	if why == sdk.ReasonEvicted {
		b.g = append(b.g, im)
		b.trim()
	}
}
