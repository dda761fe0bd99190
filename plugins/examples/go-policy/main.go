// Command go-policy lets the images go first that cost least to fetch again,
// for each day that nobody read them.
package main

import (
	"time"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/guest"
)

func init() {
	guest.Export(sdk.Manifest{
		Name: "cheap-first", Version: "1.0.0", Kind: sdk.KindPolicy, Capabilities: []sdk.Capability{sdk.CapScore},
	}, sdk.ScoreFunc(func(r *sdk.Record, now time.Time) float64 {
		idle := now.Sub(time.Unix(0, r.Accessed)).Hours() / 24
		return float64(r.FetchMS+1) / (1 + max(0, idle)) // the lowest leaves first
	}))
}

func main() {}
