package httpd

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
)

// The number of victims that are listed by default and at most.
const (
	defaultVictims = 20
	maxVictims     = 10_000
)

// Upkeep is what the native API shows and does to look after the cache as a
// whole.
type Upkeep interface {
	// Usage says how full the cache is, and how it does.
	Usage() cache.Usage
	// Fills says how far the running fills, and the writes of clients, are, ordered
	// by their start; after them stand the fills that were interrupted.
	Fills() []cache.FillInfo
	// Victims returns the images that would be evicted next, in order, limit of
	// them at most.
	Victims(ctx context.Context, limit int) ([]cache.Victim, error)
	// Prune evicts images: by the watermarks, or down to o.MaxSize. It returns
	// when the files are gone, except those that are still being read. In a dry
	// run it only says what it would remove.
	Prune(ctx context.Context, o cache.PruneOptions) (cache.Result, error)
	// Clean removes all invalid files, and those incomplete ones that nothing
	// was written to for the stall time; nil: the configured one.
	Clean(ctx context.Context, stall *time.Duration) (cache.Result, error)
	// Verify reads the images that are named, all when none is, and checks
	// them. It calls tell after each block. A bad image is no error. After an
	// error the report says what was found until then. The error wraps
	// cache.ErrNotFound when a named image is not cached, and cache.ErrConflict
	// when all are to be read and are being read already.
	Verify(ctx context.Context, ids []string, tell func(cache.ScrubProgress)) (cache.ScrubReport, error)
}

// upkeepAPI are the handlers of [Upkeep].
type upkeepAPI struct {
	answerer
	upkeep Upkeep
}

func (a upkeepAPI) usage(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, a.upkeep.Usage())
}

func (a upkeepAPI) fills(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"fills": list(a.upkeep.Fills())})
}

func (a upkeepAPI) victims(w http.ResponseWriter, r *http.Request) {
	limit := defaultVictims
	if q := r.URL.Query(); q.Has("limit") {
		n, err := strconv.Atoi(q.Get("limit"))
		if err != nil || n < 1 || n > maxVictims {
			a.fail(w, r, fmt.Errorf("%w: limit must be a number from 1 to %d", errBadRequest, maxVictims))
			return
		}
		limit = n
	}
	victims, err := a.upkeep.Victims(r.Context(), limit)
	a.answer(w, r, map[string]any{"victims": list(victims)}, err)
}

func (a upkeepAPI) prune(w http.ResponseWriter, r *http.Request) {
	var o cache.PruneOptions
	err := decode(w, r, &o)
	if err == nil && o.MaxSize != nil && *o.MaxSize < 0 {
		err = fmt.Errorf("%w: max_size must not be negative", errBadRequest)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	result, err := a.upkeep.Prune(r.Context(), o)
	a.answer(w, r, result, err)
}

func (a upkeepAPI) clean(w http.ResponseWriter, r *http.Request) {
	var o struct {
		StallTime *float64 `json:"stall_time"` // seconds
	}
	err := decode(w, r, &o)
	var stall *time.Duration
	if err == nil && o.StallTime != nil {
		stall, err = duration(*o.StallTime)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	result, err := a.upkeep.Clean(r.Context(), stall)
	a.answer(w, r, result, err)
}

// duration turns seconds into a duration.
func duration(seconds float64) (*time.Duration, error) {
	ns := seconds * float64(time.Second)
	if ns < 0 || ns >= math.MaxInt64 {
		return nil, fmt.Errorf("%w: stall_time must be a number of seconds, 0 or more", errBadRequest)
	}
	d := time.Duration(ns)
	return &d, nil
}
