// Package lfu is the eviction policy of the least frequently used: the image
// with the fewest hits leaves first, and of equals the one that was read least
// recently (Breslau, Cao, Fan, Phillips, Shenker: "Web Caching and Zipf-like
// Distributions: Evidence and Implications", INFOCOM 1999, as In-Cache-LFU).
//
// An image that leaves takes its count along. The policy has no parameters,
// and images do not grow old: one that was in demand once stays until others
// have as many hits. The policy gdsf with the cost "byte" is the same with age.
package lfu

import (
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Manifest describes the policy.
var Manifest = sdk.Manifest{
	Name:         "lfu",
	Version:      "1.0.0",
	Kind:         sdk.KindPolicy,
	Capabilities: []sdk.Capability{sdk.CapScore},
}

// New returns the policy.
func New() sdk.Scorer { return sdk.ScoreFunc(score) }

// score is the number of hits, which a float64 holds exactly to 2^53. The
// host orders equals by their last access.
func score(r *sdk.Record, _ time.Time) float64 { return float64(r.Hits) }
