package cache

import (
	"log/slog"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/evict"
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
}

// Config is what a cache works with. [Config.withDefaults] says what zero
// values mean.
type Config struct {
	Store   *store.Store
	Origins Origins
	Driver  sdk.Driver   // nil: no records are kept; it need not answer yet: see [Cache.DriverUp]
	Policy  evict.Policy // zero: least recently used leaves first; see [Cache.SetPolicy]
	Log     *slog.Logger

	// Watch is told of each request for an image; see requests. It is called
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

	MaxSize       int64   // bytes; 0 keeps nothing
	Hard          bool    // MaxSize is a bound, not only prune's threshold
	HighWatermark float64 // share of MaxSize above which a prune acts; default 1
	LowWatermark  float64 // share down to which it acts; default 1
	MinAge        time.Duration
	PruneInterval time.Duration // default 1 minute
	StallTime     time.Duration // age at which incomplete files are cleaned; default 24 hours
	FlushInterval time.Duration // hits are sent to the driver so often; default, and least, a second

	MinFree       int64  // bytes of the file system that stay free, whoever uses it; 0: no matter
	MaxImageSize  int64  // bytes; larger images are passed through; 0: no bound
	AdmitAfter    int    // the request of an image, since the start, from which on it is stored; default 1
	ColdPerClient int    // images that one client may be the first to ask for at once and have stored; 0: no bound
	VerifyReads   string // VerifyAlways (default), VerifyFirst or VerifyNever
	ScrubRate     int64  // bytes a second that a scrub reads; 0: no bound
	Pins          []Pin  // of the configuration

	Offline bool // for a single command: nothing is fetched and nothing pruned by itself

	Retries      int    // attempts to resume a transfer without progress; default 5
	KeepFilling  bool   // go on with a fill when its clients have left
	Fills        int    // transfers at once, all origins together; 0: no bound
	FillRate     int64  // bytes a second, all fills together; 0: no bound
	RangesInFill string // RangesStream (default) or RangesVerified
	DropFills    bool   // forget at shutdown what was fetched of running fills, instead of keeping it for the next start
	Prefetchers  int    // queued images fetched at once; default 2
}

func (cfg Config) withDefaults() Config {
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&cfg.PruneInterval, time.Minute)
	def(&cfg.StallTime, 24*time.Hour)
	if cfg.HighWatermark == 0 {
		cfg.HighWatermark = 1
	}
	if cfg.LowWatermark == 0 {
		cfg.LowWatermark = 1
	}
	if cfg.Retries == 0 {
		cfg.Retries = 5
	}
	if cfg.VerifyReads == "" {
		cfg.VerifyReads = VerifyAlways
	}
	if cfg.Prefetchers == 0 {
		cfg.Prefetchers = 2
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		start := time.Now()
		cfg.Now = func() time.Time { return start.Round(0).Add(time.Since(start)) }
	}
	return cfg
}

func (cfg Config) highMark() int64 { return int64(float64(cfg.MaxSize) * cfg.HighWatermark) }

func (cfg Config) lowMark() int64 { return int64(float64(cfg.MaxSize) * cfg.LowWatermark) }

// When the blocks of an image are checked against its table.
const (
	VerifyAlways = "always" // in each read that serves them
	VerifyFirst  = "first"  // once after the start or a change of the file
	VerifyNever  = "never"  // by a scrub alone
)

// When a range of an image that is being filled is handed out.
const (
	RangesStream   = "stream"   // when its bytes are on disk; the range with the last byte waits for the verdict
	RangesVerified = "verified" // when the whole image is verified
)
