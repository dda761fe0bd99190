package store_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// What Commit returned survives a loss of power that keeps nothing unsynced.
func TestCommittedSurvivesPowerLoss(t *testing.T) {
	dir := storetest.MemoryDir(t)
	storeOld(t, dir)
	fsys := storetest.New(t, dir)
	s, err := openFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", newBytes, store.Meta{Version: "new"})
	if err := fsys.LosePower(0); err != nil {
		t.Fatal(err)
	}
	s = openQuick(t, dir)
	if info := expect(t, s, "a", newBytes); !info.Verified || info.Version != "new" {
		t.Errorf("after the loss of power: %+v, want the new image, verified", info)
	}
}

func TestRecoverCompletesDecidedCommit(t *testing.T) {
	dir := storetest.MemoryDir(t)
	storeOld(t, dir)
	storeDecided(t, dir)
	s := openQuick(t, dir)
	expect(t, s, "a", oldBytes)
	report, err := s.Recover()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(store.RecoverReport{Committed: []string{"a"}, Trash: 1}, report); diff != "" {
		t.Error(diff)
	}
	if info := expect(t, s, "a", newBytes); !info.Verified || info.Version != "new" {
		t.Errorf("%+v, want the new image, verified", info)
	}
	if left := names(t, dir, "incomplete"); len(left) > 0 {
		t.Errorf("left in incomplete: %v", left)
	}
}

// The table of a commit that failed must not bring back a version that
// another commit has replaced since.
func TestRecoverPrefersNewerImage(t *testing.T) {
	dir := storetest.MemoryDir(t)
	storeDecided(t, dir)
	s := openQuick(t, dir)
	put(t, s, "a", oldBytes, store.Meta{Version: "stored later"})
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "a"), later, later); err != nil {
		t.Fatal(err)
	}
	report, err := s.Recover()
	if err != nil || report.Removed != 1 || report.RemovedBytes != int64(len(newBytes)) {
		t.Errorf("Recover = %+v, %v, want one file removed", report, err)
	}
	expect(t, s, "a", oldBytes)
}

// On a file system without a journal a loss of power may bring back the name
// that a rename took away.
func TestRecoverRemovesSecondName(t *testing.T) {
	dir := storetest.MemoryDir(t)
	storeOld(t, dir)
	for _, second := range []string{"incomplete/a~0123456789abcdef", ".imgcache/trash/a~0123456789abcdef"} {
		if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, second)); err != nil {
			t.Fatal(err)
		}
	}
	s := openQuick(t, dir)
	report, err := s.Recover()
	if err != nil || len(report.Committed) > 0 || report.Trash != 0 {
		t.Errorf("Recover = %+v, %v, want nothing committed and empty trash", report, err)
	}
	if left := append(names(t, dir, "incomplete"), names(t, dir, ".imgcache", "trash")...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if info := expect(t, s, "a", oldBytes); !info.Verified {
		t.Error("the image is not verified any more")
	}
}

func TestRecoverLeavesOthersAlone(t *testing.T) {
	dir := storetest.MemoryDir(t)
	s := openQuick(t, dir)
	st, err := s.Stage("mine")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Release()
	write(t, filepath.Join(dir, "incomplete", "glances"), []byte("half"))
	write(t, filepath.Join(dir, "incomplete", "dead~0123456789abcdef"), []byte("half"))
	report, err := s.Recover()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(store.RecoverReport{Removed: 1, RemovedBytes: 4, Foreign: 1}, report); diff != "" {
		t.Error(diff)
	}
	if !s.HasForeign("glances") {
		t.Error("the foreign file is gone")
	}
	if _, err := st.Write(newBytes); err != nil {
		t.Error(err)
	}
	if _, _, err := st.Commit(store.Meta{}); err != nil {
		t.Error(err)
	}
}

// Tables whose image is gone are removed, others never.
func TestScanSweepsTables(t *testing.T) {
	dir := storetest.MemoryDir(t)
	s := openQuick(t, dir)
	blocks := filepath.Join(dir, ".imgcache", "blocks")
	put(t, s, "stays", oldBytes, store.Meta{})
	kept := names(t, blocks)
	put(t, s, "gone", oldBytes, store.Meta{})
	if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(blocks, "stays~1"), []byte("of another inode"))
	st, err := s.Stage("comes")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Release()
	write(t, filepath.Join(blocks, "comes~1"), []byte("of a commit under way"))
	write(t, filepath.Join(blocks, "notes"), []byte("not ours"))
	scan(t, s)
	want := append([]string{"comes~1", "notes"}, kept...)
	if diff := cmp.Diff(want, names(t, blocks)); diff != "" {
		t.Error(diff)
	}
}
