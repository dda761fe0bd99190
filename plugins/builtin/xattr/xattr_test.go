package xattr

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cacheDir returns a directory on a file system that keeps user attributes: in
// memory, where 10000 files take no time, if that one does.
func cacheDir(t *testing.T) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "imgcache"); err == nil {
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		if unix.Setxattr(dir, "user.probe", []byte("x"), 0) == nil {
			return dir
		}
	}
	return diskDir(t)
}

// diskDir returns one on a disk.
func diskDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Setxattr(dir, "user.probe", []byte("x"), 0); err != nil {
		t.Fatalf("%s lies on %s: %v; these tests need a file system with user attributes: set TMPDIR to a directory on ext4, say",
			dir, fileSystem(dir), err)
	}
	return dir
}

// open returns a driver over dir, and its log.
func open(t *testing.T, dir string, options sdk.Config) (*Driver, *bytes.Buffer) {
	t.Helper()
	return openWith(t, dir, options, fileAttributes{})
}

func openWith(t *testing.T, dir string, options sdk.Config, attrs attributes) (*Driver, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	d := New(slog.New(slog.NewTextHandler(log, nil)))
	d.attrs = attrs
	if err := d.Configure(t.Context(), sdk.Settings{CacheDir: dir, Options: options}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, log
}

// subject is a driver with the files that the host would make.
func subject(t *testing.T, dir string) sdktest.Subject {
	d, _ := open(t, dir, nil)
	return sdktest.Subject{
		Driver: d,
		Create: func(id string) {
			f, err := os.OpenFile(filepath.Join(dir, id), os.O_CREATE, 0o640)
			if err == nil {
				err = f.Close()
			}
			if err != nil {
				t.Error(err)
			}
		},
		Remove: func(id string) {
			if err := os.Remove(filepath.Join(dir, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		},
	}
}

func TestConformance(t *testing.T) {
	sdktest.Manifest(t, Manifest)
	sdktest.Driver(t, func(t *testing.T) sdktest.Subject { return subject(t, cacheDir(t)) })
	sdktest.Durable(t, func(t *testing.T) func() sdktest.Subject {
		dir := cacheDir(t)
		return func() sdktest.Subject { return subject(t, dir) }
	})
}

func apply(t *testing.T, d *Driver, b sdk.Batch) {
	t.Helper()
	if err := d.Apply(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// next returns batches of one source, one after the other.
func next(source string) func(ops ...sdk.Op) sdk.Batch {
	seq := uint64(0)
	return func(ops ...sdk.Op) sdk.Batch {
		seq++
		return sdk.Batch{Source: source, Seq: seq, Ops: ops}
	}
}

// entry returns one like those that the host puts.
func entry(id string, hits uint64) sdk.Entry {
	return sdk.Entry{ID: id, Version: `"v1"`, Size: 5000, Hits: hits, LastAccessed: moment, LastModified: moment.Add(-time.Hour)}
}

// list returns the entries by id.
func list(t *testing.T, d *Driver) map[string]sdk.Entry {
	t.Helper()
	all := map[string]sdk.Entry{}
	err := d.List(t.Context(), func(entries []sdk.Entry) error {
		for _, e := range entries {
			all[e.ID] = e
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// want fails unless the driver has just these entries.
func want(t *testing.T, d *Driver, entries ...sdk.Entry) {
	t.Helper()
	all := map[string]sdk.Entry{}
	for _, e := range entries {
		all[e.ID] = e
	}
	if diff := cmp.Diff(all, list(t, d)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func writeFile(t *testing.T, dir string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := os.WriteFile(filepath.Join(dir, id), []byte(id), 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

func setAttribute(t *testing.T, path, name, value string) {
	t.Helper()
	if err := unix.Setxattr(path, name, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// attribute returns "-" when there is none.
func attribute(t *testing.T, path, name string) string {
	t.Helper()
	value := make([]byte, 64<<10)
	n, err := unix.Getxattr(path, name, value)
	if err == unix.ENODATA {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(value[:n])
}

func TestNotConfigured(t *testing.T) {
	d := New(slog.New(slog.DiscardHandler))
	if err := d.Apply(t.Context(), next(logA)(sdk.Put(entry("a", 0)))); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("Apply() = %v, want %v", err, sdk.ErrUnavailable)
	}
	if err := d.List(t.Context(), nil); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("List() = %v, want %v", err, sdk.ErrUnavailable)
	}
	if err := d.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
}

// TestRefusedSettings: what cannot work is said at the start.
func TestRefusedSettings(t *testing.T) {
	bare := t.TempDir()
	if err := unix.Mount("imgcache-test", bare, "ramfs", 0, ""); err != nil {
		t.Fatalf("mount a file system without attributes: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(bare, 0); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(bare, "images")
	for name, tt := range map[string]struct {
		settings sdk.Settings
		say      []string
	}{
		"no user attributes": {sdk.Settings{CacheDir: dir}, []string{dir, "ramfs", bare, "sqlite", "ext4"}},
		"unknown format":     {sdk.Settings{CacheDir: cacheDir(t), Options: sdk.Config{"format": "swift"}}, []string{"format", `"swift"`, `"own"`, `"glance"`}},
		"no directory":       {sdk.Settings{}, []string{"cache directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := New(slog.New(slog.DiscardHandler))
			defer d.Close()
			err := d.Configure(t.Context(), tt.settings)
			if !errors.Is(err, sdk.ErrInvalid) {
				t.Fatalf("Configure() = %v, want %v", err, sdk.ErrInvalid)
			}
			for _, text := range tt.say {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q does not say %q", err, text)
				}
			}
		})
	}
	if left, err := os.ReadDir(filepath.Join(dir, ".imgcache", "xattr")); err != nil || len(left) != 2 {
		t.Errorf("the trial left %v, %v, want the lock and the directory of versions alone", left, err)
	}
}
