package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// onDisk is how many bytes of the disk a file takes.
func onDisk(t *testing.T, name ...string) int64 {
	t.Helper()
	fi, err := os.Stat(filepath.Join(name...))
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Blocks * 512
}

// pattern is a sparse image: data at the given offsets, 4 KiB each, in size bytes.
func pattern(size int, data ...int) []byte {
	b := make([]byte, size)
	for i, at := range data {
		copy(b[at:], random(uint64(i+10), 4096))
	}
	return b
}

// TestSparse stores images with zeros in them, in writes of many sizes, with and
// without a preallocation: the bytes are right, each block is verified, and the
// zeros take no room, also where a write ends amid a page of them.
func TestSparse(t *testing.T) {
	const mib = 1 << 20
	full := random(9, 3*mib)
	images := map[string]struct {
		data []byte
		most int64 // bytes of disk
	}{
		"data first":        {pattern(32*mib, 0), 128 << 10},
		"data last":         {pattern(32*mib+777, 32*mib+777-4096), 192 << 10},
		"data amid":         {pattern(24*mib, 5*mib+12345, 17*mib+1), 384 << 10},
		"nothing but zeros": {pattern(16*mib + 5), 64 << 10},
		"no zeros":          {full, int64(len(full)) + 64<<10},
		"a few zeros":       {append(append([]byte{}, full[:mib]...), make([]byte, 100)...), mib + 64<<10},
		"one byte":          {[]byte{0}, 64 << 10},
		"empty":             {nil, 0},
	}
	for _, dir := range []string{t.TempDir(), storetest.MemoryDir(t)} { // of two file systems, where there are two
		s := open(t, dir)
		for name, im := range images {
			for _, step := range []int{4096, 16384 - 7, 65536, 100_003, mib, 5*mib + 1} {
				for _, ahead := range []bool{false, true} {
					what := fmt.Sprintf("%s, by %d, preallocated %v", name, step, ahead)
					st, err := s.Stage("a")
					if err != nil {
						t.Fatal(err)
					}
					for rest := im.data; len(rest) > 0; rest = rest[min(step, len(rest)):] {
						if ahead { // as room is granted
							st.Preallocate(min(int64(len(im.data)), st.Size()+8*mib))
						}
						if n, err := st.Write(rest[:min(step, len(rest))]); err != nil || n != min(step, len(rest)) {
							t.Fatalf("%s: Write = %d, %v", what, n, err)
						}
						if size := st.Size(); size != int64(len(im.data)-len(rest)+min(step, len(rest))) {
							t.Fatalf("%s: Size = %d", what, size)
						}
					}
					got := make([]byte, len(im.data))
					if n, err := st.ReadAt(got, 0); n != len(got) || !bytes.Equal(got, im.data) {
						t.Fatalf("%s: before the commit %d of %d bytes can be read, %v", what, n, len(got), err)
					}
					info, old, err := st.Commit(store.Meta{})
					if err != nil {
						t.Fatal(err)
					}
					st.Release()
					if old != nil {
						if err := s.Reclaim(*old); err != nil {
							t.Fatal(err)
						}
					}
					if info := expect(t, s, "a", im.data); !info.Verified {
						t.Errorf("%s: the image is not verified", what)
					}
					if took := onDisk(t, dir, "a"); took > im.most || info.OnDisk != took {
						t.Errorf("%s: %d bytes take %d of the disk, want at most %d; Info says %d", what, len(im.data), took, im.most, info.OnDisk)
					}
				}
			}
		}
	}
}

// TestSparseIsResumed goes on with partial files that end in a hole, begin with
// one, or are nothing else.
func TestSparseIsResumed(t *testing.T) {
	const mib = 1 << 20
	for name, data := range map[string][]byte{
		"ends in a hole":     pattern(12*mib, 0, 9*mib),
		"begins with a hole": pattern(12*mib, 3*mib+17, 11*mib),
		"is a hole":          pattern(12 * mib),
	} {
		for _, ahead := range []bool{false, true} {
			dir := t.TempDir()
			s := open(t, dir)
			st := stage(t, s, "a", nil)
			if ahead {
				st.Preallocate(int64(len(data)))
			}
			if err := st.Checkpoint([]byte("label")); err != nil {
				t.Fatal(err)
			}
			if _, err := st.Write(data[:7*mib+500]); err != nil {
				t.Fatal(err)
			}
			u := st.Park()
			st.Release()
			var seen []byte
			st, err := s.Resume(u.Name, func(b []byte) error {
				seen = append(seen, b...)
				return nil
			})
			if err != nil || st.Size() != 7*mib || !bytes.Equal(seen, data[:7*mib]) {
				t.Fatalf("%s: %d bytes are resumed, %v", name, len(seen), err)
			}
			if _, err := st.Write(data[7*mib:]); err != nil {
				t.Fatal(err)
			}
			if _, _, err := st.Commit(store.Meta{}); err != nil {
				t.Fatal(err)
			}
			st.Release()
			expect(t, s, "a", data)
			if took := onDisk(t, dir, "a"); took > mib {
				t.Errorf("%s, preallocated %v: it takes %d bytes of the disk", name, ahead, took)
			}
		}
	}
}

// TestSparseIsSent has the kernel send images with holes, whole and in parts.
func TestSparseIsSent(t *testing.T) {
	const mib = 1 << 20
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := open(t, t.TempDir())
	for name, data := range map[string][]byte{
		"ends in a hole":     pattern(3*mib, 17),
		"begins with a hole": pattern(3*mib+5, 2*mib+99),
		"is a hole":          pattern(2 * mib),
	} {
		put(t, s, "a", data, store.Meta{})
		im, err := s.OpenImage("a")
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range [][2]int{{0, len(data)}, {1, mib}, {mib + 3, mib - 3}} {
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			go func() {
				_, err := im.Send(server.(*net.TCPConn), int64(part[0]), int64(part[1]))
				sent <- errors.Join(err, server.Close())
			}()
			got, err := io.ReadAll(client)
			if err = errors.Join(err, <-sent, client.Close()); err != nil || !bytes.Equal(got, data[part[0]:part[0]+part[1]]) {
				t.Errorf("%s: of %v %d bytes came, or not those: %v", name, part, len(got), err)
			}
		}
		im.Close()
	}
}

// TestSparseOnABadDisk fails each kind of call that makes a hole: what Write
// counts is in the file, and the image is right in the end or not stored.
func TestSparseOnABadDisk(t *testing.T) {
	data := pattern(3<<20, 1<<20)
	for _, op := range []string{"stage.write", "stage.truncate", "stage.punch"} {
		for nth := 1; nth < 4; nth++ {
			fsys := storetest.New(t, storetest.MemoryDir(t))
			s, err := openFS(fsys)
			if err != nil {
				t.Fatal(err)
			}
			st, err := s.Stage("a")
			if err != nil {
				t.Fatal(err)
			}
			st.Preallocate(int64(len(data)))
			fsys.Inject(storetest.On(op, nth, syscall.ENOSPC))
			for rest := data; len(rest) > 0; {
				n, err := st.Write(rest[:min(300_000, len(rest))])
				if err != nil && !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				rest = rest[n:]
				got := make([]byte, len(data)-len(rest))
				if m, err := st.ReadAt(got, 0); m != len(got) || !bytes.Equal(got, data[:m]) {
					t.Fatalf("%s %d fails: %d of the %d bytes that Write counts can be read, %v", op, nth, m, len(got), err)
				}
			}
			if _, _, err := st.Commit(store.Meta{}); err != nil {
				t.Fatal(err)
			}
			st.Release()
			expect(t, s, "a", data)
		}
	}
}

// FuzzSparse compares what is stored with what was written, in random pieces.
func FuzzSparse(f *testing.F) {
	f.Add(uint64(1))
	f.Add(uint64(77))
	s, err := store.Open(store.Config{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		st, err := s.Stage("a")
		if err != nil {
			t.Fatal(err)
		}
		defer st.Release()
		if rng.IntN(2) == 0 {
			st.Preallocate(rng.Int64N(2 << 20))
		}
		var want []byte
		for range 1 + rng.IntN(20) {
			p := make([]byte, rng.IntN(200_000))
			for range rng.IntN(4) {
				if len(p) > 0 {
					p[rng.IntN(len(p))] = byte(rng.Uint32())
				}
			}
			if rng.IntN(3) == 0 {
				p = random(seed, len(p))
			}
			if n, err := st.Write(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
			want = append(want, p...)
		}
		got := make([]byte, len(want))
		if n, _ := st.ReadAt(got, 0); n != len(want) || !bytes.Equal(got, want) {
			t.Fatalf("%d of %d bytes are read, or not those", n, len(want))
		}
		if _, _, err := st.Commit(store.Meta{}); err != nil {
			t.Fatal(err)
		}
		expect(t, s, "a", want)
	})
}
