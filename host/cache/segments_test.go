package cache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
)

// storing is a cache with room for what a test fetches.
func storing() Config {
	return Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Fill: options.Fill{KeepFilling: true}}}
}

// TestColdDownloadInParts: a download in several parts at once costs the origin
// one image, whatever their number and order.
func TestColdDownloadInParts(t *testing.T) {
	for _, parts := range []int64{2, 8} {
		for _, backwards := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d parts, backwards %v", parts, backwards), func(t *testing.T) {
				t.Parallel()
				inEngine(t, storing(), func(t *testing.T, e *engine) {
					e.origin.data, e.origin.digest = longContent(48), true
					size := int64(len(e.origin.data))
					var wg sync.WaitGroup
					for i := range parts {
						if backwards {
							i = parts - 1 - i
						}
						from, to := i*size/parts, (i+1)*size/parts
						wg.Go(func() { e.wantPart(t, from, to) })
						time.Sleep(time.Millisecond)
					}
					wg.Wait()
					time.Sleep(time.Minute)
					e.wantIDs("image")
					e.origin.mu.Lock()
					sent := int64(e.origin.sent)
					e.origin.mu.Unlock()
					if most := size + size/10; sent > most {
						t.Errorf("the origin sent %d bytes for an image of %d", sent, size)
					}
					if got, o := e.download("image"); got != string(e.origin.data) || !o.Hit {
						t.Errorf("then %d bytes, %+v", len(got), o)
					}
				})
			})
		}
	}
}

// longContent is an image of so many MiB and a bit, no two blocks of which are
// alike.
func longContent(mib int) []byte {
	b := make([]byte, mib<<20+777)
	rng := rand.New(rand.NewPCG(uint64(mib), 9))
	for i := 0; i < len(b); i += 512 {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// wantPart reads [from, to) of the image "image" and compares it.
func (e *engine) wantPart(t *testing.T, from, to int64) {
	k, err := e.Open(WithRange(t.Context()), "image")
	if err != nil {
		t.Error(err)
		return
	}
	defer k.Close()
	var got bytes.Buffer
	if _, err := k.CopyTo(t.Context(), &got, from, to-from); err != nil || !bytes.Equal(got.Bytes(), e.origin.data[from:to]) {
		t.Errorf("[%d, %d): %d bytes, %v", from, to, got.Len(), err)
	}
}

// TestPartsAtRandom reads random parts while the origin breaks off, clients stall
// or leave, and the disk fails. Nobody gets wrong bytes, and what is stored in the
// end is the image.
func TestPartsAtRandom(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			inEngine(t, storing(), func(t *testing.T, e *engine) {
				rng := newRand(seed)
				e.origin.data, e.origin.digest = longContent(40), seed%2 == 0
				e.origin.cuts = rng.IntN(3)
				if seed%5 == 4 {
					e.fsys.setOdds(20)
				}
				size := int64(len(e.origin.data))
				var wg sync.WaitGroup
				for range 12 {
					from := rng.Int64N(size)
					n := 1 + rng.Int64N(size-from)
					w := &moodyWriter{rng: newRand(rng.Uint64()), leaves: rng.IntN(3) == 0}
					wg.Go(func() { e.readPart(t, w, from, n) })
					time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
				}
				wg.Wait()
				e.fsys.setOdds(0)
				time.Sleep(10 * time.Minute)
				if got, _ := e.download("image"); got != string(e.origin.data) {
					t.Errorf("then %d bytes", len(got))
				}
			})
		})
	}
}

// readPart copies n bytes from an offset to w, which must be right as far as they
// come, and all of them if there is no error.
func (e *engine) readPart(t *testing.T, w *moodyWriter, from, n int64) {
	k, err := e.Open(WithRange(t.Context()), "image")
	if err != nil {
		return
	}
	defer k.Close()
	m, err := k.CopyTo(t.Context(), w, from, n)
	if err == nil && m != n || !bytes.Equal(w.got.Bytes(), e.origin.data[from:from+int64(w.got.Len())]) {
		t.Errorf("[%d, %d): %d bytes, %v", from, from+n, m, err)
	}
}

// moodyWriter is a client that stalls now and then, and may leave.
type moodyWriter struct {
	rng    *rand.Rand
	leaves bool
	got    bytes.Buffer
}

func (w *moodyWriter) Write(p []byte) (int, error) {
	switch n := w.rng.IntN(40); {
	case n == 0:
		time.Sleep(20 * time.Second)
	case n == 1 && w.leaves:
		return 0, errors.New("the client left")
	}
	return w.got.Write(p)
}
