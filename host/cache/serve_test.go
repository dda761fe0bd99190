package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/index"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/store"
)

// someImage is what the origin has in these tests: four blocks and a half.
func someImage() []byte {
	b := make([]byte, 4*blockSize+blockSize/2)
	rand.NewChaCha8([32]byte{3}).Read(b)
	return b
}

// inCached runs f with an engine that has cached the origin's image.
func inCached(t *testing.T, cfg Config, f func(*testing.T, *engine)) {
	t.Helper()
	cfg.MaxSize, cfg.Limit = 1<<30, options.LimitHard
	inEngine(t, cfg, func(t *testing.T, e *engine) {
		e.origin.data = someImage()
		e.refetch()
		f(t, e)
	})
}

// refetch downloads the image, so that it is cached.
func (e *engine) refetch() {
	e.t.Helper()
	k, err := e.Open(e.t.Context(), "image")
	if err != nil {
		e.t.Fatal(err)
	}
	got := comparer{want: e.origin.data}
	_, err = k.CopyTo(e.t.Context(), &got, 0, -1)
	k.Close()
	if err != nil || !got.right() {
		e.t.Fatalf("download: %d bytes, right %v, %v", got.n, got.right(), err)
	}
	time.Sleep(time.Minute)
}

func (e *engine) downloadPart(off, n int64) ([]byte, error) {
	e.t.Helper()
	k, err := e.Open(e.t.Context(), "image")
	if err != nil {
		e.t.Fatal(err)
	}
	defer k.Close()
	var got bytes.Buffer
	_, err = k.CopyTo(e.t.Context(), &got, off, n)
	return got.Bytes(), err
}

// edit changes the cached file by another descriptor. Its time tells of it
// unless hidden.
func (e *engine) edit(hidden bool, change func(store.File)) {
	e.t.Helper()
	f, err := e.store.FS().OpenFile("test", "image", os.O_RDWR, 0)
	if err != nil {
		e.t.Fatal(err)
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		e.t.Fatal(err)
	}
	change(f)
	at := before.ModTime()
	if !hidden {
		at = at.Add(time.Second)
	}
	if err := e.store.FS().Chtimes("test", "image", at); err != nil {
		e.t.Fatal(err)
	}
}

// flip changes a bit of a block.
func (e *engine) flip(block int64, hidden bool) {
	e.t.Helper()
	e.edit(hidden, func(f store.File) {
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, block*blockSize+77); err != nil {
			e.t.Fatal(err)
		}
		b[0] ^= 4
		if _, err := f.WriteAt(b, block*blockSize+77); err != nil {
			e.t.Fatal(err)
		}
	})
}

// wantQuarantined checks that the bad file, and nothing else, takes space, and
// that a clean frees it.
func (e *engine) wantQuarantined(what string) {
	e.t.Helper()
	if info, _ := e.Image("image"); info.State != StateAbsent || !strings.Contains(info.Error, "quarantined") {
		e.t.Errorf("%s: the image is %s because of %q, want it quarantined", what, info.State, info.Error)
	}
	list, err := e.store.Invalid()
	if err != nil || len(list) != 1 {
		e.t.Fatalf("%s: %v, %v in invalid/, want one file", what, list, err)
	}
	if u := e.Usage(); u.Bytes != list[0].Size {
		e.t.Errorf("%s: %d bytes are used, want the %d in invalid/", what, u.Bytes, list[0].Size)
	}
	past := e.history.Of("image")
	if last := past[len(past)-1]; last.Event != Quarantined || last.Times > 1 {
		e.t.Errorf("%s: the history ends with %+v, want one quarantine", what, last)
	}
	if r, err := e.Clean(e.t.Context(), nil); err != nil || r.Files != 1 || e.Usage().Bytes != 0 {
		e.t.Errorf("%s: clean removed %+v, %v, and %d bytes are left", what, r, err, e.Usage().Bytes)
	}
}

// TestBitFlipInEachBlock changes a bit in each block, before the image is
// opened and after, in a way that its time tells of and in one that it does
// not: no response has a wrong byte.
func TestBitFlipInEachBlock(t *testing.T) {
	inCached(t, Config{}, func(t *testing.T, e *engine) {
		size := int64(len(e.origin.data))
		for block := range int64(5) {
			for _, hidden := range []bool{true, false} {
				for _, open := range []bool{true, false} {
					for _, part := range [][2]int64{{0, -1}, {block*blockSize + 70, 10}, {block*blockSize - min(1, block), size/2 - blockSize}} {
						what := fmt.Sprintf("block %d, hidden %v, open %v, range %v", block, hidden, open, part)
						var k Content
						var err error
						if open {
							if k, err = e.Open(t.Context(), "image"); err != nil {
								t.Fatal(err)
							}
						}
						e.flip(block, hidden)
						if !open {
							if k, err = e.Open(t.Context(), "image"); err != nil {
								t.Fatal(err)
							}
						}
						got := comparer{want: e.origin.data[part[0]:]}
						if part[1] >= 0 {
							got.want = got.want[:min(part[1], int64(len(got.want)))]
						}
						_, err = k.CopyTo(t.Context(), &got, part[0], part[1])
						k.Close()
						if err != nil || !got.right() || !k.Outcome().Hit {
							t.Errorf("%s: %d bytes, right %v, hit %v: %v", what, got.n, got.right(), k.Outcome().Hit, err)
						}
						e.wantQuarantined(what)
						e.refetch()
					}
				}
			}
		}
	})
}

// TestDamagedTable damages what vouches for the image: it is fetched again,
// and no byte of the file is served.
func TestDamagedTable(t *testing.T) {
	inCached(t, Config{}, func(t *testing.T, e *engine) {
		for what, damage := range map[string]func(){
			"cut":   func() { e.edit(true, func(f store.File) { f.Truncate(3 * blockSize) }) },
			"grown": func() { e.edit(false, func(f store.File) { f.WriteAt([]byte("more"), int64(len(e.origin.data))) }) },
			"table": func() {
				e.flip(1, true)
				tables, err := e.store.FS().ReadDir("test", ".imgcache/blocks")
				if err != nil || len(tables) != 1 {
					t.Fatal(tables, err)
				}
				f, err := e.store.FS().OpenFile("test", ".imgcache/blocks/"+tables[0].Name(), os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := f.WriteAt([]byte("torn"), 99); err != nil {
					t.Fatal(err)
				}
			},
		} {
			damage()
			if k, err := e.Stat(t.Context(), "image"); err != nil || k.Outcome().Hit || k.Info().Size != int64(len(e.origin.data)) {
				t.Errorf("%s: Stat = %+v, %v, want the origin's answer", what, k, err)
			}
			e.wantQuarantined(what)
			e.refetch()
			damage()
			if _, err := e.OpenCached(t.Context(), "image"); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: OpenCached = %v, want ErrNotFound", what, err)
			}
			e.wantQuarantined(what)
			e.refetch()
			damage()
			if got, err := e.downloadPart(0, -1); err != nil || !bytes.Equal(got, e.origin.data) {
				t.Errorf("%s: %d bytes, right %v: %v", what, len(got), bytes.Equal(got, e.origin.data), err)
			}
			time.Sleep(time.Minute)
			if u := e.Usage(); u.Images != 1 || u.Bytes != int64(len(e.origin.data))+e.others.bytes || e.others.bytes == 0 {
				t.Errorf("%s: usage is %+v, want the new image and the bad file of %d", what, u, e.others.bytes)
			}
			if _, err := e.Clean(t.Context(), nil); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestUnreadableBlock is one of a disk that gives errors.
func TestUnreadableBlock(t *testing.T) {
	for _, mode := range []options.VerifyReads{options.VerifyAlways, options.VerifyFirst, options.VerifyNever} {
		inCached(t, Config{Options: options.Options{VerifyReads: mode}}, func(t *testing.T, e *engine) {
			for block := range int64(5) {
				e.fsys.rotten.Store(block*blockSize + 1)
				k, err := e.Open(t.Context(), "image")
				if err != nil {
					t.Fatal(err)
				}
				var got kernel
				_, err = k.CopyTo(t.Context(), &got, 0, -1)
				k.Close()
				if err != nil || !bytes.Equal(got.Bytes(), e.origin.data) {
					t.Errorf("%s, block %d: %d bytes, right %v: %v", mode, block, got.Len(), bytes.Equal(got.Bytes(), e.origin.data), err)
				}
				e.fsys.rotten.Store(0)
				e.wantQuarantined(fmt.Sprintf("%s, block %d", mode, block))
				e.refetch()
			}
		})
	}
}

// TestReadersOfOneBadBlock lets many readers find it at once.
func TestReadersOfOneBadBlock(t *testing.T) {
	inCached(t, Config{}, func(t *testing.T, e *engine) {
		parts := [][2]int64{{0, -1}, {1, 3 * blockSize}, {2*blockSize + 5, 100}, {2*blockSize + 70, -1}}
		var readers sync.WaitGroup
		open := make(chan struct{})
		for i := range 12 {
			part := parts[i%len(parts)]
			k, err := e.Open(t.Context(), "image")
			if err != nil {
				t.Fatal(err)
			}
			readers.Go(func() {
				defer k.Close()
				<-open
				var got bytes.Buffer
				_, err := k.CopyTo(t.Context(), &got, part[0], part[1])
				want := e.origin.data[part[0]:]
				if part[1] >= 0 {
					want = want[:part[1]]
				}
				if err != nil || !bytes.Equal(got.Bytes(), want) {
					t.Errorf("range %v: %d bytes, right %v: %v", part, got.Len(), bytes.Equal(got.Bytes(), want), err)
				}
			})
		}
		e.flip(2, true)
		close(open)
		readers.Wait()
		e.wantQuarantined("twelve readers")
	})
}

// TestBadFileThatStays is not served again, though it cannot be moved, until
// another one has taken its place.
func TestBadFileThatStays(t *testing.T) {
	inCached(t, Config{}, func(t *testing.T, e *engine) {
		e.fsys.stuck.Store("quarantine.rename")
		e.flip(1, true)
		for i, hit := range []bool{true, false, true} {
			k, err := e.Open(t.Context(), "image")
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			_, err = k.CopyTo(t.Context(), &got, 0, -1)
			k.Close()
			if err != nil || !bytes.Equal(got.Bytes(), e.origin.data) || k.Outcome().Hit != hit {
				t.Errorf("download %d: %d bytes, right %v, hit %v: %v", i, got.Len(), bytes.Equal(got.Bytes(), e.origin.data), k.Outcome().Hit, err)
			}
			if i == 0 {
				e.wantIDs()
				if info, _ := e.Image("image"); info.State != StateAbsent {
					t.Errorf("the image is %s", info.State)
				}
			}
			time.Sleep(time.Minute)
		}
		if u := e.Usage(); u.Quarantined != 1 || u.Bytes != int64(len(e.origin.data)) {
			t.Errorf("usage is %+v, want one quarantine and one image", u)
		}
	})
}

// TestBadBlockIsCut where nothing right can take its place: the reader gets
// the bytes before it, and an error.
func TestBadBlockIsCut(t *testing.T) {
	for what, spoil := range map[string]func(o *fakeOrigin){
		"another version": func(o *fakeOrigin) { o.version = `"2"` },
		"origin is down":  func(o *fakeOrigin) { o.down = true },
		"wrong bytes":     func(o *fakeOrigin) { o.corrupt = true },
		"broken off":      func(o *fakeOrigin) { o.cuts = 1 },
	} {
		inCached(t, Config{}, func(t *testing.T, e *engine) {
			k, err := e.Open(t.Context(), "image")
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			e.flip(3, true)
			spoil(e.origin)
			var got bytes.Buffer
			n, err := k.CopyTo(t.Context(), &got, 0, -1)
			if err == nil || n != int64(got.Len()) || n < 3*blockSize || !bytes.HasPrefix(e.origin.data, got.Bytes()) {
				t.Errorf("%s: %d bytes, said %d, right %v: %v", what, got.Len(), n, bytes.HasPrefix(e.origin.data, got.Bytes()), err)
			}
		})
	}
}

// kernel is a connection that can send files. It counts what it is given that
// way, which nobody has verified.
type kernel struct {
	bytes.Buffer
	unread int64
}

func (k *kernel) ReadFrom(r io.Reader) (int64, error) {
	n, err := k.Buffer.ReadFrom(r)
	k.unread += n
	return n, err
}

// TestVerifyReads checks what is sent without being read.
func TestVerifyReads(t *testing.T) {
	for mode, want := range map[options.VerifyReads][]int64{ // unread bytes of each download
		options.VerifyAlways: {0, 0, 0, 0},
		options.VerifyFirst:  {0, blockSize, 4*blockSize + blockSize/2, 0},
		options.VerifyNever:  {blockSize, 4*blockSize + blockSize/2, 4*blockSize + blockSize/2, 4*blockSize + blockSize/2},
	} {
		inCached(t, Config{Options: options.Options{VerifyReads: mode}}, func(t *testing.T, e *engine) {
			for i, part := range [][2]int64{{blockSize, blockSize}, {0, -1}, {0, -1}, {0, -1}} {
				if i == 3 {
					e.edit(false, func(store.File) {}) // touched
				}
				k, err := e.Open(t.Context(), "image")
				if err != nil {
					t.Fatal(err)
				}
				var w kernel
				n, err := k.CopyTo(t.Context(), &w, part[0], part[1])
				k.Close()
				all := e.origin.data[part[0]:]
				if part[1] >= 0 {
					all = all[:part[1]]
				}
				if err != nil || n != int64(len(all)) || !bytes.Equal(w.Bytes(), all) {
					t.Errorf("%s, download %d: %d bytes, right %v: %v", mode, i, w.Len(), bytes.Equal(w.Bytes(), all), err)
				}
				if w.unread != want[i] {
					t.Errorf("%s, download %d: %d bytes were sent unread, want %d", mode, i, w.unread, want[i])
				}
			}
			if info, _ := e.Image("image"); !info.Verified {
				t.Errorf("%s: the image is not verified", mode)
			}
		})
	}
}

// TestUnreadFileEnds cuts the file under a reader who sends it unread.
func TestUnreadFileEnds(t *testing.T) {
	inCached(t, Config{Options: options.Options{VerifyReads: options.VerifyNever}}, func(t *testing.T, e *engine) {
		k, err := e.Open(t.Context(), "image")
		if err != nil {
			t.Fatal(err)
		}
		e.edit(true, func(f store.File) { f.Truncate(2*blockSize + 9) })
		var w kernel
		_, err = k.CopyTo(t.Context(), &w, 0, -1)
		k.Close()
		if err != nil || !bytes.Equal(w.Bytes(), e.origin.data) || w.unread != 2*blockSize+9 {
			t.Errorf("%d bytes, right %v, %d unread: %v", w.Len(), bytes.Equal(w.Bytes(), e.origin.data), w.unread, err)
		}
		e.wantQuarantined("cut")
	})
}

// gone is a client that leaves.
type gone struct {
	kernel
	why error
}

func (g *gone) ReadFrom(r io.Reader) (int64, error) {
	n, err := g.kernel.ReadFrom(io.LimitReader(r, 10))
	return n, errors.Join(err, g.why)
}

func (g *gone) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// TestUnreadClientLeaves is no fault of the image's.
func TestUnreadClientLeaves(t *testing.T) {
	inCached(t, Config{Options: options.Options{VerifyReads: options.VerifyNever}}, func(t *testing.T, e *engine) {
		for why, want := range map[error]string{os.ErrDeadlineExceeded: "i/o timeout", io.ErrClosedPipe: "broken pipe"} {
			k, err := e.Open(t.Context(), "image")
			if err != nil {
				t.Fatal(err)
			}
			if n, err := k.CopyTo(t.Context(), &gone{why: why}, 0, -1); n != 10 || err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: sent %d bytes, %v", why, n, err)
			}
			k.Close()
		}
		e.wantIDs("image")
	})
}

// TestBlockSet compares with a plain set.
func TestBlockSet(t *testing.T) {
	const n = 200
	var s index.BlockSet
	have := map[int64]bool{}
	rng := newRand(5)
	for range 2000 {
		if rng.IntN(4) == 0 {
			b := rng.Int64N(n)
			s.Add(b, n*blockSize)
			have[b] = true
		}
		from := rng.Int64N(n)
		want := from
		for have[want] {
			want++
		}
		if got := s.Run(from); got != want {
			t.Fatalf("from %d the set runs to %d, want %d", from, got, want)
		}
	}
}
