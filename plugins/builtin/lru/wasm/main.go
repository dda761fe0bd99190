// Command lru is the policy lru as a WebAssembly module:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-s -w" -o lru.wasm .
package main

import (
	"github.com/imgcache/imgcache-host/plugins/builtin/lru"
	"github.com/imgcache/imgcache-host/sdk/guest"
)

func init() { guest.Export(lru.Manifest, lru.New()) }

func main() {}
