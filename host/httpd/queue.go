package httpd

import (
	"net/http"

	"github.com/imgcache/imgcache-host/host/cache"
)

// Queue is what the native API does with the images that are to be fetched
// before anybody asks for them. Where a method takes an id, the error wraps
// cache.ErrBadID for one that does not follow the grammar of ids, and then no
// file was touched.
type Queue interface {
	// Queue asks for an image to be fetched. It reports false when the image is
	// cached, filling or queued already; one that is queued and could not be
	// fetched is tried again at once.
	Queue(id string) (bool, error)
	// Queued returns what is queued, in the order of queueing.
	Queued() ([]cache.QueueEntry, error)
	// RetryQueued begins to fetch what is queued without waiting for the pauses
	// after failed attempts, and returns how many images are queued.
	RetryQueued() (int, error)
	// Unqueue takes an image out of the queue. An absent one is no error. If it
	// is being fetched, that goes on.
	Unqueue(id string) error
	// UnqueueAll empties the queue and returns how many images were in it.
	UnqueueAll() (int, error)
}

// queueAPI are the handlers of the queue.
type queueAPI struct {
	answerer
	queue Queue
}

func (a queueAPI) list(w http.ResponseWriter, r *http.Request) {
	entries, err := a.queue.Queued()
	ids := []string{}
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	a.answer(w, r, map[string]any{"queue": ids, "entries": list(entries)}, err)
}

func (a queueAPI) add(w http.ResponseWriter, r *http.Request) {
	var queued bool
	id, err := a.wanted(r)
	if err == nil {
		queued, err = a.queue.Queue(id)
	}
	a.answer(w, r, map[string]any{"queued": queued}, err)
}

func (a queueAPI) retry(w http.ResponseWriter, r *http.Request) {
	n, err := a.queue.RetryQueued()
	a.answer(w, r, map[string]int{"queued": n}, err)
}

func (a queueAPI) remove(w http.ResponseWriter, r *http.Request) {
	id, err := a.known(r)
	if err == nil {
		err = a.queue.Unqueue(id)
	}
	a.answerNothing(w, r, err)
}

func (a queueAPI) clear(w http.ResponseWriter, r *http.Request) {
	n, err := a.queue.UnqueueAll()
	a.answerDeleted(w, r, n, err)
}
