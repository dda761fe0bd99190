// Package fifo is the eviction policy first in, first out: the image that came
// first leaves first, however often it is read (Belady: "A study of
// replacement algorithms for a virtual-storage computer", IBM Systems Journal
// 5(2), 1966).
//
// It has no parameters, and is what other policies are measured by: one that
// is not better than this one is not worth its trouble.
package fifo

import (
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Manifest describes the policy.
var Manifest = sdk.Manifest{
	Name:         "fifo",
	Version:      "1.0.0",
	Kind:         sdk.KindPolicy,
	Capabilities: []sdk.Capability{sdk.CapScore},
}

// New returns the policy.
func New() sdk.Scorer { return sdk.ScoreFunc(score) }

// score is the time of the commit. A float64 holds today's nanoseconds to 256
// ns, in which no disk commits two images.
func score(r *sdk.Record, _ time.Time) float64 { return float64(r.Admitted) }
