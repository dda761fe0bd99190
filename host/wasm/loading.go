package wasm

import (
	"runtime/metrics"
	"sync"
	"time"
)

// maxLoading is the memory in bytes that a runner may use while it compiles a
// module: one and a half times what the largest ordinary module takes. A small
// module written for the purpose can take any amount.
const maxLoading = 1 << 30

// boundMemory calls over when this process uses more memory than limit, until
// the returned function is called.
func boundMemory(limit uint64, over func()) (stop func()) {
	const often = 50 * time.Millisecond // a compiler allocates a few megabytes in that time
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(often)
		defer tick.Stop()
		for memory() <= limit {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
		}
		over()
	})
	return func() {
		close(ended)
		wg.Wait()
	}
}

// memory returns how many bytes Go's runtime has from the system.
func memory() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64() - sample[1].Value.Uint64()
}
