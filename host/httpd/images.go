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
	// Refresh asks the origin of an image now, and brings its version into the
	// cache if that is another one. It returns when that is there; until then,
	// and after an error, the old one stays. Errors wrap those of package origin.
	Refresh(ctx context.Context, id string) (cache.ImageInfo, error)
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
	id, err := a.known(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	info, err := a.images.Image(id)
	if errors.Is(err, cache.ErrNotFound) {
		info, err = cache.ImageInfo{ID: id, State: cache.StateAbsent, Size: -1}, nil
	}
	a.answer(w, r, info, err)
}

func (a imagesAPI) delete(w http.ResponseWriter, r *http.Request) {
	id, err := a.known(r)
	if err == nil {
		err = a.images.Delete(r.Context(), id)
	}
	a.answerNothing(w, r, err)
}

// refresh answers when the version of the origin is there. A client that leaves
// ends nothing that has begun.
func (a imagesAPI) refresh(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := untilStop(r)
	defer cancel()
	var info cache.ImageInfo
	id, err := a.wanted(r)
	if err == nil {
		info, err = a.images.Refresh(ctx, id)
	}
	a.answer(w, r, info, err)
}
