// Command gdsf is the policy gdsf as a WebAssembly module:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-s -w" -o gdsf.wasm .
package main

import (
	"github.com/imgcache/imgcache-host/plugins/builtin/gdsf"
	"github.com/imgcache/imgcache-host/sdk/guest"
)

func init() { guest.Export(gdsf.Manifest, gdsf.New()) }

func main() {}
