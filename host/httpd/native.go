package httpd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
)

// The number of victims that are listed by default and at most.
const (
	defaultVictims = 20
	maxVictims     = 10_000
)

// adminMux routes the native API and the profiles.
func (s *Service) adminMux() *http.ServeMux {
	mux := http.NewServeMux()
	for path, m := range map[string]methods{
		"/v1/images":                {http.MethodGet: s.listImages, http.MethodDelete: s.deleteImages},
		"/v1/images/{id}":           {http.MethodGet: s.showImage, http.MethodDelete: s.deleteImage},
		"/v1/images/{id}/data":      {http.MethodGet: s.imageData},
		"/v1/images/{id}/nodes":     {http.MethodGet: s.imageNodes},
		"/v2/cache/nodes/{id}":      {http.MethodGet: s.nodeURLs},
		"/v1/queue":                 {http.MethodGet: s.listQueue, http.MethodDelete: s.clearQueue},
		"/v1/queue/{id}":            {http.MethodPut: s.queueImage, http.MethodDelete: s.unqueueImage},
		"/v1/pins":                  {http.MethodGet: s.listPins},
		"/v1/pins/{id}":             {http.MethodPut: s.pinImage, http.MethodDelete: s.unpinImage},
		"/v1/usage":                 {http.MethodGet: s.usage},
		"/v1/fills":                 {http.MethodGet: s.listFills},
		"/v1/victims":               {http.MethodGet: s.victims},
		"/v1/plugins":               {http.MethodGet: s.listPlugins},
		"/v1/plugins/{name}/reload": {http.MethodPost: s.reloadPlugin},
		"/v1/policies":              {http.MethodGet: s.listPolicies},
		"/v1/driver":                {http.MethodGet: s.showDriver},
		"/v1/driver/migrate":        {http.MethodPost: s.migrate},
		"/v1/schedules":             {http.MethodGet: s.listSchedules},
		"/v1/prune":                 {http.MethodPost: s.prune},
		"/v1/clean":                 {http.MethodPost: s.clean},
		"/v1/verify":                {http.MethodPost: s.verify},
		"/v1/writes":                {http.MethodPost: s.beginWrite},
		"/v1/writes/{w}":            {http.MethodGet: s.showWrite},
		"/v1/writes/{w}/data":       {http.MethodPut: s.writeData},
		"/v1/writes/{w}/commit":     {http.MethodPost: s.commitWrite},
		"/v1/writes/{w}/abort":      {http.MethodPost: s.abortWrite},
		"/debug/pprof/":             {http.MethodGet: pprof.Index},
		"/debug/pprof/cmdline":      {http.MethodGet: pprof.Cmdline},
		"/debug/pprof/profile":      {http.MethodGet: pprof.Profile},
		"/debug/pprof/symbol":       {http.MethodGet: pprof.Symbol, http.MethodPost: pprof.Symbol},
		"/debug/pprof/trace":        {http.MethodGet: pprof.Trace},
	} {
		mux.Handle(path, m)
	}
	mux.HandleFunc("/", noRoute)
	return mux
}

func (s *Service) listImages(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"images": list(s.engine.Images())})
}

func (s *Service) deleteImages(w http.ResponseWriter, r *http.Request) {
	n, err := s.engine.DeleteAll(r.Context())
	s.answerDeleted(w, r, n, err)
}

// answerDeleted says how many things were deleted.
func (s *Service) answerDeleted(w http.ResponseWriter, r *http.Request, n int, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"deleted": n})
}

// showImage says what is known of an image; that it is absent is an answer.
func (s *Service) showImage(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	info, err := s.engine.Image(id)
	if errors.Is(err, cache.ErrNotFound) {
		info, err = cache.ImageInfo{ID: id, State: cache.StateAbsent, Size: -1}, nil
	}
	s.answer(w, r, info, err)
}

// answer answers with v unless there is an error.
func (s *Service) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, v)
}

// answerNothing says that what was asked for is done.
func (s *Service) answerNothing(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Service) deleteImage(w http.ResponseWriter, r *http.Request) {
	s.answerNothing(w, r, s.engine.Delete(r.Context(), r.PathValue("id")))
}

// imageData sends the bytes of a cached image. A HEAD must move no last access,
// so it only looks.
func (s *Service) imageData(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if r.Method == http.MethodGet {
		s.download(w, r, id, s.engine.OpenCached)
		return
	}
	c, err := s.statCached(r.Context(), id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.download(w, r, id, func(context.Context, string) (cache.Content, error) { return c, nil })
}

func (s *Service) listQueue(w http.ResponseWriter, r *http.Request) {
	entries, err := s.engine.Queued()
	ids := []string{}
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	s.answer(w, r, map[string]any{"queue": ids, "entries": list(entries)}, err)
}

func (s *Service) queueImage(w http.ResponseWriter, r *http.Request) {
	queued, err := s.engine.Queue(r.PathValue("id"))
	s.answer(w, r, map[string]any{"queued": queued}, err)
}

func (s *Service) unqueueImage(w http.ResponseWriter, r *http.Request) {
	s.answerNothing(w, r, s.engine.Unqueue(r.PathValue("id")))
}

func (s *Service) clearQueue(w http.ResponseWriter, r *http.Request) {
	n, err := s.engine.UnqueueAll()
	s.answerDeleted(w, r, n, err)
}

func (s *Service) usage(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.engine.Usage())
}

func (s *Service) listFills(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"fills": list(s.engine.Fills())})
}

func (s *Service) listSchedules(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"schedules": list(s.schedules())})
}

func (s *Service) victims(w http.ResponseWriter, r *http.Request) {
	limit := defaultVictims
	if q := r.URL.Query(); q.Has("limit") {
		n, err := strconv.Atoi(q.Get("limit"))
		if err != nil || n < 1 || n > maxVictims {
			s.fail(w, r, fmt.Errorf("%w: limit must be a number from 1 to %d", errBadRequest, maxVictims))
			return
		}
		limit = n
	}
	victims, err := s.engine.Victims(r.Context(), limit)
	s.answer(w, r, map[string]any{"victims": list(victims)}, err)
}

func (s *Service) prune(w http.ResponseWriter, r *http.Request) {
	var o cache.PruneOptions
	err := decode(w, r, &o)
	if err == nil && o.MaxSize != nil && *o.MaxSize < 0 {
		err = fmt.Errorf("%w: max_size must not be negative", errBadRequest)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	result, err := s.engine.Prune(r.Context(), o)
	s.answer(w, r, result, err)
}

func (s *Service) clean(w http.ResponseWriter, r *http.Request) {
	var o struct {
		StallTime *float64 `json:"stall_time"` // seconds
	}
	err := decode(w, r, &o)
	var stall *time.Duration
	if err == nil && o.StallTime != nil {
		stall, err = duration(*o.StallTime)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	result, err := s.engine.Clean(r.Context(), stall)
	s.answer(w, r, result, err)
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
