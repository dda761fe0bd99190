// Command s3fifo is the policy s3fifo as a WebAssembly module:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-s -w" -o s3fifo.wasm .
package main

import (
	"github.com/imgcache/imgcache-host/plugins/builtin/s3fifo"
	"github.com/imgcache/imgcache-host/sdk/guest"
)

func init() { guest.Export(s3fifo.Manifest, s3fifo.New()) }

func main() {}
