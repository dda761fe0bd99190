package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

func stage(t *testing.T, s *store.Store, id string, data []byte) *store.Staged {
	t.Helper()
	st, err := s.Stage(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Release() })
	if n, err := st.Write(data); n != len(data) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	return st
}

// Readers go on until Release, whatever became of the file.
func TestReadAfterTheEnd(t *testing.T) {
	ends := map[string]func(*store.Staged) error{
		"commit": func(st *store.Staged) error { _, _, err := st.Commit(store.Meta{}); return err },
		"keep":   (*store.Staged).Keep,
		"remove": (*store.Staged).Remove,
	}
	for name, end := range ends {
		dir := t.TempDir()
		st := stage(t, open(t, dir), "a", newBytes)
		if err := end(st); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := make([]byte, len(newBytes))
		if _, err := st.ReadAt(got, 0); err != nil || !bytes.Equal(got, newBytes) {
			t.Errorf("%s: ReadAt = %v, want the bytes that were written", name, err)
		}
		if left := names(t, dir, "incomplete"); len(left) > 0 {
			t.Errorf("%s: left in incomplete: %v", name, left)
		}
		for range 2 {
			if err := st.Release(); err != nil {
				t.Errorf("%s: Release = %v", name, err)
			}
		}
	}
}

// The checksums are those of the bytes that are in the file, whatever the
// sizes of writes and however they fail.
func TestChecksumsFollowTheFile(t *testing.T) {
	fsys := storetest.New(t, storetest.MemoryDir(t))
	s, err := openFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	data := random(3, 2*block+block/2)
	st, err := s.Stage("a")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Release()
	fsys.Inject(storetest.On("stage.write", 3, syscall.ENOSPC))
	failed := 0
	for rest, n := data, 1; len(rest) > 0; n = n*5 + 1 {
		got, err := st.Write(rest[:min(n, len(rest))])
		if err != nil {
			failed++
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		}
		rest = rest[got:]
		if st.Size() != int64(len(data)-len(rest)) {
			t.Fatalf("Size = %d after %d bytes", st.Size(), len(data)-len(rest))
		}
	}
	if _, _, err := st.Commit(store.Meta{}); err != nil {
		t.Fatal(err)
	}
	if failed != 1 {
		t.Errorf("%d writes failed, want 1", failed)
	}
	if info := expect(t, s, "a", data); !info.Verified {
		t.Error("the image is not verified")
	}
}

func TestPreallocationIsGivenBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	st, err := s.Stage("a")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Release()
	st.Preallocate(64 << 20)
	if _, err := st.Write(newBytes); err != nil {
		t.Fatal(err)
	}
	partial, err := s.Incomplete()
	if err != nil || len(partial) != 1 || partial[0].Size != int64(len(newBytes)) {
		t.Errorf("Incomplete = %+v, %v, want the size that was written", partial, err)
	}
	if _, _, err := st.Commit(store.Meta{}); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes := fi.Sys().(*syscall.Stat_t).Blocks * 512; bytes > 1<<20 {
		t.Errorf("an image of %d bytes takes %d on disk", fi.Size(), bytes)
	}
}

// Two writers of one image share nothing; the last commit wins whole.
func TestTwoWritersOfOneImage(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := stage(t, s, "a", oldBytes), stage(t, s, "a", newBytes[:4000])
	if _, _, err := a.Commit(store.Meta{Version: "a"}); err != nil {
		t.Fatal(err)
	}
	expect(t, s, "a", oldBytes)
	if _, err := b.Write(newBytes[4000:]); err != nil {
		t.Fatal(err)
	}
	_, old, err := b.Commit(store.Meta{Version: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if old == nil || old.ID != "a" || old.Size != int64(len(oldBytes)) {
		t.Errorf("Commit replaced %+v", old)
	}
	if info := expect(t, s, "a", newBytes); info.Version != "b" || !info.Verified {
		t.Errorf("%+v, want version b, verified", info)
	}
}

// Somebody who writes into our file must not get his bytes under our table.
func TestCommitRefusesForeignBytes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	st := stage(t, s, "a", newBytes)
	f, err := os.OpenFile(filepath.Join(dir, "incomplete", names(t, dir, "incomplete")[0]), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := st.Commit(store.Meta{}); err == nil {
		t.Error("Commit succeeded")
	}
	expectAbsent(t, s, "a")
}

func TestSyncIsNotRetried(t *testing.T) {
	fsys := storetest.New(t, storetest.MemoryDir(t))
	s, err := openFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	fsys.Inject(storetest.On("stage.sync", 1, syscall.EIO))
	if _, _, err := tryPut(s, "a", newBytes, store.Meta{}); !errors.Is(err, syscall.EIO) {
		t.Errorf("Commit = %v, want EIO", err)
	}
	syncs := 0
	for _, c := range fsys.Calls() {
		if c.Op == "stage.sync" {
			syncs++
		}
	}
	if syncs != 1 {
		t.Errorf("%d syncs, want 1", syncs)
	}
	expectAbsent(t, s, "a")
}

// Where there are no hard links, the replaced file still goes to trash.
func TestReplaceWithoutLinks(t *testing.T) {
	dir := storetest.MemoryDir(t)
	fsys := storetest.New(t, dir)
	s, err := openFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", oldBytes, store.Meta{})
	noLinks := storetest.On("commit.link", 0, syscall.EPERM)
	fsys.Inject(noLinks)
	_, old, err := tryPut(s, "a", newBytes, store.Meta{})
	if err != nil || old == nil {
		t.Fatalf("Commit = %v, %v", old, err)
	}
	expect(t, s, "a", newBytes)
	if trash, err := s.Trashed(); err != nil || len(trash) != 1 || trash[0].Size != int64(len(oldBytes)) {
		t.Errorf("Trashed = %v, %v", trash, err)
	}
	fsys.Inject(func(c storetest.Call) error {
		if c.Op == "commit.rename" {
			return syscall.EIO
		}
		return noLinks(c)
	})
	if _, _, err := tryPut(s, "a", oldBytes, store.Meta{}); !errors.Is(err, syscall.EIO) {
		t.Errorf("Commit = %v, want EIO", err)
	}
	if info := expect(t, s, "a", newBytes); !info.Verified {
		t.Error("after a failed commit the old image is not verified any more")
	}
}

// A commit that fails leaves the old image as it was, with its table, and
// nothing in trash.
func TestFailedCommitChangesNothing(t *testing.T) {
	dir := storetest.MemoryDir(t)
	fsys := storetest.New(t, dir)
	s, err := openFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", oldBytes, store.Meta{Version: "old"})
	fsys.Inject(nil)
	st := stage(t, s, "a", newBytes)
	before := len(fsys.Calls())
	if _, _, err := st.Commit(store.Meta{}); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", oldBytes, store.Meta{Version: "old"})
	for i, c := range fsys.Calls()[before:] {
		if c.Op == "commit.syncdir" {
			return // from here on nothing fails the commit
		}
		fsys.Inject(nil)
		st := stage(t, s, "a", newBytes)
		fsys.Inject(storetest.At(i+1, syscall.EIO))
		_, _, err := st.Commit(store.Meta{})
		fsys.Inject(nil)
		switch {
		case c.Op == "commit.link" && err == nil: // there is another way
			put(t, s, "a", oldBytes, store.Meta{Version: "old"})
			continue
		case !errors.Is(err, syscall.EIO):
			t.Errorf("%s fails: Commit = %v, want EIO", c.Op, err)
		}
		if info := expect(t, s, "a", oldBytes); !info.Verified || info.Version != "old" {
			t.Errorf("%s fails: the old image is %+v", c.Op, info)
		}
		if tables := names(t, dir, ".imgcache", "blocks"); len(tables) != 1 {
			t.Errorf("%s fails: the block tables are %v", c.Op, tables)
		}
		if err := st.Keep(); err != nil {
			t.Errorf("%s fails: Keep = %v", c.Op, err)
		}
	}
	t.Error("no commit.syncdir was seen")
}
