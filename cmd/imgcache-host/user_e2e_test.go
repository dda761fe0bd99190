package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
)

// nobody is an ordinary user.
const nobody = 65534

// TestOrdinaryUser runs the service as a user who owns the cache directory and
// nothing else. Its files have mode 0640 and are its own, also after root has
// worked on the directory, and images of others are served where they may be
// read.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	origin := t.TempDir()
	for _, id := range []string{"image", "other", "secret"} {
		writeFile(t, filepath.Join(origin, id), "bytes of the image")
	}
	d := prepare(t, setup{origin: directoryOrigin(origin)})
	writeFile(t, filepath.Join(d.dir, "other"), "bytes of the image")
	writeFile(t, filepath.Join(d.dir, "secret"), "bytes of the image")
	if err := os.Chmod(filepath.Join(d.dir, "secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.becomeNobody(origin)
	d.launch()
	if a := d.get("other"); !strings.HasPrefix(a.cacheStatus(), "imgcache; hit") || string(a.body) != "bytes of the image" {
		t.Errorf("the image of another user: %d %s", a.status, a.cacheStatus())
	}
	for _, id := range []string{"image", "secret"} {
		d.get(id)
		d.eventually("it is cached", func() bool { return strings.HasPrefix(d.get(id).cacheStatus(), "imgcache; hit") })
	}
	if log := d.logs[0].String(); strings.Count(log, "some images cannot be read by this process") != 1 {
		t.Error("the log does not say once that an image cannot be read")
	}
	d.stop()
	d.wantOwn("other")
	d.offline(0, "delete", "secret", "other")
	d.offline(0, "queue", "other")
	d.wantOwn("")
	d.launch()
	d.waitState("other", cache.StateCached)
	if got := d.state("image").Hits; got == 0 {
		t.Error("the hits are gone")
	}
}

// becomeNobody lets the service run as an ordinary user, unless the tests do.
func (d *daemon) becomeNobody(origin string) {
	d.t.Helper()
	if os.Getuid() != 0 {
		return
	}
	d.user = &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true}
	for _, dir := range []string{d.dir, d.runDir} {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			d.t.Fatal(err)
		}
	}
	for _, dir := range []string{d.bin, d.config, origin, d.dir} { // what is above them is closed to others
		for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			fi, err := os.Stat(dir)
			if err == nil && fi.IsDir() && fi.Mode().Perm()&0o005 != 0o005 {
				err = os.Chmod(dir, fi.Mode().Perm()|0o055)
			}
			if err != nil {
				d.t.Fatal(err)
			}
		}
	}
}

// wantOwn checks owner and mode of every file that the service has made; one
// that it has not is named.
func (d *daemon) wantOwn(except string) {
	d.t.Helper()
	owner := uint32(os.Getuid())
	if d.user != nil {
		owner = d.user.Uid
	}
	err := filepath.Walk(d.dir, func(path string, fi fs.FileInfo, err error) error {
		if err != nil || fi.Name() == except || path == d.dir {
			return err
		}
		if strings.Contains(path, "/trash/") { // what was replaced may be on its way out
			return nil
		}
		want := fs.FileMode(0o640)
		if fi.IsDir() {
			want = 0o750
		}
		if uid := fi.Sys().(*syscall.Stat_t).Uid; fi.Mode().Perm() != want || uid != owner {
			d.t.Errorf("%s has mode %v and owner %d, want %v and %d", path, fi.Mode().Perm(), uid, want, owner)
		}
		return nil
	})
	if err != nil {
		d.t.Error(err)
	}
}
