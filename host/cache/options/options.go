// Package options has what an operator may set of the engine, named and grouped
// as in the block cache of the configuration, with the defaults. The engine
// works with it, and host/config reads it.
package options

import "time"

// Options are those of a cache. [Default] has the value of each that is not set.
type Options struct {
	MaxSize       int64 // bytes; 0 keeps nothing
	Limit         Limit
	StallTime     time.Duration // a partial file without growth for so long is stalled
	WriteTimeout  time.Duration // an image that a client brings, and no byte of it for so long, is given up
	FlushInterval time.Duration // hits are sent to the driver so often; at least a second

	MaxImageSize int64 // bytes; larger images are passed through; 0: no bound
	AdmitAfter   int   // an image is stored from its Nth request since the start on; at least 1
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
	LimitPrune Limit = "prune" // only prune looks at it, as Glance does
)

// VerifyReads says when the blocks of an image are checked against its table.
type VerifyReads string

// The values of [VerifyReads].
const (
	VerifyAlways VerifyReads = "always" // in each read that serves them
	VerifyFirst  VerifyReads = "first"  // once after the start or a change of the file
	VerifyNever  VerifyReads = "never"  // by a scrub alone
)

// Prune is the automatic eviction.
type Prune struct {
	Interval      time.Duration // between two looks
	HighWatermark float64       // part of MaxSize above which it begins; 0 < low <= high <= 1
	LowWatermark  float64       // part of MaxSize at which it ends
	MinAge        time.Duration // younger images stay
	MinFree       int64         // bytes of the file system that stay free, whoever uses it; 0: no matter
}

// Fill is the transfer of images from their origin into the cache.
type Fill struct {
	Retries       int   // attempts to continue a transfer that brings nothing new
	KeepFilling   bool  // go on when the last client has left
	Concurrency   int   // transfers at once, all origins together; 0: no bound
	Bandwidth     int64 // bytes a second, all transfers together; 0: no bound
	RangesInFill  RangesInFill
	ColdPerClient int // images that one client may be the first to ask for at once and have stored; 0: no bound
}

// RangesInFill says when a range of an image that is being filled is handed out.
type RangesInFill string

// The values of [RangesInFill].
const (
	RangesStream   RangesInFill = "stream"   // when its bytes are on disk; the range with the last byte waits for the verdict
	RangesVerified RangesInFill = "verified" // when the whole image is verified
)

// Prefetch is the work on the queue.
type Prefetch struct {
	Workers int   // images fetched at once
	MinRate int64 // bytes a second; a transfer that brings fewer for a minute gives its place to another; 0: no bound
}

// Scrub reads the cached images in the background and checks them.
type Scrub struct {
	Bandwidth int64 // bytes a second; 0: no bound
}

// ShutdownFills says what becomes of running fills when the service ends.
type ShutdownFills string

// The values of [ShutdownFills].
const (
	FillsCheckpoint ShutdownFills = "checkpoint" // what was fetched is kept for the next start
	FillsAbort      ShutdownFills = "abort"      // what was fetched is forgotten
)

// Default returns the options of a configuration that sets none.
func Default() Options {
	return Options{
		MaxSize:       10 << 30, // as Glance
		Limit:         LimitHard,
		StallTime:     24 * time.Hour,   // as Glance
		WriteTimeout:  10 * time.Minute, // longer than whoever brings an image pauses between its parts
		FlushInterval: time.Second,
		AdmitAfter:    1,
		VerifyReads:   VerifyAlways,
		Prune:         Prune{Interval: time.Minute, HighWatermark: 1, LowWatermark: 1},
		Fill:          Fill{Retries: 5, KeepFilling: true, RangesInFill: RangesStream},
		Prefetch: Prefetch{
			Workers: 2,    // one may wait for a slow origin while the other works
			MinRate: 1024, // no image is ever had at this rate, and no line is so slow
		},
	}
}
