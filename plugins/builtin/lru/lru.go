// Package lru is the default eviction policy: the image that was read least
// recently leaves first (Mattson, Gecsei, Slutz, Traiger: "Evaluation techniques
// for storage hierarchies", IBM Systems Journal 9(2), 1970).
//
// It is a scoring policy of one line, has no options, and is built to
// lru.wasm, so that every default installation exercises the WebAssembly
// path. The host knows the same order by heart and uses it when a policy
// fails.
package lru

import (
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Manifest describes the policy.
var Manifest = sdk.Manifest{
	Name:         "lru",
	Version:      "1.0.0",
	Kind:         sdk.KindPolicy,
	Capabilities: []sdk.Capability{sdk.CapScore},
}

// New returns the policy.
func New() sdk.Scorer { return sdk.ScoreFunc(score) }

// score is the time of the last access. A float64 holds today's nanoseconds
// to 256 ns; accesses closer than that are equals, which the host orders by
// the exact time.
func score(r *sdk.Record, _ time.Time) float64 { return float64(r.Accessed) }
