// Command imgcache-driver-centraldb is the driver centraldb as a plugin.
package main

import (
	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

func main() { serve.Main(centraldb.Manifest, centraldb.New(serve.Logger())) }
