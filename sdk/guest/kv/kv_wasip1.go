package kv

import "unsafe"

//go:wasmimport imgcache kv_get
func hostGet(key unsafe.Pointer, keyLen uint32, buf unsafe.Pointer, room uint32) int32

//go:wasmimport imgcache kv_scan
func hostScan(prefix unsafe.Pointer, prefixLen uint32, after unsafe.Pointer, afterLen uint32, buf unsafe.Pointer, room uint32) int32

//go:wasmimport imgcache kv_write
func hostWrite(pairs unsafe.Pointer, size uint32) uint32

func get(key, room []byte) int32 {
	return hostGet(at(key), size(key), at(room), size(room))
}

func scan(prefix, after, room []byte) int32 {
	return hostScan(at(prefix), size(prefix), at(after), size(after), at(room), size(room))
}

func write(pairs []byte) uint32 { return hostWrite(at(pairs), size(pairs)) }

func at(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }
func size(b []byte) uint32       { return uint32(len(b)) }
