package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// The bytes are few, as a fault does not care, and the runs are thousands.
var (
	oldBytes = random(1, 3000)
	newBytes = random(2, 5000)
)

// scenario is an operation that a fault hits. prepare runs before it without
// faults; act goes on as far as it can, as the engine would.
type scenario struct {
	prepare func(t *testing.T, dir string)
	act     func(s *store.Store) error
}

var scenarios = map[string]scenario{
	"first": {
		prepare: func(t *testing.T, dir string) { queueAndForeign(t, dir) },
		act:     func(s *store.Store) error { return stageAndCommit(s) },
	},
	"replace": {
		prepare: func(t *testing.T, dir string) { storeOld(t, dir); queueAndForeign(t, dir) },
		act:     func(s *store.Store) error { return stageAndCommit(s) },
	},
	"trash": {
		prepare: storeOld,
		act: func(s *store.Store) error {
			trashed, err := s.Trash("a")
			if err != nil {
				return err
			}
			return s.Reclaim(trashed)
		},
	},
	"quarantine": {
		prepare: storeOld,
		act: func(s *store.Store) error {
			info, err := s.Stat("a")
			if err != nil {
				return err
			}
			return s.Quarantine(info)
		},
	},
	"adopt": {
		prepare: func(t *testing.T, dir string) { write(t, filepath.Join(dir, "a"), oldBytes) },
		act:     func(s *store.Store) error { return vouch(s, store.Meta{Version: "old"}) },
	},
	"vouch again": {
		prepare: storeOld,
		act:     func(s *store.Store) error { return vouch(s, store.Meta{Version: "old"}) },
	},
	"take over": {
		prepare: func(t *testing.T, dir string) { storeOld(t, dir); copyAnew(t, filepath.Join(dir, "a"), oldBytes) },
		act: func(s *store.Store) error {
			if err := s.Scan(func(store.Info) error { return nil }); err != nil {
				return err
			}
			return vouch(s, store.Meta{Version: "old"})
		},
	},
	"keep": {
		prepare: storeOld,
		act: func(s *store.Store) error {
			st, err := s.Stage("a")
			if err != nil {
				return err
			}
			defer st.Release()
			_, err = st.Write(newBytes)
			return errors.Join(err, st.Keep())
		},
	},
	"recover": {
		prepare: func(t *testing.T, dir string) { storeOld(t, dir); storeDecided(t, dir) },
		act:     func(s *store.Store) error { _, err := s.Recover(); return err },
	},
	"queue": {
		prepare: storeOld,
		act: func(s *store.Store) error {
			_, _, err := s.Enqueue("b", "")
			return errors.Join(err, s.Dequeue("b"))
		},
	},
	"scan": {
		prepare: storeOld,
		act:     func(s *store.Store) error { return s.Scan(func(store.Info) error { return nil }) },
	},
}

func storeOld(t *testing.T, dir string) {
	s := openQuick(t, dir)
	put(t, s, "a", oldBytes, store.Meta{Version: "old"})
	s.Close()
}

// vouch reads the image a as a scrub does.
func vouch(s *store.Store, m store.Meta) error {
	im, err := s.OpenImage("a")
	if err != nil {
		return err
	}
	defer im.Close()
	var sums store.Sums
	block, err := im.ReadBlock(0, make([]byte, store.BlockSize))
	if err != nil {
		return err
	}
	if _, err := sums.Write(block); err != nil {
		return err
	}
	_, err = im.Vouch(m, &sums)
	return err
}

// copyAnew puts a file with other inode and time in place of an image, as a
// directory that was copied has them.
func copyAnew(t *testing.T, name string, data []byte) {
	t.Helper()
	write(t, name+".copy", data)
	if err := os.Chtimes(name+".copy", time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".copy", name); err != nil {
		t.Fatal(err)
	}
}

func queueAndForeign(t *testing.T, dir string) {
	s := openQuick(t, dir)
	if _, _, err := s.Enqueue("a", ""); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "incomplete", "a"), []byte("half of a"))
	s.Close()
}

// storeDecided leaves what a crash leaves right before the rename of a commit.
func storeDecided(t *testing.T, dir string) {
	fsys := storetest.New(t, dir)
	s, err := openFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	fsys.Inject(func(c storetest.Call) error {
		if c.Op == "commit.rename" || c.Op == "commit.undo" || c.Op == "remove" || c.Op == "commit.unlink" {
			return storetest.ErrCrashed
		}
		return nil
	})
	if err := stageAndCommit(s); !errors.Is(err, storetest.ErrCrashed) {
		t.Fatalf("commit = %v, want a crash", err)
	}
	fsys.Kill()
}

func stageAndCommit(s *store.Store) error {
	st, err := s.Stage("a")
	if err != nil {
		return err
	}
	defer st.Release()
	st.Preallocate(int64(len(newBytes)) + 100)
	for _, part := range [][]byte{newBytes[:100], newBytes[100:]} {
		if _, err := st.Write(part); err != nil {
			return errors.Join(err, st.Remove())
		}
	}
	_, old, err := st.Commit(store.Meta{Version: "new"})
	if err != nil {
		return errors.Join(err, st.Remove())
	}
	if old != nil {
		return s.Reclaim(*old)
	}
	return nil
}

// openQuick opens a directory without faults and without real syncs, which
// would take most of the time of these tests.
func openQuick(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := openFS(storetest.New(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openFS(fsys store.FS) (*store.Store, error) {
	return store.Open(store.Config{Dir: "test", FS: fsys, Logger: slog.New(slog.DiscardHandler)})
}

// run prepares a directory, acts under a fault, and returns what broke.
func (sc scenario) run(t *testing.T, fault storetest.Fault) (dir string, fsys *storetest.FS, err error) {
	t.Helper()
	dir = storetest.MemoryDir(t)
	sc.prepare(t, dir)
	fsys = storetest.New(t, dir)
	s, err := openFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	fsys.Inject(fault)
	return dir, fsys, sc.act(s)
}

// TestCrash ends the process before each call of each operation.
func TestCrash(t *testing.T) {
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seq := 1; ; seq++ {
				dir, fsys, _ := sc.run(t, storetest.CrashAt(seq))
				done := len(fsys.Calls()) < seq
				fsys.Kill()
				checkWhole(t, dir, fmt.Sprintf("crash at call %d", seq))
				if done || t.Failed() {
					t.Logf("%d crash points", seq-1)
					return
				}
			}
		})
	}
}

// TestPowerLoss loses what was not synced at each call of each operation, for
// each number of changes that the journal may have written by itself.
func TestPowerLoss(t *testing.T) {
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cases := 0
			for seq := 1; ; seq++ {
				for keep := 0; ; keep++ {
					dir, fsys, _ := sc.run(t, storetest.CrashAt(seq))
					done, unsynced := len(fsys.Calls()) < seq, fsys.Unsynced()
					if err := fsys.LosePower(keep); err != nil {
						t.Fatal(err)
					}
					checkWhole(t, dir, fmt.Sprintf("power lost at call %d, %d of %d changes kept", seq, keep, unsynced))
					cases++
					if t.Failed() || done && keep >= unsynced {
						t.Logf("%d cases", cases)
						return
					}
					if keep >= unsynced {
						break
					}
				}
			}
		})
	}
}

// TestErrors fails each call of each operation, once and from then on, with
// each error that a disk gives.
func TestErrors(t *testing.T) {
	for _, errno := range []error{syscall.ENOSPC, syscall.EIO, syscall.EDQUOT, syscall.EROFS} {
		for name, sc := range scenarios {
			t.Run(fmt.Sprintf("%s/%s", name, errno), func(t *testing.T) {
				t.Parallel()
				for seq := 1; ; seq++ {
					for what, fault := range map[string]storetest.Fault{
						"once": storetest.At(seq, errno),
						"from then on": func(c storetest.Call) error {
							if c.Seq >= seq {
								return errno
							}
							return nil
						},
					} {
						dir, fsys, err := sc.run(t, fault)
						done := len(fsys.Calls()) < seq
						if err != nil && !errors.Is(err, errno) {
							t.Errorf("call %d fails %s: the error is %v", seq, what, err)
						}
						if err == nil && !done && strings.Contains(fsys.Calls()[seq-1].Op, "write") {
							t.Errorf("call %d fails %s: a failed write is no error", seq, what)
						}
						fsys.Kill()
						checkWhole(t, dir, fmt.Sprintf("call %d fails %s", seq, what))
						if done || t.Failed() {
							return
						}
					}
				}
			})
		}
	}
}

// checkWhole opens a directory after a fault: the image is absent, the old one
// or the new one, whole, and nothing stands in the way of storing it again.
func checkWhole(t *testing.T, dir, when string) {
	t.Helper()
	s := openQuick(t, dir)
	defer s.Close()
	if _, err := s.Recover(); err != nil {
		t.Errorf("%s: Recover: %v", when, err)
	}
	again, err := s.Recover()
	if err != nil || again.Removed+len(again.Committed) > 0 {
		t.Errorf("%s: the second Recover finds work: %+v, %v", when, again, err)
	}
	checkImage(t, s, when)
	trash, err := s.Trashed()
	if err != nil {
		t.Errorf("%s: Trashed: %v", when, err)
	}
	for _, file := range trash {
		if err := s.Reclaim(file); err != nil {
			t.Errorf("%s: Reclaim: %v", when, err)
		}
	}
	checkImage(t, s, when+", after reclaiming")
	found := scan(t, s)
	if tables := names(t, dir, ".imgcache", "blocks"); len(tables) > len(found) {
		t.Errorf("%s: block tables %v for the images %v", when, tables, found)
	}
	if _, _, err := tryPut(s, "a", newBytes, store.Meta{Version: "new"}); err != nil {
		t.Errorf("%s: it cannot be stored again: %v", when, err)
		return
	}
	if got, info, err := read(s, "a"); err != nil || !bytes.Equal(got, newBytes) || !info.Verified {
		t.Errorf("%s: stored again: %+v, %v", when, info, err)
	}
}

func checkImage(t *testing.T, s *store.Store, when string) {
	t.Helper()
	got, info, err := read(s, "a")
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		t.Errorf("%s: read: %v", when, err)
		return
	}
	version := map[string]string{string(oldBytes): "old", string(newBytes): "new"}[string(got)]
	if version == "" {
		t.Errorf("%s: the image has %d bytes that are neither the old ones nor the new ones", when, len(got))
	}
	if info.Verified && info.Version != version {
		t.Errorf("%s: the bytes are the %s ones, the version is %q", when, version, info.Version)
	}
}
