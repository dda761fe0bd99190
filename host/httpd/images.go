package httpd

import (
	"context"
	"errors"
	"net/http"

	"github.com/imgcache/imgcache-host/host/cache"
)

// Images is what the native API does with the images of the cache. Where a
// method takes an id, the error wraps cache.ErrBadID for one that does not
// follow the grammar of ids, and then no file was touched.
type Images interface {
	// Images returns every cached image, ordered by id, without what is known
	// of single images only.
	Images() []cache.ImageInfo
	// Image returns all that is known of one image. When that is nothing, its
	// state is cache.StateAbsent.
	Image(id string) (cache.ImageInfo, error)
	// Delete removes an image, and keeps a running fill or write of it from
	// committing. An absent image is no error. A pin is no obstacle, and stays.
	Delete(ctx context.Context, id string) error
	// DeleteAll deletes every cached image and returns their number; after an
	// error, the number of those that are deleted.
	DeleteAll(ctx context.Context) (int, error)
}

// imagesAPI are the handlers of single images and of all of them. Their bytes
// are sent by [downloads].
type imagesAPI struct {
	answerer
	images Images
}

func (a imagesAPI) list(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"images": list(a.images.Images())})
}

func (a imagesAPI) deleteAll(w http.ResponseWriter, r *http.Request) {
	n, err := a.images.DeleteAll(r.Context())
	a.answerDeleted(w, r, n, err)
}

// show says what is known of an image; that it is absent is an answer.
func (a imagesAPI) show(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	info, err := a.images.Image(id)
	if errors.Is(err, cache.ErrNotFound) {
		info, err = cache.ImageInfo{ID: id, State: cache.StateAbsent, Size: -1}, nil
	}
	a.answer(w, r, info, err)
}

func (a imagesAPI) delete(w http.ResponseWriter, r *http.Request) {
	a.answerNothing(w, r, a.images.Delete(r.Context(), r.PathValue("id")))
}
