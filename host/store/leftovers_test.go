package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

func TestTrashAndReclaim(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a", newBytes, store.Meta{})
	im, err := s.OpenImage("a")
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	trashed, err := s.Trash("a")
	if err != nil || trashed.ID != "a" || trashed.Size != int64(len(newBytes)) {
		t.Fatalf("Trash = %+v, %v", trashed, err)
	}
	expectAbsent(t, s, "a")
	if tables := names(t, dir, ".imgcache", "blocks"); len(tables) > 0 {
		t.Errorf("tables left: %v", tables)
	}
	if _, err := s.Trash("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second Trash = %v, want fs.ErrNotExist", err)
	}
	for range 2 {
		if err := s.Reclaim(trashed); err != nil {
			t.Errorf("Reclaim = %v", err)
		}
	}
	if list, err := s.Trashed(); err != nil || len(list) > 0 {
		t.Errorf("Trashed = %v, %v", list, err)
	}
	if _, err := im.ReadBlock(0, make([]byte, block)); err != nil {
		t.Errorf("an open reader gets %v", err)
	}
	if err := s.Reclaim(store.Trashed{Name: "../../a", ID: "a"}); err == nil {
		t.Error("Reclaim took a name that leads out of trash")
	}
}

func TestQuarantine(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	write(t, filepath.Join(dir, "invalid", "a"), []byte("older"))
	info := put(t, s, "a", newBytes, store.Meta{})
	other := info
	other.Inode++
	if err := s.Quarantine(other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Quarantine of an earlier file of the id = %v, want fs.ErrNotExist", err)
	}
	if err := s.Quarantine(info); err != nil {
		t.Fatal(err)
	}
	expectAbsent(t, s, "a")
	invalid, err := s.Invalid()
	if err != nil || len(invalid) != 1 || invalid[0].ID != "a" || invalid[0].Size != int64(len(newBytes)) {
		t.Errorf("Invalid = %+v, %v", invalid, err)
	}
	if tables := names(t, dir, ".imgcache", "blocks"); len(tables) > 0 {
		t.Errorf("tables left: %v", tables)
	}
	if err := s.RemoveInvalid("a"); err != nil {
		t.Error(err)
	}
	if invalid, err = s.Invalid(); err != nil || len(invalid) > 0 {
		t.Errorf("Invalid = %+v, %v", invalid, err)
	}
}

func TestIncomplete(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	st := stage(t, s, "mine", newBytes)
	in := filepath.Join(dir, "incomplete")
	write(t, filepath.Join(in, "glances"), []byte("half"))
	write(t, filepath.Join(in, "dead~0123456789abcdef"), []byte("half"))
	write(t, filepath.Join(in, "no id at all"), []byte("half"))
	list, err := s.Incomplete()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, func(a, b store.Partial) int { return strings.Compare(a.ID, b.ID) })
	want := []store.Partial{
		{ID: "", Size: 4, Foreign: true},
		{ID: "dead", Size: 4},
		{ID: "glances", Size: 4, Foreign: true},
		{ID: "mine", Size: int64(len(newBytes)), Owned: true},
	}
	for i, p := range list {
		if i >= len(want) || p.ID != want[i].ID || p.Size != want[i].Size || p.Foreign != want[i].Foreign || p.Owned != want[i].Owned {
			t.Errorf("%+v is not wanted here", p)
		}
		if err := s.RemoveIncomplete(p.Name); (err != nil) != p.Owned {
			t.Errorf("RemoveIncomplete(%s) = %v", p.Name, err)
		}
	}
	if s.HasForeign("glances") || s.HasForeign("mine") {
		t.Error("HasForeign is wrong after the removal")
	}
	if _, _, err := st.Commit(store.Meta{}); err != nil {
		t.Error(err)
	}
}

// An image takes what was waiting for it with it.
func TestCommitClearsMarkerAndForeignFile(t *testing.T) {
	dir := t.TempDir()
	queueAndForeign(t, dir)
	s := open(t, dir)
	if !s.Queued("a") || !s.HasForeign("a") {
		t.Fatal("not prepared")
	}
	put(t, s, "a", newBytes, store.Meta{})
	if s.Queued("a") || s.HasForeign("a") {
		t.Error("the marker or the foreign file is left")
	}
}

// Released without an end, a file waits for Recover.
func TestReleasedFileHasNoOwner(t *testing.T) {
	s := open(t, t.TempDir())
	st := stage(t, s, "a", newBytes)
	if err := st.Release(); err != nil {
		t.Fatal(err)
	}
	list, err := s.Incomplete()
	if err != nil || len(list) != 1 || list[0].Owned || list[0].Foreign {
		t.Errorf("Incomplete = %+v, %v", list, err)
	}
	if report, err := s.Recover(); err != nil || report.Removed != 1 {
		t.Errorf("Recover = %+v, %v", report, err)
	}
}

func TestScanFindsImagesOnly(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a", oldBytes, store.Meta{Version: "v"})
	put(t, s, "b", newBytes, store.Meta{})
	write(t, filepath.Join(dir, "adopted"), []byte("from Glance"))
	write(t, filepath.Join(dir, "cache.db"), []byte("SQLite"))
	write(t, filepath.Join(dir, ".hidden"), nil)
	found := scan(t, s)
	if len(found) != 3 || !found["a"].Verified || found["a"].Version != "v" || !found["b"].Verified {
		t.Errorf("Scan found %+v", found)
	}
	if got := found["adopted"]; got.Verified || got.Size != 11 {
		t.Errorf("the adopted image is %+v", got)
	}
	stop := errors.New("stop")
	if err := s.Scan(func(store.Info) error { return stop }); err != stop {
		t.Errorf("Scan = %v, want the error of yield", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "cache.db")); err != nil {
		t.Error(err)
	}
}

// One file that cannot be looked at does not hide the others.
func TestScanGoesOn(t *testing.T) {
	fsys := storetest.New(t, storetest.MemoryDir(t))
	s, err := openFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c"} {
		put(t, s, id, oldBytes, store.Meta{})
	}
	fsys.Inject(func(c storetest.Call) error {
		if c.Op == "scan.stat" && c.Name == "b" {
			return syscall.EIO
		}
		return nil
	})
	var found []string
	err = s.Scan(func(info store.Info) error {
		found = append(found, info.ID)
		return nil
	})
	slices.Sort(found)
	if !errors.Is(err, syscall.EIO) || !slices.Equal(found, []string{"a", "c"}) {
		t.Errorf("Scan found %v, %v, want a and c, and EIO", found, err)
	}
}
