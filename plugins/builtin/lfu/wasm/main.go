// Command lfu is the policy lfu as a WebAssembly module:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-s -w" -o lfu.wasm .
package main

import (
	"github.com/imgcache/imgcache-host/plugins/builtin/lfu"
	"github.com/imgcache/imgcache-host/sdk/guest"
)

func init() { guest.Export(lfu.Manifest, lfu.New()) }

func main() {}
