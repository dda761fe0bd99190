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

// holder is a node that holds an image.
type holder struct {
	Name string    `json:"name"`
	URL  string    `json:"url,omitempty"`
	Seen time.Time `json:"seen"`
}

// imageNodes lists the nodes that hold an image.
func (s *Service) imageNodes(w http.ResponseWriter, r *http.Request) {
	nodes, err := s.holders(r.Context(), r.PathValue("id"))
	var holders []holder
	for _, n := range nodes {
		holders = append(holders, holder(n))
	}
	s.answer(w, r, map[string]any{"nodes": list(holders)}, err)
}

// nodeURLs is the same in the form of Glance's API: a list of URLs; 409 when
// the driver knows of no nodes, 404 for an image that nobody has, the origin
// included.
func (s *Service) nodeURLs(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	nodes, err := s.holders(r.Context(), id)
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
		err = s.known(r.Context(), id)
	}
	s.answer(w, r, urls, err)
}

// known returns an error unless there is such an image, be it at the origin.
func (s *Service) known(ctx context.Context, id string) error {
	info, err := s.engine.Image(id)
	if err != nil || info.State != cache.StateAbsent {
		return err
	}
	c, err := s.engine.Stat(ctx, id)
	if err != nil {
		return err
	}
	return c.Close()
}

func (s *Service) holders(ctx context.Context, id string) ([]sdk.Node, error) {
	if !sdk.ValidID(id) {
		return nil, fmt.Errorf("%w: %.40q", cache.ErrBadID, id)
	}
	ctx, cancel := context.WithTimeout(ctx, nodesPatience)
	defer cancel()
	return s.nodes(ctx, id)
}
