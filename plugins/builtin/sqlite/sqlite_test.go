package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
	"go.uber.org/goleak"

	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a driver over dir, and its log.
func open(t *testing.T, dir string, options sdk.Config) (*Driver, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	d := New(slog.New(slog.NewTextHandler(log, nil)))
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

func TestConformance(t *testing.T) {
	sdktest.Manifest(t, Manifest)
	sdktest.Driver(t, func(t *testing.T) sdktest.Subject {
		d, _ := open(t, t.TempDir(), nil)
		return sdktest.Subject{Driver: d}
	})
	sdktest.Durable(t, func(t *testing.T) func() sdktest.Subject {
		dir := t.TempDir()
		return func() sdktest.Subject {
			d, _ := open(t, dir, nil)
			return sdktest.Subject{Driver: d}
		}
	})
}

func put(id string, seq uint64) sdk.Batch {
	return sdk.Batch{Source: "s", Seq: seq, Ops: []sdk.Op{sdk.Put(sdk.Entry{ID: id, Size: 1})}}
}

func apply(t *testing.T, d *Driver, b sdk.Batch) {
	t.Helper()
	if err := d.Apply(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func ids(t *testing.T, d *Driver) string {
	t.Helper()
	var list []string
	err := d.List(t.Context(), func(entries []sdk.Entry) error {
		for _, e := range entries {
			list = append(list, e.ID)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

// TestDamage damages the file in several ways: the driver starts anew, keeps
// the file, and says so.
func TestDamage(t *testing.T) {
	for name, harm := range map[string]func([]byte) []byte{
		"no database":      func([]byte) []byte { return bytes.Repeat([]byte("not a database. "), 1000) },
		"broken header":    func(b []byte) []byte { copy(b, "garbage"); return b },
		"truncated":        func(b []byte) []byte { return b[:len(b)/2] },
		"overwritten page": func(b []byte) []byte { clear(b[4096:12288]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, ".imgcache", "records.db")
			d, _ := open(t, dir, nil)
			for i := range uint64(500) {
				apply(t, d, put(fmt.Sprintf("%0100d", i), i+1))
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b = harm(b)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}

			d, log := open(t, dir, nil)
			if got := ids(t, d); got != "" {
				t.Errorf("List yields %q, want nothing", got)
			}
			apply(t, d, put("new", 1))
			aside, _ := filepath.Glob(path + ".damaged-*")
			if len(aside) == 0 || !strings.Contains(log.String(), aside[0]) {
				t.Fatalf("no damaged database is kept and named: %q, log %s", aside, log)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, b) {
				t.Errorf("the damaged database was changed: %v", err)
			}
		})
	}
}

// TestForeignFile: a file of another program, or of a later version, is left
// alone.
func TestForeignFile(t *testing.T) {
	for name, text := range map[string]string{
		"of another program": "CREATE TABLE cached_images (image_id TEXT PRIMARY KEY)",
		"of a later version": fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = 99; CREATE TABLE images (x)", applicationID),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cache.db")
			db, err := sql.Open("sqlite3", path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.ExecContext(t.Context(), text); err != nil {
				t.Fatal(err)
			}
			err = New(slog.New(slog.DiscardHandler)).Configure(t.Context(), sdk.Settings{Options: sdk.Config{"path": path}})
			if !errors.Is(err, sdk.ErrInvalid) {
				t.Fatalf("Configure() = %v, want %v", err, sdk.ErrInvalid)
			}
			var tables int
			if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM sqlite_schema WHERE type = 'table'").Scan(&tables); err != nil || tables != 1 {
				t.Errorf("%d tables, %v, want the one that was there", tables, err)
			}
		})
	}
}

// TestInTheWay has something else where the driver keeps its database when nobody
// names a place, also beside it, before the start and while it runs: it is set
// aside, what a link leads to is left alone, and the log says so. Where the
// configuration names the place, it is refused.
func TestInTheWay(t *testing.T) {
	things := map[string]func(path, outside string) error{
		"link to a file":  func(path, outside string) error { return os.Symlink(outside, path) },
		"link to nothing": func(path, outside string) error { return os.Symlink(outside+"-not", path) },
		"directory":       func(path, _ string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o755) },
		"FIFO":            func(path, _ string) error { return syscall.Mkfifo(path, 0o644) },
		"database of another program": func(path, _ string) error {
			db, err := sql.Open("sqlite3", path)
			if err != nil {
				return err
			}
			defer db.Close()
			_, err = db.Exec("CREATE TABLE images (id TEXT)")
			return err
		},
	}
	for name, place := range things {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if strings.HasPrefix(name, "database") && suffix != "" {
				continue
			}
			for _, running := range []bool{false, true} {
				if running && suffix != "" {
					continue // SQLite has them open
				}
				t.Run(fmt.Sprintf("%s%s/running=%v", name, suffix, running), func(t *testing.T) {
					dir := t.TempDir()
					path := databaseIn(dir)
					outside := filepath.Join(t.TempDir(), "precious")
					d, log := open(t, dir, nil)
					apply(t, d, put("a", 1))
					if !running {
						if err := d.Close(); err != nil {
							t.Fatal(err)
						}
					}
					for _, err := range []error{
						os.WriteFile(outside, []byte("precious"), 0o600), os.RemoveAll(path + suffix), place(path+suffix, outside),
					} {
						if err != nil {
							t.Fatal(err)
						}
					}
					if !running {
						d, log = open(t, dir, nil)
					}
					if got := ids(t, d); got != "" {
						t.Errorf("List yields %q", got)
					}
					apply(t, d, sdk.Batch{Source: "fresh", Seq: 1})
					if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) == 0 || !strings.Contains(log.String(), path) {
						t.Errorf("set aside is %q, said is %s", aside, log)
					}
					if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
						t.Errorf("the file outside is %q, %v", text, err)
					}
					if _, err := os.Lstat(outside + "-not"); err == nil {
						t.Error("the target of the link was made")
					}
				})
			}
		}
		if strings.HasPrefix(name, "link") {
			continue // a link that somebody names is followed
		}
		t.Run(name+"/named", func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "named.db")
			if err := place(path, ""); err != nil {
				t.Fatal(err)
			}
			err := New(slog.New(slog.DiscardHandler)).Configure(t.Context(), sdk.Settings{Options: sdk.Config{"path": path}})
			if !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move") {
				t.Errorf("Configure() = %v", err)
			}
		})
	}
}

// TestNamedLink follows a link that the configuration names.
func TestNamedLink(t *testing.T) {
	dir := t.TempDir()
	path, target := filepath.Join(dir, "link.db"), filepath.Join(dir, "target.db")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	d, _ := open(t, "", sdk.Config{"path": path})
	apply(t, d, put("a", 1))
	if got := ids(t, d); got != "a" {
		t.Errorf("List yields %q", got)
	}
	if info, err := os.Lstat(target); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the target: %v, %v", info, err)
	}
}

func TestOptions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "er", "100% odd?name#.db")
	d, _ := open(t, "", sdk.Config{"path": path, "busy_timeout": "100ms"})
	apply(t, d, put("a", 1))
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	err := New(slog.New(slog.DiscardHandler)).Configure(t.Context(), sdk.Settings{Options: sdk.Config{"path": "records.db"}})
	if !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), "path") {
		t.Errorf("Configure(relative path) = %v, want %v", err, sdk.ErrInvalid)
	}
}

// TestSourcesAreForgotten keeps the number of a source for a month after its
// last batch.
func TestSourcesAreForgotten(t *testing.T) {
	d, _ := open(t, t.TempDir(), nil)
	now := time.Now()
	d.now = func() time.Time { return now }
	batch := func(source string, seq uint64) sdk.Batch { return sdk.Batch{Source: source, Seq: seq} }
	apply(t, d, batch("old", 1))
	apply(t, d, batch("alive", 1))
	now = now.Add(sourceLife - time.Hour)
	apply(t, d, batch("alive", 2))
	apply(t, d, batch("new", 1))
	apply(t, d, batch("old", 1)) // known, and repeated
	now = now.Add(2 * time.Hour)
	apply(t, d, batch("newer", 1))
	if err := d.Apply(t.Context(), batch("old", 2)); !errors.Is(err, sdk.ErrInvalid) {
		t.Errorf("Apply(second batch of a forgotten source) = %v, want %v", err, sdk.ErrInvalid)
	}
	apply(t, d, batch("alive", 3))
}

func TestNotConfigured(t *testing.T) {
	d := New(slog.New(slog.DiscardHandler))
	if err := d.Apply(t.Context(), put("a", 1)); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("Apply() = %v, want %v", err, sdk.ErrUnavailable)
	}
	if err := d.List(t.Context(), nil); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("List() = %v, want %v", err, sdk.ErrUnavailable)
	}
}

// TestBatchIsOneTransaction counts what SQLite commits for a batch.
func TestBatchIsOneTransaction(t *testing.T) {
	d, _ := open(t, t.TempDir(), nil)
	const images = 1000
	put, touch := sdk.Batch{Source: "s", Seq: 1}, sdk.Batch{Source: "s", Seq: 2}
	for i := range images {
		put.Ops = append(put.Ops, sdk.Put(record(i)))
		touch.Ops = append(touch.Ops, sdk.Touch(record(i).ID, 1, time.Now()))
	}
	apply(t, d, put)
	commits := 0
	conn, err := d.db.writer.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Raw(func(c any) error {
		c.(*sqlite3.SQLiteConn).RegisterCommitHook(func() int { commits++; return 0 })
		return nil
	})
	if err := errors.Join(err, conn.Close()); err != nil {
		t.Fatal(err)
	}
	apply(t, d, touch)
	if commits != 1 {
		t.Errorf("%d commits of a batch of %d touches, want 1", commits, images)
	}
}
