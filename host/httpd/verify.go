package httpd

import (
	"context"
	"net/http"

	"github.com/imgcache/imgcache-host/host/cache"
)

// verifyLine is a line of the answer to POST /v1/verify.
type verifyLine = streamLine[cache.ScrubProgress, cache.ScrubReport]

// verify reads images and checks them.
func (a upkeepAPI) verify(w http.ResponseWriter, r *http.Request) {
	var o struct {
		IDs []string `json:"ids"`
	}
	err := decode(w, r, &o)
	for i := 0; i < len(o.IDs) && err == nil; i++ {
		o.IDs[i], err = a.knownAs(o.IDs[i])
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	stream(a.answerer, w, r, func(ctx context.Context, tell func(cache.ScrubProgress)) (cache.ScrubReport, error) {
		return a.upkeep.Verify(ctx, o.IDs, tell)
	})
}
