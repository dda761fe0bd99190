package cache

import "sync"

// blocks is the pool of buffers of one block each.
var blocks bufferPool

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() []byte {
	if b, ok := p.pool.Get().(*[blockSize]byte); ok {
		return b[:]
	}
	return make([]byte, blockSize)
}

func (p *bufferPool) put(b []byte) { p.pool.Put((*[blockSize]byte)(b)) }
