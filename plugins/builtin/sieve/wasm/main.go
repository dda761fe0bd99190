// Command sieve is the policy sieve as a WebAssembly module:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-s -w" -o sieve.wasm .
package main

import (
	"github.com/imgcache/imgcache-host/plugins/builtin/sieve"
	"github.com/imgcache/imgcache-host/sdk/guest"
)

func init() { guest.Export(sieve.Manifest, sieve.New()) }

func main() {}
