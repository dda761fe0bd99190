package abi

import (
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/imgcache/imgcache-host/sdk"
)

// Limits of the store of keys and values, in bytes.
const (
	MaxKey   = 1 << 10 // of a key, which is at least one byte long: an id with room for what stands in front
	MaxValue = 1 << 20 // of a value
)

// deleted stands where the length of a value would, for a key that is to be
// removed.
const deleted = 1<<32 - 1

// Pair is a key with its value. As a change of the store, one without a value
// is distinct from one with an empty value: it removes the key.
type Pair struct {
	Key, Value []byte
	Delete     bool
}

// Validate reports, wrapping sdk.ErrInvalid, that no store may hold the pair.
func (p Pair) Validate() error {
	if len(p.Key) == 0 || len(p.Key) > MaxKey || len(p.Value) > MaxValue {
		return fmt.Errorf("%w: a key of %d bytes with a value of %d; expected a key of 1 to %d and a value of at most %d",
			sdk.ErrInvalid, len(p.Key), len(p.Value), MaxKey, MaxValue)
	}
	return nil
}

// AppendPair appends a pair to b: the lengths of key and value as u32, then
// both.
func AppendPair(b []byte, p Pair) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(len(p.Key)))
	if p.Delete {
		return append(le.AppendUint32(b, deleted), p.Key...)
	}
	b = le.AppendUint32(b, uint32(len(p.Value)))
	return append(append(b, p.Key...), p.Value...)
}

// PairLen is how many bytes [AppendPair] appends.
func PairLen(p Pair) int { return 8 + len(p.Key) + len(p.Value) }

// Pairs reads what [AppendPair] appended, and is checked to the end of b. The
// pairs lie in b. An error, after which nothing follows, wraps sdk.ErrInvalid.
func Pairs(b []byte) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		for rest := b; len(rest) > 0; {
			p, after, ok := cutPair(rest)
			if !ok {
				yield(Pair{}, fmt.Errorf("%w: the list of keys and values ends in the middle of a pair", sdk.ErrInvalid))
				return
			}
			if !yield(p, nil) {
				return
			}
			rest = after
		}
	}
}

func cutPair(b []byte) (p Pair, rest []byte, ok bool) {
	if len(b) < 8 {
		return p, nil, false
	}
	le := binary.LittleEndian
	key, value := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:]))
	if value == deleted {
		p.Delete, value = true, 0
	}
	if b = b[8:]; key+value > uint64(len(b)) {
		return p, nil, false
	}
	p.Key, p.Value = b[:key:key], b[key:key+value:key+value]
	return p, b[key+value:], true
}
