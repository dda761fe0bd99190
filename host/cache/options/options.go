// Package options has the options of the engine that an operator may set, with
// their defaults. They are named and grouped as in the block cache of the
// configuration. host/config reads them, and the engine works with them.
package options

import "time"

// Options are the options of a cache. [Default] has the values of those that are
// not set.
type Options struct {
	MaxSize       int64 // bytes; 0: nothing is kept
	Limit         Limit
	StallTime     time.Duration // a partial file that has not grown for so long is stalled
	WriteTimeout  time.Duration // a write to which no bytes come for so long is aborted
	FlushInterval time.Duration // how often hits are sent to the driver; at least a second

	MaxImageSize int64 // bytes; larger images are passed through; 0: no bound
	AdmitAfter   int   // an image is stored from its Nth request on, counted since the start; at least 1
	VerifyReads  VerifyReads

	Prune    Prune
	Fill     Fill
	Prefetch Prefetch
	Scrub    Scrub
}

// Limit says what MaxSize means.
type Limit string

// The limits.
const (
	LimitHard  Limit = "hard"  // a fill that does not fit is passed through
	LimitPrune Limit = "prune" // only a prune looks at it, as with Glance
)

// VerifyReads says when the blocks of an image are checked against its table.
type VerifyReads string

// The values of [VerifyReads].
const (
	VerifyAlways VerifyReads = "always" // each time they are served
	VerifyFirst  VerifyReads = "first"  // the first time after the start or a change of the file
	VerifyNever  VerifyReads = "never"  // only by a scrub
)

// Prune is the automatic eviction.
type Prune struct {
	Interval      time.Duration // how often it looks whether to begin
	HighWatermark float64       // part of MaxSize above which it begins; 0 < low <= high <= 1
	LowWatermark  float64       // part of MaxSize at which it ends
	MinAge        time.Duration // images that were cached more recently stay
	MinFree       int64         // bytes of the file system that stay free, whatever fills it; 0: no minimum
}

// Fill is the transfer of images from their origin into the cache.
type Fill struct {
	Retries       int   // how often in a row a transfer is continued without getting new bytes
	KeepFilling   bool  // a fill goes on after the last client has left
	Concurrency   int   // number of transfers at once, from all origins together; 0: no bound
	Bandwidth     int64 // bytes a second of all transfers together; 0: no bound
	RangesInFill  RangesInFill
	ColdPerClient int // number of fills at once that one client may start; its other cold images are passed through; 0: no bound
}

// RangesInFill says when a range of an image that is being fetched is sent.
type RangesInFill string

// The values of [RangesInFill].
const (
	RangesStream   RangesInFill = "stream"   // as soon as its bytes are on disk; the range with the last byte waits until the image is verified
	RangesVerified RangesInFill = "verified" // when the whole image is verified
)

// Prefetch fetches the images of the queue.
type Prefetch struct {
	Workers int   // number of images fetched at once
	MinRate int64 // bytes a second; a transfer that is slower for a minute makes room for another; 0: no bound
}

// Scrub reads the cached images in the background and checks them.
type Scrub struct {
	Bandwidth int64 // bytes a second; 0: no bound
}

// ShutdownFills says what happens to running fills when the service ends.
type ShutdownFills string

// The values of [ShutdownFills].
const (
	FillsCheckpoint ShutdownFills = "checkpoint" // what was fetched is kept for the next start
	FillsAbort      ShutdownFills = "abort"      // what was fetched is deleted
)

// Default returns the options of a configuration that sets none.
func Default() Options {
	return Options{
		MaxSize:       10 << 30, // as Glance
		Limit:         LimitHard,
		StallTime:     24 * time.Hour,   // as Glance
		WriteTimeout:  10 * time.Minute, // longer than a client pauses between two parts of an image
		FlushInterval: time.Second,
		AdmitAfter:    1,
		VerifyReads:   VerifyAlways,
		Prune:         Prune{Interval: time.Minute, HighWatermark: 1, LowWatermark: 1},
		Fill:          Fill{Retries: 5, KeepFilling: true, RangesInFill: RangesStream},
		Prefetch: Prefetch{
			Workers: 2,    // while one waits for a slow origin, the other works
			MinRate: 1024, // so slow a transfer never gets an image, and no line is so slow
		},
	}
}
