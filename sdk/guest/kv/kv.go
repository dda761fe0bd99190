// Package kv is the store of keys and values that the host keeps for a driver
// that is a module, and whose manifest requests sdk.GrantKV. It outlives the
// module and the service. It is there from Configure on.
//
// On other platforms than WebAssembly the store is in memory, so that a driver
// can be tested without.
package kv

import (
	"bytes"
	"iter"
	"sync"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
)

// Limits in bytes; a key has at least one.
const (
	MaxKey   = abi.MaxKey
	MaxValue = abi.MaxValue
)

// Get returns the value of a key. A key that is not there is sdk.ErrNotFound.
func Get(key []byte) ([]byte, error) {
	mu.Lock()
	defer mu.Unlock()
	value, err := fill(&read, func(room []byte) int32 { return get(key, room) })
	return bytes.Clone(value), err
}

// Pair is a key with its value.
type Pair struct{ Key, Value []byte }

// Scan yields the pairs whose keys begin with prefix and come after after, in
// the order of the bytes of their keys. A pair is valid until the next one. An
// error ends it. What is written meanwhile may be seen or not.
func Scan(prefix, after []byte) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		var room []byte
		last := bytes.Clone(after)
		for {
			page, err := fill(&room, func(room []byte) int32 { return scan(prefix, last, room) })
			if err != nil {
				yield(Pair{}, err)
				return
			}
			if len(page) == 0 {
				return
			}
			for p, err := range abi.Pairs(page) {
				last = append(last[:0], p.Key...)
				if !yield(Pair{p.Key, p.Value}, err) || err != nil {
					return
				}
			}
		}
	}
}

// Batch is a list of changes. The zero value is an empty one.
type Batch struct{ pairs []byte }

// Put sets the value of a key.
func (b *Batch) Put(key, value []byte) {
	b.pairs = abi.AppendPair(b.pairs, abi.Pair{Key: key, Value: value})
}

// Delete removes a key; one that is not there is no error.
func (b *Batch) Delete(key []byte) {
	b.pairs = abi.AppendPair(b.pairs, abi.Pair{Key: key, Delete: true})
}

// Write carries out the changes of a batch in their order, all or none, and
// returns when they are on disk. Keys and values of sizes that are not allowed
// are sdk.ErrInvalid; a store that is full, by its quota or by the disk, is
// sdk.ErrUnavailable.
func Write(b *Batch) error { return abi.Status(write(b.pairs)).Err() }

// usual is the room for what is read at first: for pages of some hundred
// records.
const usual = 64 << 10

var (
	mu   sync.Mutex
	read []byte // room for what is read, which is used again: a module's memory is small
)

// fill calls f with room for its answer, and again if that was too little. The
// answer is valid until room is used again.
func fill(room *[]byte, f func(room []byte) int32) ([]byte, error) {
	if *room == nil {
		*room = make([]byte, usual)
	}
	for {
		n := f(*room)
		switch {
		case n < 0:
			return nil, abi.Status(-n).Err()
		case int(n) <= len(*room):
			return (*room)[:n], nil
		}
		*room = make([]byte, n)
	}
}
