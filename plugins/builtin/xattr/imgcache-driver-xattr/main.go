// Command imgcache-driver-xattr is the driver xattr as a plugin of
// imgcache-host, which starts it.
package main

import (
	"github.com/imgcache/imgcache-host/plugins/builtin/xattr"
	"github.com/imgcache/imgcache-host/sdk/serve"
)

func main() { serve.Main(xattr.Manifest, xattr.New(serve.Logger())) }
