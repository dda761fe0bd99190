//go:build !wasip1

package kv

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
)

// memory is the store of a process that is no module.
var (
	memory  = map[string][]byte{}
	changes sync.Mutex // guards it
)

// Clear empties the store, for a test that begins. It is not there in a module.
func Clear() {
	changes.Lock()
	defer changes.Unlock()
	clear(memory)
}

func get(key, room []byte) int32 {
	changes.Lock()
	defer changes.Unlock()
	value, ok := memory[string(key)]
	if !ok {
		return -int32(abi.StatusNotFound)
	}
	return int32(max(len(value), copy(room, value)))
}

func scan(prefix, after, room []byte) int32 {
	changes.Lock()
	defer changes.Unlock()
	size := 0
	for _, key := range slices.Sorted(maps.Keys(memory)) {
		if !strings.HasPrefix(key, string(prefix)) || key <= string(after) {
			continue
		}
		p := abi.Pair{Key: []byte(key), Value: memory[key]}
		need := size + abi.PairLen(p)
		if need > len(room) {
			if size == 0 {
				size = need
			}
			break
		}
		abi.AppendPair(room[:size], p)
		size = need
	}
	return int32(size)
}

func write(pairs []byte) uint32 {
	changes.Lock()
	defer changes.Unlock()
	next := maps.Clone(memory)
	for p, err := range abi.Pairs(pairs) {
		switch {
		case err != nil || p.Validate() != nil:
			return uint32(abi.StatusInvalid)
		case p.Delete:
			delete(next, string(p.Key))
		default:
			next[string(p.Key)] = bytes.Clone(p.Value)
		}
	}
	memory = next
	return uint32(abi.StatusOK)
}
