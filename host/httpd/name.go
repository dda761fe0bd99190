package httpd

import (
	"net/http"

	"github.com/imgcache/imgcache-host/sdk"
)

// known returns the id of the image that a request is about. An image may be
// here that no origin has any more: what can be an id is taken for one.
func (a answerer) known(r *http.Request) (id string, err error) { return a.knownAs(r.PathValue("id")) }

func (a answerer) knownAs(text string) (id string, err error) {
	id, err = a.find(text)
	if err != nil && sdk.ValidID(text) {
		return text, nil
	}
	return id, err
}

// wanted is known for an image that an origin is to be asked for.
func (a answerer) wanted(r *http.Request) (id string, err error) { return a.find(r.PathValue("id")) }
