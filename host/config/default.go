package config

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/sdk"
)

// AdminSocket is the name in the run directory of the admin socket that
// exists when no unix listener serves the admin face.
const AdminSocket = "admin.sock"

// DefaultPrefix is the path on which images are served unless the origin says
// otherwise.
const DefaultPrefix = "/images/"

// The plugins of a cache that names none.
const (
	DefaultDriver = "sqlite"
	DefaultPolicy = "lru"
)

// DefaultRunDir is where sockets lie when the configuration does not say:
// /run/imgcache for root, else imgcache in the user's runtime directory or,
// without one, a directory of the user's own in the temporary directory.
func DefaultRunDir() string {
	uid := os.Getuid()
	if uid == 0 {
		return "/run/imgcache"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "imgcache")
	}
	return filepath.Join(os.TempDir(), "imgcache-"+strconv.Itoa(uid))
}

// defaultDataDir is /var/lib/imgcache for root, else imgcache in the user's
// data directory.
func defaultDataDir() string {
	if os.Getuid() == 0 {
		return "/var/lib/imgcache"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	data := cmp.Or(os.Getenv("XDG_DATA_HOME"), filepath.Join(home, ".local", "share"))
	return filepath.Join(data, "imgcache")
}

func defaultNode() Node {
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	return Node{Name: name, DataDir: defaultDataDir(), RunDir: DefaultRunDir()}
}

func defaultListener(network string) Listener {
	l := Listener{
		Network: network,
		Serve:   []Face{FaceImages},
		Limits: ListenerLimits{
			// Far above a rack of clients that boot at once, far below the
			// usual limit of open files with two for each transfer.
			MaxConnections: 4096,
			HeaderTimeout:  10 * time.Second,
			// Longer than the idle time of common proxies (60 s), so that the
			// other side closes first.
			IdleTimeout:       2 * time.Minute,
			WriteStallTimeout: time.Minute,
		},
	}
	if network == Unix {
		l.Serve = []Face{FaceAdmin}
		l.Mode = 0o660
	}
	return l
}

func defaultCache() Cache {
	return Cache{
		Options: options.Default(),
		Driver:  PluginConfig{Kind: sdk.KindDriver, Plugin: DefaultDriver, Name: "default"},
		Policy:  PluginConfig{Kind: sdk.KindPolicy, Plugin: DefaultPolicy, Name: "default"},
		Trace:   Trace{MaxSize: 64 << 20, Files: 4},
	}
}

func defaultOrigin(kind string) Origin {
	o := Origin{Type: kind, Prefix: DefaultPrefix, OnOriginDown: "serve", Query: "refuse"}
	if kind == OriginDirectory {
		// Longer than the pauses of a copy over a network, but short for whoever
		// has put an image there.
		o.Settle = 2 * time.Second
	} else {
		o.Validators = slices.Clone(validators)
		o.Revalidate, o.OnDenied = "before", "serve_stale"
		o.Expect.NotHTML = true
		o.RevalidateAfter = time.Hour
		// Short, as somebody waits for a new image; long enough for the
		// retries of a rack that boots an image which is not there.
		o.NegativeTTL = 10 * time.Second
		o.ConnectTimeout = 10 * time.Second
		o.IdleTimeout = 30 * time.Second
	}
	return o
}

func defaultPeers() Peers {
	return Peers{
		// An index answers within a millisecond or two; after that it is
		// quicker to ask the origin.
		LookupTimeout: 50 * time.Millisecond,
		// Only near nodes are worth asking; one whose disk is busy may need a
		// second to begin.
		AnswerTimeout: 2 * time.Second,
		IdleTimeout:   10 * time.Second,
	}
}

// defaultConfinement uses what the kernel offers: old kernels have no Landlock.
const defaultConfinement = "best-effort"

func defaultPlugin() Plugin {
	return Plugin{Network: true}
}

func defaultLog() Log { return Log{Level: "info", Format: "json"} }

func defaultShutdown() Shutdown {
	return Shutdown{DrainTimeout: 30 * time.Second, Fills: options.FillsCheckpoint}
}
