package main

import (
	"testing"

	"github.com/imgcache/imgcache-host/sdk/guest/kv"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// TestDriver needs no WebAssembly: here package kv keeps what is written in
// memory.
func TestDriver(t *testing.T) {
	sdktest.Driver(t, func(*testing.T) sdktest.Subject {
		kv.Clear()
		return sdktest.Subject{Driver: driver{}, Entries: 1000}
	})
}
