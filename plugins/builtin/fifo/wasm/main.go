// Command fifo is the policy fifo as a WebAssembly module:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-s -w" -o fifo.wasm .
package main

import (
	"github.com/imgcache/imgcache-host/plugins/builtin/fifo"
	"github.com/imgcache/imgcache-host/sdk/guest"
)

func init() { guest.Export(fifo.Manifest, fifo.New()) }

func main() {}
