package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
)

// TestBadDiskAtStart starts the service on directories that it cannot use. It
// passes images through, says why, and stores them once the directory is good.
func TestBadDiskAtStart(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		what, why  string
		harm, mend func(t *testing.T, dir string)
	}{
		{
			what: "directory that cannot be made", why: "not a directory",
			harm: func(t *testing.T, dir string) { writeFile(t, filepath.Dir(dir), "a file") },
			mend: func(t *testing.T, dir string) { mustRemove(t, filepath.Dir(dir)) },
		},
		{
			what: "read-only file system", why: "read-only file system",
			harm: func(t *testing.T, dir string) { mountTmpfs(t, dir, syscall.MS_RDONLY) },
			mend: func(t *testing.T, dir string) { mountTmpfs(t, dir, syscall.MS_REMOUNT) },
		},
		{
			what: "unknown format", why: `.imgcache/format contains "pdf"`,
			harm: func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, ".imgcache", "format"), "pdf") },
			mend: func(t *testing.T, dir string) { mustRemove(t, filepath.Join(dir, ".imgcache", "format")) },
		},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			origin := t.TempDir()
			writeFile(t, filepath.Join(origin, "image"), "bytes of the image")
			dir := filepath.Join(t.TempDir(), "parent", "images")
			tc.harm(t, dir)
			d := prepare(t, setup{dir: dir, origin: directoryOrigin(origin)})
			d.launchLame()
			for range 2 {
				a := d.get("image")
				if a.err != nil || a.status != http.StatusOK || string(a.body) != "bytes of the image" || strings.Contains(a.cacheStatus(), "hit") {
					t.Errorf("download: %d %q, %v, %s", a.status, a.body, a.err, a.cacheStatus())
				}
			}
			if r := d.readiness(); r.Ready || !strings.Contains(strings.Join(r.Reasons, "\n"), tc.why) {
				t.Errorf("/readyz does not say why: %+v", r)
			}
			if out, _ := d.run(0, "status"); !strings.Contains(out, tc.why) {
				t.Errorf("status does not say why:\n%s", out)
			}
			if log := d.logs[0].String(); strings.Count(log, "the cache directory fails") != 1 || !strings.Contains(log, tc.why[:8]) {
				t.Error("the log does not say why, once")
			}
			tc.mend(t, dir)
			d.eventually("the service is ready", func() bool { return d.readiness().Ready })
			d.get("image")
			d.waitState("image", cache.StateCached)
			if a := d.get("image"); !strings.HasPrefix(a.cacheStatus(), "imgcache; hit") {
				t.Errorf("with a good disk the answer is %s", a.cacheStatus())
			}
		})
	}
}

func mustRemove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// mountTmpfs mounts a file system at dir until the test ends, or changes it.
func mountTmpfs(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if flags&syscall.MS_REMOUNT == 0 {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", dir, err)
			}
		})
	}
	if err := syscall.Mount("imgcache-test", dir, "tmpfs", flags, "size=8m"); err != nil {
		t.Fatalf("mount at %s: %v", dir, err)
	}
}

// TestOneDirectoryOneDaemon starts a second service on the directory of a
// first: it ends with the process id of the first, which goes on.
func TestOneDirectoryOneDaemon(t *testing.T) {
	t.Parallel()
	origin := t.TempDir()
	writeFile(t, filepath.Join(origin, "image"), "bytes of the image")
	first := start(t, setup{origin: directoryOrigin(origin)})
	second := prepare(t, setup{dir: first.dir, origin: directoryOrigin(origin)})
	code, _, stderr := command(t, "serve", "--config", second.config)
	if want := fmt.Sprintf("%s: in use by process %d", first.dir, first.pid()); code != 1 || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d, want 1 and %q: %s", code, want, stderr)
	}
	if a := first.get("image"); a.status != http.StatusOK {
		t.Errorf("the first service answers %d", a.status)
	}
	first.kill9()
	second.launch()
	if a := second.get("image"); a.status != http.StatusOK || string(a.body) != "bytes of the image" {
		t.Errorf("after a kill of the first the second answers %d", a.status)
	}
}

// TestNewerFormat starts the service on a directory that a newer one has
// written: it ends, and not a byte has changed.
func TestNewerFormat(t *testing.T) {
	t.Parallel()
	d := prepare(t, setup{})
	writeFile(t, filepath.Join(d.dir, "image"), "bytes")
	writeFile(t, filepath.Join(d.dir, ".imgcache", "format"), "99\n")
	writeFile(t, filepath.Join(d.dir, ".imgcache", "records.log"), "of the newer program")
	before := listing(t, d.dir)
	code, _, stderr := command(t, "serve", "--config", d.config)
	if code != 1 || !strings.Contains(stderr, "the directory has format 99, this program knows formats up to 1: use the newer program") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if after := listing(t, d.dir); after != before {
		t.Errorf("the directory was\n%s\nand is\n%s", before, after)
	}
}

// listing describes all files below a directory.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		content := []byte{}
		if fi.Mode().IsRegular() {
			content, err = os.ReadFile(path)
		}
		fmt.Fprintln(&b, path, fi.Mode(), fi.ModTime().UnixNano(), string(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
