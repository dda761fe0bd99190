package httpd

import (
	"context"
	"fmt"
	"net/http"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/plugin"
	"github.com/imgcache/imgcache-host/host/shadow"
)

// Plugins is what the native API does with the plugins of the service.
type Plugins interface {
	// Plugins returns the plugins that the service has, whether they run now
	// or not.
	Plugins() []plugin.Status
	// Reload starts a plugin that runs anew from its file, and returns how it
	// does then. When the new one does not start, the old one goes on. The error
	// wraps cache.ErrNotFound when there is no such plugin, cache.ErrConflict
	// when it is being reloaded already, and else sdk.ErrInvalid, when it refuses
	// its options, or sdk.ErrUnavailable.
	Reload(ctx context.Context, name string) (plugin.Status, error)
	// Policies compares the policies that are tried.
	Policies() shadow.Report
}

// noPlugins are the plugins of a service that has none.
type noPlugins struct{}

func (noPlugins) Plugins() []plugin.Status { return nil }

func (noPlugins) Reload(_ context.Context, name string) (plugin.Status, error) {
	return plugin.Status{}, fmt.Errorf("%w: no plugin %s runs", cache.ErrNotFound, name)
}

func (noPlugins) Policies() shadow.Report { return shadow.Report{Policies: []shadow.Status{}} }

// pluginsAPI are the handlers of the plugins.
type pluginsAPI struct {
	answerer
	plugins Plugins
}

func (a pluginsAPI) list(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"plugins": list(a.plugins.Plugins())})
}

func (a pluginsAPI) reload(w http.ResponseWriter, r *http.Request) {
	status, err := a.plugins.Reload(r.Context(), r.PathValue("name"))
	a.answer(w, r, status, err)
}

func (a pluginsAPI) policies(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, a.plugins.Policies())
}
