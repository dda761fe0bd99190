package cache

import (
	"log/slog"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/trace"
	"github.com/imgcache/imgcache-host/sdk"
)

// Origins finds the origin of an image.
type Origins interface {
	// ByID returns the origin of an id and the name that the image has there.
	ByID(id string) (o origin.Origin, name string, err error)
	// Learn says which name belongs to an id that ByID cannot take apart. The
	// name was stored with a file.
	Learn(id, name string)
	// NameOf returns the name by which people know an image; "": not known.
	NameOf(id string) string
}

// Config is what a cache works with. Store, Origins and Options are required.
type Config struct {
	Store   *store.Store
	Origins Origins
	Driver  sdk.Driver   // nil: no records are kept; it need not answer yet: see [Cache.DriverUp]
	Policy  evict.Policy // zero: the least recently used image leaves first; see [Cache.SetPolicy]
	Log     *slog.Logger

	// Watch is called with each request for an image, as index.Requests says. It
	// is called under mutexes and must not wait. Nil: requests are not reported.
	Watch func(trace.Access)

	// DriverName is how the configuration refers to the driver. Each name has
	// a record log of its own.
	DriverName string
	// ForeignDriver says that another program writes the driver's records too, so
	// that operations that wait from an earlier run are out of date.
	ForeignDriver bool

	// Now is the clock for records and ages. By default it is the wall clock at
	// the start plus the monotonic time since, so that setting the wall clock
	// does not change the age of an image.
	Now func() time.Time

	// Options are the options that an operator sets.
	options.Options
	Pins  []Pin                 // of the configuration
	Fills options.ShutdownFills // what happens to running fills at shutdown

	Offline bool // for a single command: nothing is fetched or pruned automatically
}

// withDefaults returns a configuration with a log and a clock.
func (cfg Config) withDefaults() Config {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		start := time.Now()
		cfg.Now = func() time.Time { return start.Round(0).Add(time.Since(start)) }
	}
	return cfg
}

func (cfg Config) hard() bool { return cfg.Limit == options.LimitHard }

func (cfg Config) highMark() int64 { return int64(float64(cfg.MaxSize) * cfg.Prune.HighWatermark) }

func (cfg Config) lowMark() int64 { return int64(float64(cfg.MaxSize) * cfg.Prune.LowWatermark) }
