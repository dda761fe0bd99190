package trace

import "sync"

// QueueSize is how many requests a [Queue] holds: two megabytes of them, the
// requests of some seconds on the busiest machine.
const QueueSize = 1 << 16

// Queue passes requests from the cache, which never waits, to a reader that
// may be slow. What does not fit is lost, and counted. The zero value is ready.
type Queue struct {
	mu   sync.Mutex
	list []Access
	lost uint64
	wake chan struct{}
}

// Add appends a request unless the queue is full.
func (q *Queue) Add(a Access) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == QueueSize {
		q.lost++
		return
	}
	q.list = append(q.list, a)
	select {
	case q.wakeLocked() <- struct{}{}:
	default:
	}
}

// Take returns what was added since the last time, and how many more were lost
// since then. The queue uses spare, which the caller no longer needs, for the
// next requests.
func (q *Queue) Take(spare []Access) (list []Access, lost uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	list, lost = q.list, q.lost
	q.list, q.lost = spare[:0], 0
	return list, lost
}

// Lost counts the requests that were lost since the last Take.
func (q *Queue) Lost() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lost
}

// Ready has an element when something may have been added.
func (q *Queue) Ready() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.wakeLocked()
}

func (q *Queue) wakeLocked() chan struct{} {
	if q.wake == nil {
		q.wake = make(chan struct{}, 1)
	}
	return q.wake
}
