package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
)

// sumsOf returns the checksums of the bytes.
func sumsOf(data []byte) *store.Sums {
	var sums store.Sums
	sums.Write(data) // never fails
	return &sums
}

func openImage(t *testing.T, s *store.Store, id string) *store.Image {
	t.Helper()
	im, err := s.OpenImage(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

// A file that another program stored is guarded from the time on that
// somebody vouches for it, also after a restart.
func TestVouchForAdopted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	data := random(1, 2*block+7)
	write(t, filepath.Join(dir, "a"), data)
	if at := s.Checked("a"); !at.IsZero() {
		t.Errorf("before: checked at %v", at)
	}
	info, err := openImage(t, s, "a").Vouch(store.Meta{Version: "v"}, sumsOf(data))
	if err != nil || !info.Verified || info.Version != "v" {
		t.Fatalf("Vouch = %+v, %v", info, err)
	}
	if time.Since(s.Checked("a")) > time.Hour {
		t.Errorf("checked at %v, want now", s.Checked("a"))
	}
	s.Close()
	s = open(t, dir)
	if got := expect(t, s, "a", data); got != info {
		t.Errorf("after a restart %+v, want %+v", got, info)
	}
	data[block] ^= 1
	write(t, filepath.Join(dir, "a"), data)
	if _, _, err := read(s, "a"); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a changed block was read: %v", err)
	}
}

// To vouch again moves the time of the last check and nothing else.
func TestVouchAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	data := random(1, block)
	info := put(t, s, "a", data, store.Meta{Version: "v"})
	if err := os.Chtimes(tablePath(t, dir), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if at := s.Checked("a"); !at.Equal(time.Unix(1, 0)) {
		t.Fatalf("checked at %v", at)
	}
	if got, err := openImage(t, s, "a").Vouch(info.Meta, nil); err != nil || got != info {
		t.Errorf("Vouch = %+v, %v, want %+v", got, err, info)
	}
	if time.Since(s.Checked("a")) > time.Hour {
		t.Errorf("checked at %v, want now", s.Checked("a"))
	}
	expect(t, s, "a", data)
}

// Nobody can vouch for a file that is not the image any more.
func TestVouchForReplaced(t *testing.T) {
	data, other := random(1, block), random(2, block)
	for what, act := range map[string]func(s *store.Store, name string){
		"replaced": func(s *store.Store, _ string) { put(t, s, "a", other, store.Meta{Version: "new"}) },
		"removed":  func(_ *store.Store, name string) { os.Remove(name) },
		"changed":  func(_ *store.Store, name string) { write(t, name, other) },
	} {
		dir := t.TempDir()
		s := open(t, dir)
		name := filepath.Join(dir, "a")
		write(t, name, data)
		if err := os.Chtimes(name, time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		im := openImage(t, s, "a")
		act(s, name)
		if _, err := im.Vouch(store.Meta{Version: "old"}, sumsOf(data)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: Vouch = %v, want fs.ErrNotExist", what, err)
		}
		if info, err := s.Stat("a"); err == nil && info.Version == "old" {
			t.Errorf("%s: the other file is called %+v", what, info)
		}
	}
}

// A directory that was copied has other inodes. The tables are taken over: at
// once where the times were kept, else once the bytes were compared.
func TestCopiedDirectory(t *testing.T) {
	data := random(1, 2*block+7)
	for _, kept := range []bool{true, false} {
		dir := t.TempDir()
		s := open(t, dir)
		put(t, s, "a", data, store.Meta{Version: "v", SHA256: "00"})
		name := filepath.Join(dir, "a")
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		copyAnew(t, name, data)
		if kept {
			if err := os.Chtimes(name, time.Time{}, fi.ModTime()); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // a second start finds the same
			if info := scan(t, s)["a"]; info.Verified != kept || kept && info.Version != "v" {
				t.Errorf("times kept %v: Scan found %+v", kept, info)
			}
		}
		im := openImage(t, s, "a")
		if kept != im.Info().Verified {
			t.Errorf("times kept %v: OpenImage found %+v", kept, im.Info())
		}
		meta, known := im.Former(sumsOf(data))
		if known == kept || known && meta.Version != "v" {
			t.Errorf("times kept %v: former meta data %+v, %v", kept, meta, known)
		}
		if _, other := im.Former(sumsOf(random(2, len(data)))); other {
			t.Errorf("times kept %v: other bytes have the same former", kept)
		}
		if !known {
			meta = im.Info().Meta
		}
		if _, err := im.Vouch(meta, sumsOf(data)); err != nil {
			t.Fatal(err)
		}
		if info := expect(t, s, "a", data); !info.Verified || info.Version != "v" {
			t.Errorf("times kept %v: in the end %+v", kept, info)
		}
		if tables := names(t, dir, ".imgcache", "blocks"); len(tables) != 1 {
			t.Errorf("times kept %v: tables %v, want one", kept, tables)
		}
	}
}
