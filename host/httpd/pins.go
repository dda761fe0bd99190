package httpd

import (
	"fmt"
	"net/http"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
)

// Pins is what the native API does with the pins, which keep images from being
// evicted. Where a method takes an id, the error wraps cache.ErrBadID for one
// that does not follow the grammar of ids, and then no file was touched.
type Pins interface {
	// Pins returns the pins that hold, ordered by id.
	Pins() []cache.PinInfo
	// Pin keeps an image from being evicted until a time; zero is for ever. It
	// replaces the pin of an earlier request, and returns the one that lasts
	// longest, which may be the configuration's. An id may be pinned before its
	// image is cached. The error wraps sdk.ErrInvalid when the time has passed.
	// After an error nothing has changed.
	Pin(id string, until time.Time) (cache.PinInfo, error)
	// Unpin removes the pin that was asked for; an absent one is no error. The
	// error wraps cache.ErrConflict when the configuration pins the image, which
	// then stays pinned.
	Unpin(id string) error
}

// pinsAPI are the handlers of the pins.
type pinsAPI struct {
	answerer
	pins Pins
}

func (a pinsAPI) list(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"pins": list(a.pins.Pins())})
}

func (a pinsAPI) pin(w http.ResponseWriter, r *http.Request) {
	var o struct {
		Until *string `json:"until"` // RFC 3339; absent: for ever
	}
	err := decode(w, r, &o)
	var until time.Time
	if err == nil && o.Until != nil {
		until, err = pinEnd(*o.Until)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	var pin cache.PinInfo
	id, err := a.known(r)
	if err == nil {
		pin, err = a.pins.Pin(id, until)
	}
	a.answer(w, r, pin, err)
}

// pinEnd reads a time. The engine's word for no end is no time of a request.
func pinEnd(text string) (time.Time, error) {
	until, err := time.Parse(time.RFC3339, text)
	if err != nil || until.IsZero() {
		return time.Time{}, fmt.Errorf("%w: until is %.40q, want a time such as 2027-01-31T18:00:00Z", errBadRequest, text)
	}
	return until, nil
}

func (a pinsAPI) unpin(w http.ResponseWriter, r *http.Request) {
	id, err := a.known(r)
	if err == nil {
		err = a.pins.Unpin(id)
	}
	a.answerNothing(w, r, err)
}
