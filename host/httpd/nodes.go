package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/sdk"
)

// nodesPatience bounds the question who has an image.
const nodesPatience = 5 * time.Second

// lookup is what tells an image that no node holds from one that there is not.
// The error of both wraps cache.ErrBadID for an id that does not follow the
// grammar of ids.
type lookup interface {
	Image(id string) (cache.ImageInfo, error)
	// Stat asks the origin about an image that is not cached.
	Stat(ctx context.Context, id string) (cache.Content, error)
}

// nodesAPI are the handlers that say which nodes hold an image.
type nodesAPI struct {
	answerer
	nodes  func(ctx context.Context, id string) ([]sdk.Node, error) // see [Config]
	images lookup
}

// holder is a node that holds an image.
type holder struct {
	Name string    `json:"name"`
	URL  string    `json:"url,omitempty"`
	Seen time.Time `json:"seen"`
}

// list lists the nodes that hold an image.
func (a nodesAPI) list(w http.ResponseWriter, r *http.Request) {
	id, err := a.known(r)
	var nodes []sdk.Node
	if err == nil {
		nodes, err = a.holders(r.Context(), id)
	}
	var holders []holder
	for _, n := range nodes {
		holders = append(holders, holder(n))
	}
	a.answer(w, r, map[string]any{"nodes": list(holders)}, err)
}

// urls is the same in the form of Glance's API: a list of URLs; 409 when
// the driver knows of no nodes, 404 for an image that nobody has, the origin
// included.
func (a nodesAPI) urls(w http.ResponseWriter, r *http.Request) {
	id, err := a.known(r)
	var nodes []sdk.Node
	if err == nil {
		nodes, err = a.holders(r.Context(), id)
	}
	if errors.Is(err, sdk.ErrUnsupported) {
		writeError(w, http.StatusConflict, "the driver of this cache shares no records with other nodes")
		return
	}
	urls := []string{}
	for _, n := range nodes {
		if n.URL != "" {
			urls = append(urls, n.URL)
		}
	}
	if err == nil && len(nodes) == 0 {
		err = a.exists(r.Context(), id)
	}
	a.answer(w, r, urls, err)
}

// exists returns an error unless there is such an image, be it at the origin.
func (a nodesAPI) exists(ctx context.Context, id string) error {
	info, err := a.images.Image(id)
	if err != nil || info.State != cache.StateAbsent {
		return err
	}
	c, err := a.images.Stat(ctx, id)
	if err != nil {
		return err
	}
	return c.Close()
}

func (a nodesAPI) holders(ctx context.Context, id string) ([]sdk.Node, error) {
	if !sdk.ValidID(id) {
		return nil, fmt.Errorf("%w: %.40q", cache.ErrBadID, id)
	}
	ctx, cancel := context.WithTimeout(ctx, nodesPatience)
	defer cancel()
	return a.nodes(ctx, id)
}
