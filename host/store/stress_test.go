package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// Images of one id come, go and are read all at once. Every reader gets whole
// bytes of one version, verified against the table of that version, and what
// was replaced is in trash exactly once.
func TestStress(t *testing.T) {
	dir := storetest.MemoryDir(t)
	s := openQuick(t, dir)
	versions := map[string][]byte{"1": random(1, 3000), "2": random(2, 3000), "3": random(3, 7000)}
	ids := []string{"a", "b"}
	var mu sync.Mutex
	trash := map[string]bool{}
	discard := func(file store.Trashed) {
		mu.Lock()
		defer mu.Unlock()
		if trash[file.Name] {
			t.Errorf("%s was handed out twice", file.Name)
		}
		trash[file.Name] = true
	}
	var work sync.WaitGroup
	for seed := range uint64(8) {
		work.Go(func() {
			r := rand.New(rand.NewPCG(seed, 0))
			for range 200 {
				id := ids[r.IntN(len(ids))]
				switch r.IntN(6) {
				case 0, 1:
					version := string('1' + rune(r.IntN(3)))
					_, old, err := tryPut(s, id, versions[version], store.Meta{Version: version})
					if err != nil {
						t.Error(err)
					}
					if old != nil {
						discard(*old)
					}
				case 2:
					if file, err := s.Trash(id); err == nil {
						discard(file)
					} else if !errors.Is(err, fs.ErrNotExist) {
						t.Error(err)
					}
				case 3:
					if _, err := s.Recover(); err != nil {
						t.Error(err)
					}
				case 4:
					if err := s.Scan(func(store.Info) error { return nil }); err != nil {
						t.Error(err)
					}
				default:
					readOne(t, s, id, versions)
				}
			}
		})
	}
	work.Wait()
	left, err := s.Trashed()
	if err != nil || len(left) != len(trash) {
		t.Errorf("%d files in trash, %v, %d were handed out", len(left), err, len(trash))
	}
	if tables, images := names(t, dir, ".imgcache", "blocks"), scan(t, s); len(tables) != len(images) {
		t.Errorf("%d tables for %d images", len(tables), len(images))
	}
}

func readOne(t *testing.T, s *store.Store, id string, versions map[string][]byte) {
	got, info, err := read(s, id)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	if info.Verified && !bytes.Equal(got, versions[info.Version]) {
		t.Errorf("%s: %d bytes are not those of version %s", id, len(got), info.Version)
	}
	if !info.Verified {
		for _, want := range versions {
			if bytes.Equal(got, want) {
				return
			}
		}
		t.Errorf("%s: %d bytes are those of no version", id, len(got))
	}
}
