// Package config turns HCL files into a [Config] with every default filled in.
//
// The smallest configuration that works is
//
//	listener "tcp" "public" {
//	  address = "127.0.0.1:9292"
//	}
//	cache "default" {
//	  dir = "/var/lib/imgcache/images"
//	}
//	origin "directory" "golden" {
//	  path = "/srv/images"
//	}
//
// config.hcl.example at the top of the repository shows every option. Relative
// paths are taken from the directory of the file that they stand in. All
// problems are reported at once, as [*Diagnostics].
package config

import (
	"os"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/schedule"
	"github.com/imgcache/imgcache-host/sdk"
)

// Config is a whole configuration: checked, references resolved, paths
// absolute, defaults filled in.
type Config struct {
	Node      Node
	Listeners []Listener // in the order of the files; an admin socket is always among them
	Cache     Cache
	Origins   []Origin // at least one
	Peers     Peers    // other nodes, asked before the origins
	Pins      []Pin
	Schedules []Schedule
	Drivers   []PluginConfig // every driver block; the cache uses one of them, or the default
	PluginDir string         // where plugins are looked for besides plugins/ beside the executable; empty: nowhere
	Plugins   []Plugin       // the plugins that have a block of their own
	Log       Log
	Shutdown  Shutdown

	PluginLock  string   // the lock file of the plugins; by default beside the first file of the configuration
	Confinement string   // what becomes of a plugin that cannot be confined: "best-effort", "required" or "none"
	Locked      bool     // the lock file applies: the configuration names it, or it exists
	TrustedKeys []string // files with public keys; each plugin must be signed with one of them; none: signatures are not needed

	// Warnings says what is allowed but probably not meant; nil when there are none.
	Warnings *Diagnostics
}

// Node is this machine.
type Node struct {
	Name      string // by default the host name
	Advertise string // URL under which other nodes reach this one, without a slash at its end; "": none
	DataDir   string // state that must survive a restart, such as that of plugins
	RunDir    string // sockets; may be emptied at boot
}

// The networks of a [Listener].
const (
	TCP  = "tcp"
	Unix = "unix"
)

// Face is a part of the service that a listener can serve. /healthz answers
// on every listener.
type Face string

// The faces.
const (
	FaceImages  Face = "images"  // downloads
	FaceAdmin   Face = "admin"   // native API, metrics, readiness and profiles
	FaceMetrics Face = "metrics" // metrics and readiness alone
	FacePeers   Face = "peers"   // the bytes of cached images, for other nodes
)

// Listener is a socket to serve on.
type Listener struct {
	Name      string
	Network   string      // TCP or Unix
	Address   string      // TCP: host:port
	Path      string      // Unix: path of the socket
	Mode      os.FileMode // Unix: permissions of the socket
	Group     string      // Unix: name or number of the socket's group; empty: unchanged
	Serve     []Face      // at least one
	TokenFile string      // TCP with FaceAdmin or FacePeers: file with one bearer token a line
	AuthFile  string      // TCP with FaceImages: file with what clients show to get images; empty: they need nothing
	Limits    ListenerLimits
}

// Serves reports whether f is among the faces of the listener.
func (l Listener) Serves(f Face) bool {
	for _, have := range l.Serve {
		if have == f {
			return true
		}
	}
	return false
}

// ListenerLimits bounds what clients may use.
type ListenerLimits struct {
	MaxConnections    int           // at once; further ones wait to be accepted
	HeaderTimeout     time.Duration // for reading the header of a request
	IdleTimeout       time.Duration // between two requests of a connection
	WriteStallTimeout time.Duration // a client that takes no byte for this long is dropped
	MinRate           int64         // bytes a second; a client that takes fewer for WriteStallTimeout is dropped; 0: no bound
}

// Cache is the cache "default".
type Cache struct {
	Name string
	Dir  string
	options.Options

	Driver PluginConfig   // keeps the records
	Policy PluginConfig   // advises eviction
	Shadow []PluginConfig // policies that are tried beside it
	Trace  Trace
}

// The types of an [Origin].
const (
	OriginDirectory = "directory"
	OriginHTTP      = "http"
	OriginS3        = "s3"
	OriginPeer      = "peer"
)

// Peers is how other nodes are asked for images, in an origin block of the type
// OriginPeer.
type Peers struct {
	Name          string        // "": they are not asked
	TokenFile     string        // file with the bearer token that they accept; "": none
	LookupTimeout time.Duration // for finding out which node has an image
	AnswerTimeout time.Duration // until a connection is made, and again until a node answers
	IdleTimeout   time.Duration // a transfer without a byte for this long has failed
	MinRate       int64         // bytes a second; a slower transfer has failed; 0: no bound
}

// Origin is where images come from.
type Origin struct {
	Name   string
	Type   string // OriginDirectory, OriginHTTP or OriginS3
	Prefix string // of the URL path on which its images are served; begins and ends with "/"

	Concurrency  int    // transfers at once; 0: no bound
	Bandwidth    int64  // bytes a second, all transfers together; 0: no bound
	MinRate      int64  // bytes a second; a slower transfer has failed; 0: no bound
	OnOriginDown string // whether a cached image is sent when the origin cannot confirm it: "serve" or "fail"
	Query        string // what a query in the URL of an image means: "refuse", "ignore" or, of OriginHTTP, "identity"

	Checksums Checksums

	// These are for OriginDirectory.
	Path   string
	Settle time.Duration // a file is served when it has not been written to for this long

	// The rest is for OriginHTTP and OriginS3.
	Endpoint        string        // URL to which the name of an image is appended; ends with "/"; that of an S3 server has no path
	RevalidateAfter time.Duration // how long a version is trusted; 0: asked on each hit
	NegativeTTL     time.Duration // how long "not found" is remembered; 0: not at all
	ConnectTimeout  time.Duration // until a connection is made
	IdleTimeout     time.Duration // a transfer without a byte for this long has failed

	Immutable          bool     // an image whose digest the origin declares never changes under its name
	Validators         []string // what is compared between two versions: "digest", "etag", "last_modified", "size"
	Revalidate         string   // whether the origin is asked "before" a due hit is answered, or "behind" the answer
	OnDenied           string   // whether a cached image is sent when the origin refuses the credential: "serve_stale" or "refuse"
	IgnoreCacheControl bool     // ignore Cache-Control and Expires of the origin
	Expect             Expect

	// OriginHTTP alone.
	AllowRedirects bool              // follow redirects to other hosts
	RedirectTo     []string          // to these too, although their addresses are not public; see origin.ParseDestinations
	Headers        map[string]string // sent with every request

	// OriginS3 alone.
	Bucket    string
	KeyPrefix string // an image is the object KeyPrefix/NAME; "": NAME
	Region    string // "": the server is asked
	PathStyle *bool  // the bucket stands in the path, or in the host's name; nil: as is usual for the endpoint
	AccessKey string // with SecretKey; both "": the bucket is public
	SecretKey string
}

// Expect says which answers count as images. Others are passed through.
type Expect struct {
	ContentTypes []string // such as "application/octet-stream" or "application/*"; none: any
	MinSize      int64    // bytes
	NotHTML      bool     // text/html does not count, unless the name ends in .html or .htm
}

// Pin keeps images from being evicted.
type Pin struct {
	Name   string
	Images []string  // names or ids; at least one
	Until  time.Time // zero: for ever
}

// Task is work that a [Schedule] can do.
type Task string

// The tasks.
const (
	TaskPrune    Task = "prune"
	TaskClean    Task = "clean"
	TaskPrefetch Task = "prefetch"
	TaskScrub    Task = "scrub"
)

// Schedule is work that is done at set times.
type Schedule struct {
	Name   string
	Cron   schedule.Timetable // nil: Every
	Every  time.Duration      // from the end of one run to the next; 0: Cron
	Jitter time.Duration      // each run is delayed by a random time of at most this much
	Run    []Task             // in this order; at least one
	Images []string           // names or ids that are queued by TaskPrefetch
}

// Timetable returns when the schedule is due.
func (s Schedule) Timetable() schedule.Timetable {
	if s.Cron != nil {
		return s.Cron
	}
	return schedule.Every(s.Every)
}

// Plugin is a plugin that does not come from a plugin directory, or that has
// limits of its own.
type Plugin struct {
	Name    string
	Kind    sdk.Kind
	Command string   // path of the executable; empty: Wasm, or found by name
	Args    []string // of Command
	Wasm    string   // path of the module; empty: Command, or found by name
	Env     map[string]string
	SHA256  string      // lower-case hex of the file; empty: unchecked
	Read    []string    // files and directories that it may read and execute
	Write   []string    // directories below which it may do anything
	Network bool        // it may use the network; only a driver that is a program may at all
	Grants  []sdk.Grant // what a module gets that it does not have by itself: sdk.GrantClock, sdk.GrantRandom
	Limits  PluginLimits

	hidden string // the expression of Command or Wasm, if a diagnostic does not show the value
}

// PluginLimits bounds what a plugin may use.
type PluginLimits struct {
	Memory  int64         // bytes: of a module's memory (0: the runner's default) or of a program's data (0: no limit)
	Timeout time.Duration // of one call; 0: the supervisor's default for the kind
	State   int64         // bytes that a driver which is a module may store; 0: kv.DefaultQuota
}

// PluginConfig is a driver or policy block: a plugin with its options.
type PluginConfig struct {
	Kind   sdk.Kind
	Plugin string // name of the plugin
	Name   string // name of the block

	block  hcl.Range            // header of the block; zero: the built-in default
	label  hcl.Range            // its first label
	config *hcl.Block           // its config block; nil: none
	fixed  sdk.Config           // options that no block sets
	files  map[string]*hcl.File // for the snippets of diagnostics
	dirs   map[string]string    // directory of each file
}

// Log says what is logged and how. Logs go to standard error.
type Log struct {
	Level  string // "debug", "info", "warn" or "error"
	Format string // "json" or "text"
}

// Shutdown says how the service ends.
type Shutdown struct {
	DrainTimeout time.Duration         // how long running transfers may take to end
	Fills        options.ShutdownFills // what happens to unfinished transfers from origins
}

// Trace is the record of all requests for images.
type Trace struct {
	Path    string // of the newest file; empty: nothing is recorded
	MaxSize int64  // bytes of a file
	Files   int    // number of files kept, including the newest; at least 2
}

// AdminSocket returns the path of the unix socket on which the command line
// reaches the service.
func (c *Config) AdminSocket() string {
	for _, l := range c.Listeners {
		if l.Network == Unix && l.Serves(FaceAdmin) {
			return l.Path
		}
	}
	return "" // not after Load
}
