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
	// ByID returns the origin of an id and the origin's name of the image.
	ByID(id string) (o origin.Origin, name string, err error)
	// Learn tells the name behind an id that ByID cannot take apart, as it
	// was found with a file.
	Learn(id, name string)
	// NameOf returns what people call an image; "" when that is not known.
	NameOf(id string) string
}

// Config is what a cache works with. Store, Origins and Options are required.
type Config struct {
	Store   *store.Store
	Origins Origins
	Driver  sdk.Driver   // nil: no records are kept; it need not answer yet: see [Cache.DriverUp]
	Policy  evict.Policy // zero: least recently used leaves first; see [Cache.SetPolicy]
	Log     *slog.Logger

	// Watch is told of each request for an image; see
	// index.Requests. It is called
	// under mutexes and must not wait. Nil: nobody watches.
	Watch func(trace.Access)

	// DriverName is how the configuration refers to the driver. Each name has
	// a record log of its own.
	DriverName string
	// ForeignDriver says that another program writes the driver's records too,
	// so that what waited for it in an earlier run is out of date.
	ForeignDriver bool

	// Now is the clock of records and ages. By default it is the wall clock
	// at the start plus the monotonic time since, so that steps of the wall
	// clock neither age nor rejuvenate an image.
	Now func() time.Time

	// Options are what an operator sets.
	options.Options
	Pins  []Pin                 // of the configuration
	Fills options.ShutdownFills // what becomes of running fills at shutdown

	Offline bool // for a single command: nothing is fetched and nothing pruned by itself
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
