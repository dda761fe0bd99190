package cache

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/history"
	"github.com/imgcache/imgcache-host/host/cache/internal/pins"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// The failures that callers act on.
var (
	// ErrBadID says that the id does not follow the grammar of ids.
	ErrBadID = store.ErrBadID
	// ErrNotFound says that the image, queue entry or write does not exist.
	ErrNotFound = sdk.ErrNotFound
	// ErrConflict says that the call does not fit what is there or happens: the
	// image is cached or being written, a write continues at another offset, or
	// the same work is running already.
	ErrConflict = errors.New("conflict")
	// ErrNoSpace says that the cache cannot make room.
	ErrNoSpace = errors.New("no space in the cache")
	// ErrVerify says that bytes differ from the declared size or digest.
	ErrVerify = errors.New("verification failed")
)

// State is what the cache has of an image: the first of these that applies.
type State string

// The states.
const (
	StateCached  State = "cached"
	StateFilling State = "filling"
	StateQueued  State = "queued"
	StateAbsent  State = "absent"
)

// The events of images. The log uses the same words.
const (
	Queued      = history.Queued
	Cached      = history.Cached
	NotFetched  = history.NotFetched
	NotStored   = history.NotStored
	Evicted     = history.Evicted
	Deleted     = history.Deleted
	Replaced    = history.Replaced
	Quarantined = history.Quarantined
	Vanished    = history.Vanished
	Interrupted = history.Interrupted
)

type (
	// Event is a thing that happened to an image.
	Event = history.Event
	// Pin keeps an image from being evicted.
	Pin = pins.Pin
)

// ImageInfo is what the cache knows about an image. History, Error and LastChecked
// are set only by [Cache.Image], not in a list.
type ImageInfo struct {
	ID           string    `json:"id"`
	Name         string    `json:"name,omitempty"` // by which people know it; "": not known
	State        State     `json:"state"`
	Size         int64     `json:"size"` // bytes; -1: unknown
	Hits         uint64    `json:"hits"`
	LastAccessed time.Time `json:"last_accessed,omitzero"`
	LastModified time.Time `json:"last_modified,omitzero"`
	LastChecked  time.Time `json:"last_checked,omitzero"` // when every block was last checked
	Version      string    `json:"version,omitempty"`
	SHA256       string    `json:"sha256,omitempty"`  // hex, of the cached bytes
	Verified     bool      `json:"verified"`          // a block table guards each read
	Readers      int       `json:"readers,omitempty"` // open now
	Written      int64     `json:"written,omitempty"` // filling: bytes so far
	Error        string    `json:"error,omitempty"`   // what keeps it from being cached, if the last event says so
	History      []Event   `json:"history,omitempty"` // the last events, oldest first
	URL          string    `json:"url,omitempty"`     // where it comes from
	Pinned       bool      `json:"pinned,omitempty"`  // may not be evicted
	PinnedUntil  time.Time `json:"pinned_until,omitzero"`
}

// Outcome says how a request is answered, in the words of RFC 9211.
type Outcome struct {
	Hit       bool
	Collapsed bool   // follows a fill that another request began
	Stored    bool   // there is room for the response, and it is being stored
	Detail    Detail // why it is not stored, or what is special; "": nothing, or not known yet

	// Confirmed is set for a hit that the origin could not confirm now: it is
	// when the origin last confirmed the version; zero: not since the start.
	Confirmed time.Time
}

// Content is an open image: cached, being filled, or passed through. It is
// used by one goroutine. Close must be called.
type Content interface {
	// Info describes the image. Size is -1 when the origin did not say.
	Info() ImageInfo
	// ETag is the strong entity tag with its quotes, the same on miss and
	// hit; "" when the origin gives nothing to make one from.
	ETag() string
	// ModTime is the origin's time of modification; zero: unknown.
	ModTime() time.Time
	// Outcome says what is known at this moment. For an image that is being
	// filled it is final once the first byte can be read.
	Outcome() Outcome
	// CopyTo writes the bytes [off, off+n) to w; n < 0 means to the end. It
	// waits for bytes that are still being fetched. A nil error says that all
	// these bytes were written and, if the image's last byte is among them,
	// that the whole image has the size and digest that the origin declared.
	// After an error the response must be broken off, not ended normally.
	CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error)
	Close() error
}

// Result says what a prune or clean removed.
type Result struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// PruneOptions says how to prune. The zero value prunes by watermarks.
type PruneOptions struct {
	MaxSize *int64 `json:"max_size,omitempty"` // bytes; Glance's prune to this size
	DryRun  bool   `json:"dry_run,omitempty"`
}

// Victim is an image that would leave, and why.
type Victim struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"` // as in [ImageInfo]
	Size int64  `json:"size"`
	Why  string `json:"why"`
}

// QueueEntry is an image that is to be fetched before anybody asks for it.
type QueueEntry struct {
	ID      string    `json:"id"`
	Name    string    `json:"name,omitempty"`    // as in [ImageInfo]
	Tries   int       `json:"tries,omitempty"`   // that failed, since the start of the service
	Error   string    `json:"error,omitempty"`   // of the last of them
	Next    time.Time `json:"next,omitzero"`     // when it is tried again; zero: when its turn comes
	Running bool      `json:"running,omitempty"` // it is being fetched now
}

// PinInfo is a pin that is in force.
type PinInfo struct {
	Pin
	Cached bool `json:"cached"` // the image is cached
}

// Usage says how full the cache is.
type Usage struct {
	Bytes        int64           `json:"bytes"`     // image bytes wherever they lie, plus reserved ones
	Reserved     int64           `json:"reserved"`  // of these, reserved and not yet written
	Allocated    int64           `json:"allocated"` // bytes of the disk that the cached images take: fewer than their sizes if the files have holes
	MaxBytes     int64           `json:"max_bytes"`
	Limit        string          `json:"limit"`              // "hard" or "prune"
	Free         int64           `json:"free"`               // bytes that can still be written to the file system; -1: unknown
	MinFree      int64           `json:"min_free,omitempty"` // bytes of these that are kept free
	Images       int             `json:"images"`
	Pinned       int             `json:"pinned"`       // images among them that may not be evicted
	PinnedBytes  int64           `json:"pinned_bytes"` // of these images
	PinsFull     bool            `json:"pins_full"`    // pinned images leave no room: others are passed through
	Fills        int             `json:"fills"`
	Writes       int             `json:"writes"` // number of images that clients are writing
	Queued       int             `json:"queued"`
	Records      string          `json:"records"`                 // "loading", "ready" or, without a driver, "absent"
	RecordsError string          `json:"records_error,omitempty"` // why the driver is behind
	Unsent       int             `json:"unsent"`                  // operations in the record log that the driver has not acknowledged
	UnsentSince  time.Time       `json:"unsent_since,omitzero"`   // since when the oldest of them are being sent; zero: none is
	Hits         uint64          `json:"hits"`                    // since start
	Misses       uint64          `json:"misses"`                  // since start
	BytesServed  uint64          `json:"bytes_served"`            // since start
	BytesFetched uint64          `json:"bytes_fetched"`           // since start, from origins
	Policy       string          `json:"policy"`                  // who decided at the last eviction: the policy's name, or "lru (fallback): reason"
	Stale        uint64          `json:"stale"`                   // since start, number of requests answered with an image that the origin could not confirm
	Quarantined  uint64          `json:"quarantined"`             // since start, number of images that turned out to be corrupt
	Origins      []OriginTrouble `json:"origins,omitempty"`       // those that cannot confirm cached images, which are served stale
	Disk         string          `json:"disk"`                    // "ok", or why nothing is stored

	Scrub *ScrubProgress `json:"scrub,omitempty"` // of the whole cache; nil: none is running
}

// FillInfo says how far a fill is.
type FillInfo struct {
	ID      string    `json:"id"`
	Name    string    `json:"name,omitempty"` // as in [ImageInfo]
	Phase   string    `json:"phase"`          // "waiting" for its turn or the origin, "reserving", "streaming", "verifying", "committing", "detached", "failed", [Interrupted]: it goes on with the next request, or [Writing]: a client writes it
	Size    int64     `json:"size"`           // bytes; -1: unknown
	Written int64     `json:"written"`
	Resumed int64     `json:"resumed,omitempty"` // of Written, taken over from an interrupted fill
	Rate    int64     `json:"rate"`              // bytes a second from the origin since the start; 0: nothing came yet
	Clients int       `json:"clients"`           // number that follow it; 0: none, or the queue
	Started time.Time `json:"started,omitzero"`
	URL     string    `json:"url,omitempty"`
	Write   string    `json:"write,omitempty"` // name of the write, if a client writes the image
}

// Writing is the phase of an image that a client writes: see [Cache.BeginWrite].
const Writing = "writing"

// WriteOptions begins a write. Digests are hex and optional; Size < 0 means
// unknown.
type WriteOptions struct {
	ID     string `json:"id"`
	MD5    string `json:"md5,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	SHA512 string `json:"sha512,omitempty"`
	Size   *int64 `json:"size,omitempty"`
}

// WriteStatus says how far a write is.
type WriteStatus struct {
	Write   string    `json:"write"`
	Offset  int64     `json:"offset"`
	Expires time.Time `json:"expires"` // when it is aborted unless bytes arrive before
}
