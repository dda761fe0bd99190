// Command imgcache-driver-sqlite is the driver sqlite as a plugin of
// imgcache-host, which starts it.
package main

import (
	"github.com/imgcache/imgcache-host/plugins/builtin/sqlite"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

func main() { serve.Main(sqlite.Manifest, sqlite.New(serve.Logger())) }
