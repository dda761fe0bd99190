package index

import (
	"sync/atomic"

	"github.com/imgcache/imgcache-host/host/store"
)

// BlockSet is a set of blocks of one image. Many readers may use it at once. The
// zero value is empty.
type BlockSet struct {
	words atomic.Pointer[[]atomic.Uint64] // a bit for each block
}

// Add adds block n of an image of size bytes.
func (s *BlockSet) Add(n, size int64) {
	words := s.words.Load()
	if words == nil {
		made := make([]atomic.Uint64, size/store.BlockSize/64+1)
		s.words.CompareAndSwap(nil, &made) // fails if another reader was faster
		words = s.words.Load()
	}
	if word, bit := &(*words)[n/64], uint64(1)<<(n%64); word.Load()&bit == 0 {
		word.Or(bit)
	}
}

// Run returns the first block from n on that is not in the set.
func (s *BlockSet) Run(n int64) int64 {
	words := s.words.Load()
	for words != nil && n/64 < int64(len(*words)) && (*words)[n/64].Load()&(1<<(n%64)) != 0 {
		n++
	}
	return n
}
