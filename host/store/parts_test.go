package store_test

import (
	"sync"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// TestHolesAmongParts writes parts of a sparse image ahead, several at once and
// some of them wrong and given up, and then the rest in order: the bytes are right,
// and the zeros take no room.
func TestHolesAmongParts(t *testing.T) {
	const mib = 1 << 20
	data := pattern(24*mib+99, 100, 5*mib, 9*mib+777, 20*mib-2000, 24*mib-5000)
	for _, ahead := range []bool{false, true} {
		for _, punches := range []bool{true, false} {
			dir := storetest.MemoryDir(t)
			fsys := storetest.New(t, dir)
			if !punches {
				fsys.Inject(storetest.On("stage.punch", 0, syscall.EOPNOTSUPP))
			}
			s, err := openFS(fsys)
			if err != nil {
				t.Fatal(err)
			}
			st, err := s.Stage("a")
			if err != nil {
				t.Fatal(err)
			}
			if ahead {
				st.Preallocate(int64(len(data)))
			}
			writeParts(t, st, data)
			for st.Size() < int64(len(data)) {
				at, n := int(st.Size()), 0
				if at >= 4*mib && at < 6*mib || at >= 16*mib && at < 18*mib {
					n, err = st.Absorb(make([]byte, 100_000))
				} else {
					n, err = st.Write(data[at:min(at+90_000, len(data))])
				}
				if err != nil || n == 0 {
					t.Fatalf("at %d: %d, %v", at, n, err)
				}
			}
			if _, _, err := st.Commit(store.Meta{}); err != nil {
				t.Fatal(err)
			}
			st.Release()
			expect(t, s, "a", data)
			if took := onDisk(t, dir, "a"); punches && took > 2*mib {
				t.Errorf("preallocated %v: it takes %d bytes of the disk", ahead, took)
			}
		}
	}
}

// writeParts writes the beginning of data and parts that are ahead of it, all at
// once, and bytes that are none of it.
func writeParts(t *testing.T, st *store.Staged, data []byte) {
	const mib = 1 << 20
	var parts sync.WaitGroup
	for _, from := range []int{4 * mib, 9*mib + 5, 16 * mib, 22 * mib} {
		parts.Go(func() {
			for at := from; at < from+2*mib; at += 100_001 {
				p := data[at:min(at+100_001, from+2*mib)]
				if n, err := st.WriteAt(p, int64(at)); n != len(p) || err != nil {
					t.Errorf("WriteAt = %d, %v", n, err)
				}
			}
		})
	}
	parts.Go(func() {
		if _, err := st.WriteAt(random(5, mib), 13*mib+1); err != nil {
			t.Error(err)
		}
	})
	parts.Go(func() {
		if _, err := st.Write(data[:4*mib]); err != nil {
			t.Error(err)
		}
	})
	parts.Wait()
}
