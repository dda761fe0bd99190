// Package httpd is the service's faces over HTTP: the download of images, the
// native API, health, readiness and metrics.
//
// A [Service] holds what all listeners share; [Service.Handler] makes the
// handler of one listener, and [Serve] runs it.
package httpd

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/schedule"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/prometheus/client_golang/prometheus"
)

// bodyStall is how long a client that sends a body may send nothing: as long
// as one that receives may take nothing by default.
const bodyStall = 60 * time.Second

// imagesPrefix is where the images of a single origin are.
const imagesPrefix = "/images/"

// Config is what a [Service] works with. The roles of a cache are required; one
// *cache.Cache plays all of them.
type Config struct {
	Downloads Downloads
	Images    Images
	Queue     Queue
	Pins      Pins
	Upkeep    Upkeep
	Writes    Writes

	Log *slog.Logger // nil: slog.Default()

	// Resolve turns the path and the query of a request into the id of an
	// image. Both are as the client sent them, with their escapes. The error
	// wraps cache.ErrNotFound for a path that is no image's, cache.ErrBadID for
	// one that can be none, and origin.ErrQuery where there may be no query.
	// Nil: ResolveImages.
	Resolve func(path, query string) (id string, err error)

	// Find returns the id of the image that a person means: by its id, its
	// name or the path on which it is served. The error wraps cache.ErrNotFound
	// when no origin has it, and else is as for Resolve. Nil: there are ids
	// alone.
	Find func(text string) (id string, err error)

	// Ready returns what keeps the service from doing all that it is configured
	// to do. Nil: nothing ever does.
	Ready func() []Lack

	// Plugins answers for the plugins. Nil: there are none.
	Plugins Plugins

	// Schedules returns the schedules and how they do. Nil: there are none.
	Schedules func() []schedule.Status

	// Nodes returns the nodes that hold an image. The error wraps
	// sdk.ErrUnsupported where nothing knows. Nil: nothing knows.
	Nodes func(ctx context.Context, id string) ([]sdk.Node, error)

	// Peers counts what other nodes sent since the start. Nil: nothing.
	Peers func() origin.PeerStats

	// Drivers answers for the drivers of the records. Nil: it is not known
	// which there are.
	Drivers Drivers

	// Metrics are shown beside those of the service.
	Metrics []prometheus.Collector

	Version string // of the program, for the metrics; may be empty
}

// Service is what the listeners of one daemon have in common: the handlers, in
// groups that each know what they use.
type Service struct {
	log       *slog.Logger
	ready     func() []Lack
	schedules func() []schedule.Status
	metrics   *metrics
	bodyStall time.Duration

	downloads downloads
	images    imagesAPI
	nodes     nodesAPI
	queue     queueAPI
	pins      pinsAPI
	upkeep    upkeepAPI
	writes    writesAPI
	plugins   pluginsAPI
	driver    driverAPI
}

// New makes a Service of c.
func New(c Config) *Service {
	c = c.withDefaults()
	a := answerer{log: c.Log, find: c.Find}
	return &Service{
		log:       c.Log,
		ready:     c.Ready,
		schedules: c.Schedules,
		metrics:   newMetrics(c),
		bodyStall: bodyStall,

		downloads: downloads{a, c.Downloads, c.Resolve},
		images:    imagesAPI{a, c.Images},
		nodes:     nodesAPI{a, c.Nodes, c.Downloads},
		queue:     queueAPI{a, c.Queue},
		pins:      pinsAPI{a, c.Pins},
		upkeep:    upkeepAPI{a, c.Upkeep},
		writes:    writesAPI{a, c.Writes},
		plugins:   pluginsAPI{a, c.Plugins},
		driver:    driverAPI{a, c.Drivers},
	}
}

// withDefaults puts what stands in for it in the place of what is nil.
func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Resolve == nil {
		c.Resolve = ResolveImages
	}
	if c.Find == nil {
		c.Find = func(text string) (string, error) { return text, nil }
	}
	if c.Ready == nil {
		c.Ready = func() []Lack { return nil }
	}
	if c.Nodes == nil {
		c.Nodes = func(context.Context, string) ([]sdk.Node, error) { return nil, sdk.ErrUnsupported }
	}
	if c.Plugins == nil {
		c.Plugins = noPlugins{}
	}
	if c.Schedules == nil {
		c.Schedules = func() []schedule.Status { return nil }
	}
	if c.Drivers == nil {
		c.Drivers = noDrivers{}
	}
	return c
}

// ResolveImages is the layout of a single origin: the id is the last segment
// of /images/{id}. No character of an id needs an escape, so a path with one
// names no image.
func ResolveImages(path, query string) (id string, err error) {
	id, ok := strings.CutPrefix(path, imagesPrefix)
	switch {
	case !ok:
		return "", cache.ErrNotFound
	case query != "":
		return "", origin.ErrQuery
	}
	if strings.ContainsAny(id, "%/") {
		return "", cache.ErrBadID
	}
	return id, nil
}

// Faces says what a listener serves. /healthz answers on every listener.
type Faces struct {
	Images  bool // downloads
	Admin   bool // native API, metrics, readiness and profiles
	Metrics bool // metrics and readiness, to everybody who can connect
	Peers   bool // the bytes of cached images, to other nodes

	// Trusted says that whoever can connect may use Admin and Peers: the
	// listener is a unix socket, which its permissions guard. Elsewhere both
	// ask for one of Tokens, and let nobody in when there is none.
	Trusted bool
	Tokens  []string

	// Clients is what Images asks for. Nil: nothing.
	Clients *Credentials
}

// Handler returns the handler of a listener that serves f.
func (s *Service) Handler(f Faces) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/healthz", methods{http.MethodGet: s.health})
	var others http.Handler = http.HandlerFunc(noRoute)
	if f.Images {
		others = http.HandlerFunc(s.downloads.serve)
	}
	if f.Images && f.Clients != nil {
		others = newDoorkeeper(*f.Clients).guard(others)
	}
	mux.Handle("/", others)
	guarded := func(h http.Handler) http.Handler { return h }
	if !f.Trusted {
		guarded = func(h http.Handler) http.Handler { return requireToken(f.Tokens, h) }
	}
	if f.Peers {
		mux.Handle("/v1/images/{id}/data", guarded(methods{http.MethodGet: s.downloads.data}))
	}
	if f.Admin {
		admin := guarded(s.adminMux())
		mux.Handle("/v1/", admin)
		mux.Handle("/v2/cache/nodes/", admin)
		mux.Handle("/debug/pprof/", admin)
	}
	if f.Metrics || f.Admin {
		var metrics http.Handler = methods{http.MethodGet: s.metrics.handler.ServeHTTP}
		var ready http.Handler = methods{http.MethodGet: s.readinessFor(f)}
		if !f.Metrics {
			metrics, ready = guarded(metrics), guarded(ready)
		}
		mux.Handle("/metrics", metrics)
		mux.Handle("/readyz", ready)
	}
	return s.observe(s.strict(mux))
}

// noRoute answers for the paths that a listener does not serve.
func noRoute(w http.ResponseWriter, _ *http.Request) {
	writeError(w, http.StatusNotFound, "no such path")
}

// methods serves one path by method. HEAD is served by GET.
type methods map[string]http.HandlerFunc

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h := m[method]; h != nil {
		h(w, r)
		return
	}
	refuseMethod(w, m)
}

// refuseMethod answers a request with a method that m lacks.
func refuseMethod(w http.ResponseWriter, m methods) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete} {
		_, ok := m[method]
		if ok || method == http.MethodHead && m[http.MethodGet] != nil {
			allowed = append(allowed, method)
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	writeError(w, http.StatusMethodNotAllowed, "method not allowed")
}

// strict refuses what no honest client sends, before any route is looked for.
func (s *Service) strict(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			// net/http drops a Content-Length that stood beside the
			// Transfer-Encoding without a word. Whatever a proxy before us
			// made of the pair, nothing after this body is a request.
			w.Header().Set("Connection", "close")
		}
		if hasBody(r) {
			r = withDeadline(w, r, s.bodyStall)
		}
		if err := checkRequest(r); err != nil {
			w.Header().Set("Connection", "close")
			writeError(w, http.StatusBadRequest, err.Error())
			return
		}
		h.ServeHTTP(w, r)
	})
}

// checkRequest says what is wrong with the path or the body of a request.
func checkRequest(r *http.Request) error {
	sent := r.URL.EscapedPath()
	// The mux would redirect to the cleaned path; a path that climbs deserves
	// no help.
	if clean := path.Clean(sent); !strings.HasPrefix(sent, "/") || sent != clean && sent != clean+"/" {
		return errors.New("the path is not in its shortest form")
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete:
		if hasBody(r) {
			return errors.New("a " + r.Method + " request has no body")
		}
	}
	return nil
}

func hasBody(r *http.Request) bool { return r.ContentLength != 0 || len(r.TransferEncoding) > 0 }
