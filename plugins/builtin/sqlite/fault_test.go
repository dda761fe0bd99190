package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/sdk"
)

func databaseIn(dir string) string { return filepath.Join(dir, ".imgcache", "records.db") }

// lock takes the lock of a database as another process would, until release.
func lock(t *testing.T, path string) (release func()) {
	t.Helper()
	db, err := sql.Open("sqlite3", path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(tx.Rollback(), db.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestBusy holds the lock of the database: a batch waits as long as it was
// told, fails, and may be repeated; listings and starts do not wait.
func TestBusy(t *testing.T) {
	dir := t.TempDir()
	a, _ := open(t, dir, nil)
	apply(t, a, put("a", 1))
	release := lock(t, databaseIn(dir))
	b, _ := open(t, dir, sdk.Config{"busy_timeout": "10ms"})
	if err := b.Apply(t.Context(), put("b", 2)); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), "locked") {
		t.Errorf("Apply() = %v while the database is locked, want %v with the reason", err, sdk.ErrUnavailable)
	}
	if got := ids(t, b); got != "a" {
		t.Errorf("List yields %q while the database is locked, want a", got)
	}
	release()
	apply(t, b, put("b", 2))
	apply(t, a, put("c", 3)) // one sequence, whoever writes
	if got := ids(t, a); got != "a b c" {
		t.Errorf("List yields %q, want a b c", got)
	}
}

// TestBusyEnds: a batch that waits for the lock is carried out when it is
// free, and given up with its context, however long it might wait.
func TestBusyEnds(t *testing.T) {
	dir := t.TempDir()
	d, _ := open(t, dir, sdk.Config{"busy_timeout": "24h"})
	release := lock(t, databaseIn(dir))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.Apply(ctx, put("a", 1)) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Apply() = %v, want %v", err, context.Canceled)
	}
	go func() { done <- d.Apply(t.Context(), put("a", 1)) }()
	release()
	if err := <-done; err != nil {
		t.Errorf("Apply() = %v when the database is free", err)
	}
}

// mustBeGap says that the driver has lost its place, so that the host brings
// all records again.
func mustBeGap(t *testing.T, d *Driver, seq uint64) {
	t.Helper()
	if err := d.Apply(t.Context(), put("next", seq)); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("Apply(batch %d) = %v, want %v", seq, err, sdk.ErrInvalid)
	}
	if got := ids(t, d); got != "" {
		t.Errorf("List yields %q, want nothing", got)
	}
	apply(t, d, sdk.Batch{Source: "new", Seq: 1, Ops: put("again", 1).Ops})
	if got := ids(t, d); got != "again" {
		t.Errorf("List yields %q, want again", got)
	}
}

// TestDeletedWhileRunning: the driver notices that the file has gone, or is
// another, and begins anew.
func TestDeletedWhileRunning(t *testing.T) {
	remove := func(t *testing.T, path string) {
		t.Helper()
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(path + suffix); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, harm := range map[string]func(t *testing.T, path string){
		"deleted": remove,
		"directory deleted": func(t *testing.T, path string) {
			if err := os.RemoveAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		},
		"replaced": func(t *testing.T, path string) {
			remove(t, path)
			other, _ := open(t, t.TempDir(), nil)
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(other.path, path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d, log := open(t, dir, nil)
			apply(t, d, put("a", 1))
			harm(t, databaseIn(dir))
			mustBeGap(t, d, 2)
			if n := strings.Count(log.String(), "deleted or replaced"); n != 1 {
				t.Errorf("the log says %d times that the file has gone:\n%s", n, log)
			}
		})
	}
}

// TestDamagedWhileRunning: pages that go bad are found when they are read; the
// database is set aside then, and the next call begins anew.
func TestDamagedWhileRunning(t *testing.T) {
	dir := t.TempDir()
	d, log := open(t, dir, nil)
	ops := make([]sdk.Op, 5000)
	for i := range ops {
		ops[i] = sdk.Put(record(i))
	}
	apply(t, d, sdk.Batch{Source: "s", Seq: 1, Ops: ops})
	if _, err := d.db.writer.ExecContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(databaseIn(dir), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 400<<10), 8<<10); err != nil {
		t.Fatal(err)
	}
	err = d.List(t.Context(), func([]sdk.Entry) error { return nil })
	if !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), "damaged") {
		t.Fatalf("List() = %v, want %v with the reason", err, sdk.ErrUnavailable)
	}
	aside, _ := filepath.Glob(databaseIn(dir) + ".damaged-*")
	if len(aside) == 0 || !strings.Contains(log.String(), aside[0]) {
		t.Errorf("no damaged database is kept and named: %q, log %s", aside, log)
	}
	mustBeGap(t, d, 2)
}

// mount puts a file system of so many bytes in memory at a new directory.
func mount(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("imgcache-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("only root can mount a file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// TestDiskFull: a batch that does not fit has no effect, and is carried out
// when there is room.
func TestDiskFull(t *testing.T) {
	dir := mount(t, 2<<20)
	d, _ := open(t, dir, nil)
	apply(t, d, put("a", 1))
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	for err == nil {
		_, err = ballast.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	big := sdk.Batch{Source: "s", Seq: 2}
	for i := range 1000 {
		big.Ops = append(big.Ops, sdk.Put(record(i)))
	}
	if err := d.Apply(t.Context(), big); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), "full") {
		t.Errorf("Apply() = %v on a full disk, want %v with the reason", err, sdk.ErrUnavailable)
	}
	if got := ids(t, d); got != "a" {
		t.Errorf("List yields %q on a full disk, want a", got)
	}
	if err := ballast.Truncate(0); err != nil {
		t.Fatal(err)
	}
	apply(t, d, big)
	if got := len(strings.Fields(ids(t, d))); got != 1001 {
		t.Errorf("List yields %d records, want 1001", got)
	}
}

// TestReadOnlyDisk: a driver that cannot write does not start and says why; it
// can be started when that is over.
func TestReadOnlyDisk(t *testing.T) {
	dir := mount(t, 2<<20)
	d, _ := open(t, dir, nil)
	apply(t, d, put("a", 1))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, "size=2097152"); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	err := d.Configure(t.Context(), sdk.Settings{CacheDir: dir})
	if !errors.Is(err, sdk.ErrUnavailable) || !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), databaseIn(dir)) {
		t.Errorf("Configure() = %v on a disk that is read-only, want %v with the reason", err, sdk.ErrUnavailable)
	}
	remount(0)
	if err := d.Configure(t.Context(), sdk.Settings{CacheDir: dir}); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, d); got != "a" {
		t.Errorf("List yields %q, want a", got)
	}
}
