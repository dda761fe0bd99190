package simulate

import (
	"container/heap"
	"context"

	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

// belady chooses the object whose next request is farthest away (Belady: "A
// study of replacement algorithms for a virtual-storage computer", IBM Systems
// Journal 5(2), 1966). It knows the future, so it is a reference, not a policy.
// It has the fewest misses when all objects have the same size; otherwise a
// policy that weighs sizes may have fewer.
type belady struct {
	queue            // a heap, the farthest first
	next  func() int // index of the next request for the current object
	at    map[*object]int
}

// newBelady returns a cache that follows Belady's rule. next returns, for the
// current request, the index of the next request for the same object.
func newBelady(capacity uint64, next func() int) *Cache {
	b := &belady{next: next, at: map[*object]int{}}
	b.less = func(x, y *object) bool {
		if b.at[x] != b.at[y] {
			return b.at[x] > b.at[y]
		}
		return before(x, y)
	}
	return &Cache{capacity: capacity, objects: map[sdk.Key]*object{}, chooser: b}
}

func (b *belady) admitted(o *object) {
	b.at[o] = b.next()
	heap.Push(b, o)
}

func (b *belady) accessed(o *object) {
	b.at[o] = b.next()
	heap.Fix(b, o.slot)
}

func (b *belady) removed(o *object, _ sdk.Reason, _ int64) {
	heap.Remove(b, o.slot)
	delete(b.at, o)
}

func (b *belady) victims(context.Context, int64, uint64) ([]*object, error) {
	return b.first(), nil
}

// nextRequests returns for each request the index of the next request for the
// same object, or the length of the trace when there is none.
func nextRequests(requests []trace.Access) []int {
	next := make([]int, len(requests))
	last := map[sdk.Key]int{}
	for i := len(requests) - 1; i >= 0; i-- {
		next[i] = len(requests)
		if at, ok := last[requests[i].Key]; ok {
			next[i] = at
		}
		last[requests[i].Key] = i
	}
	return next
}
