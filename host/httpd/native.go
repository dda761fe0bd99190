package httpd

import (
	"net/http"
	"net/http/pprof"
)

// adminMux routes the native API and the profiles.
func (s *Service) adminMux() *http.ServeMux {
	mux := http.NewServeMux()
	for path, m := range map[string]methods{
		"/v1/images":                {http.MethodGet: s.images.list, http.MethodDelete: s.images.deleteAll},
		"/v1/images/{id}":           {http.MethodGet: s.images.show, http.MethodDelete: s.images.delete},
		"/v1/images/{id}/data":      {http.MethodGet: s.downloads.data},
		"/v1/images/{id}/refresh":   {http.MethodPost: s.images.refresh},
		"/v1/images/{id}/nodes":     {http.MethodGet: s.nodes.list},
		"/v2/cache/nodes/{id}":      {http.MethodGet: s.nodes.urls},
		"/v1/queue":                 {http.MethodGet: s.queue.list, http.MethodPost: s.queue.retry, http.MethodDelete: s.queue.clear},
		"/v1/queue/{id}":            {http.MethodPut: s.queue.add, http.MethodDelete: s.queue.remove},
		"/v1/pins":                  {http.MethodGet: s.pins.list},
		"/v1/pins/{id}":             {http.MethodPut: s.pins.pin, http.MethodDelete: s.pins.unpin},
		"/v1/usage":                 {http.MethodGet: s.upkeep.usage},
		"/v1/fills":                 {http.MethodGet: s.upkeep.fills},
		"/v1/victims":               {http.MethodGet: s.upkeep.victims},
		"/v1/plugins":               {http.MethodGet: s.plugins.list},
		"/v1/plugins/{name}/reload": {http.MethodPost: s.plugins.reload},
		"/v1/policies":              {http.MethodGet: s.plugins.policies},
		"/v1/driver":                {http.MethodGet: s.driver.show},
		"/v1/driver/migrate":        {http.MethodPost: s.driver.migrate},
		"/v1/schedules":             {http.MethodGet: s.listSchedules},
		"/v1/prune":                 {http.MethodPost: s.upkeep.prune},
		"/v1/clean":                 {http.MethodPost: s.upkeep.clean},
		"/v1/verify":                {http.MethodPost: s.upkeep.verify},
		"/v1/writes":                {http.MethodPost: s.writes.begin},
		"/v1/writes/{w}":            {http.MethodGet: s.writes.show},
		"/v1/writes/{w}/data":       {http.MethodPut: s.writes.append},
		"/v1/writes/{w}/commit":     {http.MethodPost: s.writes.commit},
		"/v1/writes/{w}/abort":      {http.MethodPost: s.writes.abort},
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

func (s *Service) listSchedules(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"schedules": list(s.schedules())})
}
