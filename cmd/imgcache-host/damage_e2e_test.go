package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
)

// kept is all that a service keeps: the cache directory, the data directory with
// the state of plugins, a trace, and the lock file of the plugins.
type kept struct{ root string }

func (k kept) images() string { return filepath.Join(k.root, "images") }

// setup is a service that keeps something of everything, and an origin with the
// images cached, cold and cut.
func (k kept) setup(origin string) setup {
	return setup{dir: k.images(), config: fmt.Sprintf(`
plugin_lock = %q
node {
  data_dir = %q
  run_dir  = "RUN"
}
listener "tcp" "public" {
  address = "127.0.0.1:0"
}
cache "default" {
  dir    = %q
  policy = policy.queues
  trace {
    path = %q
  }
}
policy "s3fifo" "queues" {
}
schedule "often" {
  every = "1s"
  run   = ["clean"]
}
log {
  level = "debug"
}
%s
`, filepath.Join(k.root, "plugins.lock.json"), filepath.Join(k.root, "data"), k.images(), filepath.Join(k.root, "trace"), origin)}
}

// prepareKept is prepare for a service with kept things.
func prepareKept(t *testing.T, k kept, origin string) *daemon {
	t.Helper()
	d := prepare(t, k.setup(origin))
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, d.config, strings.ReplaceAll(string(text), "RUN", d.runDir))
	return d
}

// damages replace a file or a directory. Outside is a file that nobody may change.
var damages = map[string]func(path, outside string) error{
	"link to a file":      func(path, outside string) error { return os.Symlink(outside, path) },
	"link to a directory": func(path, outside string) error { return os.Symlink(filepath.Dir(outside), path) },
	"link to nothing":     func(path, outside string) error { return os.Symlink(outside+"-is-not-there", path) },
	"directory": func(path, _ string) error {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(path, "file"), []byte("of somebody"), 0o644)
	},
	"FIFO":       func(path, _ string) error { return syscall.Mkfifo(path, 0o644) },
	"empty file": func(path, _ string) error { return os.WriteFile(path, nil, 0o644) },
	"random bytes": func(path, _ string) error {
		return os.WriteFile(path, bytes.Repeat([]byte("\x8f\x01\xffq\n\x00{\"7\r"), 700), 0o644)
	},
	"file of another program": func(path, _ string) error {
		if strings.Contains(filepath.Base(path), ".db") {
			return exec.Command("python3", "-c", "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('CREATE TABLE images (id TEXT)'); d.commit()", path).Run()
		}
		return os.WriteFile(path, []byte(`{"version": 1, "name": "of another program", "pins": 1, "plugins": {}}`+"\n"), 0o644)
	},
	"unreadable": func(path, _ string) error { return os.WriteFile(path, []byte("1\n"), 0) },
}

// TestDamage replaces each file and each directory that the service and its
// plugins keep, one at a time. The service starts, serves what it had and what is
// new, ends, and leaves alone what a link leads to. Either everything works then,
// or the log says what is in the way.
func TestDamage(t *testing.T) {
	t.Parallel()
	origin := t.TempDir()
	for _, id := range []string{"cached", "queued", "cold"} {
		writeFile(t, filepath.Join(origin, id), strings.Repeat(id, 100_000))
	}
	before := kept{t.TempDir()}
	names := before.make(t, origin)
	for i, name := range names {
		for j, damage := range slices.Sorted(maps.Keys(damages)) {
			if (i+j)%3 != 0 && os.Getenv("IMGCACHE_TEST_ALL") == "" {
				continue
			}
			do := damages[damage]
			t.Run(name+"/"+damage, func(t *testing.T) {
				t.Parallel()
				k := kept{filepath.Join(t.TempDir(), "kept")}
				if out, err := exec.Command("cp", "-a", before.root, k.root).CombinedOutput(); err != nil {
					t.Fatalf("cp: %v\n%s", err, out)
				}
				outside := filepath.Join(filepath.Dir(k.root), "outside", "precious")
				writeFile(t, outside, "precious")
				path := filepath.Join(k.root, name)
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
				if err := do(path, outside); err != nil {
					t.Fatal(err)
				}
				runDamaged(t, k, origin, name, damage == "unreadable")
				entries, err := os.ReadDir(filepath.Dir(outside))
				if err != nil {
					t.Fatal(err)
				}
				if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
					t.Errorf("the file outside has become %q, %v", text, err)
				}
				// A link in place of what the configuration names is its owner's wish.
				if strings.HasPrefix(name, "images/") && len(entries) != 1 {
					t.Errorf("beside the file outside there is %v", entries)
				}
			})
		}
	}
}

// make lets a service keep something of everything, and returns the names of all
// files and directories.
func (k kept) make(t *testing.T, origin string) (names []string) {
	t.Helper()
	d := prepareKept(t, k, directoryOrigin(origin))
	d.offline(0, "plugin", "lock")
	d.launch()
	d.get("cached")
	d.waitState("cached", cache.StateCached)
	if a := d.call(http.MethodPut, "/v1/pins/cached", "{}"); a.status/100 != 2 {
		t.Fatalf("pin: %d %s", a.status, a.body)
	}
	d.get("queued")
	d.waitState("queued", cache.StateCached)
	d.eventually("a schedule has run", func() bool {
		found, _ := filepath.Glob(filepath.Join(k.root, "data", "*", "often.json"))
		return len(found) == 1
	})
	d.stop()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Rename(filepath.Join(k.images(), "queued"), filepath.Join(k.images(), "invalid", "queued")))
	must(os.WriteFile(filepath.Join(k.images(), "queue", "queued"), nil, 0o640))
	must(filepath.WalkDir(k.root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != k.root {
			name, _ := filepath.Rel(k.root, path)
			names = append(names, name)
		}
		return err
	}))
	for _, want := range []string{".imgcache/records.db", ".imgcache/pins", ".imgcache/policy-state", ".imgcache/history", ".imgcache/driver", ".imgcache/blocks"} {
		if !slices.Contains(names, "images/"+want) {
			t.Fatalf("the service keeps no %s, only %v", want, names)
		}
	}
	return names
}

// runDamaged runs a service on what was damaged, as root or as an ordinary user
// whom the mode of a file binds.
func runDamaged(t *testing.T, k kept, origin, name string, ordinary bool) {
	d := prepareKept(t, k, directoryOrigin(origin))
	if ordinary {
		d.becomeNobody(origin)
		if out, err := exec.Command("chown", "-R", "-h", "nobody", k.root).CombinedOutput(); d.user != nil && err != nil {
			t.Fatalf("chown: %v\n%s", err, out)
		}
	}
	d.launchLame()
	for _, id := range []string{"cached", "cold", "cached", "cold"} {
		if a := d.get(id); a.status != http.StatusOK || string(a.body) != strings.Repeat(id, 100_000) {
			t.Errorf("%s: %d, %d bytes, %v", id, a.status, len(a.body), a.err)
		}
	}
	d.eventually("everything works, or a warning names "+name, func() bool {
		return d.call(http.MethodGet, "/readyz", "").status == http.StatusOK || saysSomethingOf(d.logs[0].String(), filepath.Base(name))
	})
	d.stop()
}

// saysSomethingOf reports whether a warning or an error in a log has a name in it.
func saysSomethingOf(log, name string) bool {
	for line := range strings.Lines(log) {
		var record struct{ Level string }
		if json.Unmarshal([]byte(line), &record) == nil && (record.Level == "WARN" || record.Level == "ERROR") && strings.Contains(line, name) {
			return true
		}
	}
	return false
}
