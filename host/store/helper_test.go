package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgcache/imgcache-host/host/store"
)

// open opens a directory with the real file system.
func open(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(store.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// random returns n bytes, always the same for a seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b) // never fails
	return b
}

// put stores an image and fails the test if it cannot.
func put(t *testing.T, s *store.Store, id string, data []byte, m store.Meta) store.Info {
	t.Helper()
	info, _, err := tryPut(s, id, data, m)
	if err != nil {
		t.Fatalf("put %s: %v", id, err)
	}
	return info
}

// tryPut stores an image as the engine does: a file that is not committed is
// removed.
func tryPut(s *store.Store, id string, data []byte, m store.Meta) (store.Info, *store.Trashed, error) {
	st, err := s.Stage(id)
	if err != nil {
		return store.Info{}, nil, err
	}
	defer st.Release()
	if _, err := st.Write(data); err != nil {
		return store.Info{}, nil, errors.Join(err, st.Remove())
	}
	info, old, err := st.Commit(m)
	if err != nil {
		return store.Info{}, nil, errors.Join(err, st.Remove())
	}
	return info, old, nil
}

// read returns all bytes of an image, block by block.
func read(s *store.Store, id string) ([]byte, store.Info, error) {
	im, err := s.OpenImage(id)
	if err != nil {
		return nil, store.Info{}, err
	}
	defer im.Close()
	var all bytes.Buffer
	buf := make([]byte, min(store.BlockSize, im.Info().Size))
	for n := int64(0); n*store.BlockSize < im.Info().Size; n++ {
		block, err := im.ReadBlock(n, buf)
		if err != nil {
			return nil, im.Info(), err
		}
		all.Write(block)
	}
	return all.Bytes(), im.Info(), nil
}

// expect fails the test unless the image has exactly these bytes.
func expect(t *testing.T, s *store.Store, id string, want []byte) store.Info {
	t.Helper()
	got, info, err := read(s, id)
	if err != nil {
		t.Fatalf("read %s: %v", id, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s has %d bytes, which are not the %d that were stored", id, len(got), len(want))
	}
	return info
}

func expectAbsent(t *testing.T, s *store.Store, id string) {
	t.Helper()
	if _, err := s.Stat(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat(%q) = %v, want fs.ErrNotExist", id, err)
	}
	if _, err := s.OpenImage(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenImage(%q) = %v, want fs.ErrNotExist", id, err)
	}
}

// names lists a directory of the cache.
func names(t *testing.T, dir ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir...))
	if err != nil {
		t.Fatal(err)
	}
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.Name()
	}
	return list
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o640); err != nil {
		t.Fatal(err)
	}
}

// scan returns what Scan yields, by id.
func scan(t *testing.T, s *store.Store) map[string]store.Info {
	t.Helper()
	found := map[string]store.Info{}
	if err := s.Scan(func(info store.Info) error {
		found[info.ID] = info
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}
