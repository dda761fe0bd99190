package httpd

import (
	"context"
	"net/http"

	"github.com/imgcache/imgcache-host/host/cache"
)

// verifyLine is a line of the answer to POST /v1/verify.
type verifyLine = streamLine[cache.ScrubProgress, cache.ScrubReport]

// verify reads images and checks them.
func (s *Service) verify(w http.ResponseWriter, r *http.Request) {
	var o struct {
		IDs []string `json:"ids"`
	}
	if err := decode(w, r, &o); err != nil {
		s.fail(w, r, err)
		return
	}
	stream(s, w, r, func(ctx context.Context, tell func(cache.ScrubProgress)) (cache.ScrubReport, error) {
		return s.engine.Verify(ctx, o.IDs, tell)
	})
}
