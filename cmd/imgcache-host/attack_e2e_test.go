package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
	"golang.org/x/sys/unix"
)

// canary is the content of a file that no answer may show.
const canary = "the canary that no answer may hold"

// sealed is a directory outside of everything that is served. The test fails
// when anybody opens a file in it.
func sealed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "secret"), canary)
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_OPEN|unix.IN_MODIFY|unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer unix.Close(fd)
		if n, err := unix.Read(fd, make([]byte, 4096)); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("somebody was in %s: %d bytes of events, %v", dir, n, err)
		}
	})
	return dir
}

// raw sends a request with exactly this path, which no library makes better,
// and returns the status and everything that comes back.
func raw(t *testing.T, network, address, method, path string) (int, []byte) {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n", method, path); err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	if _, err := all.ReadFrom(c); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(all.Bytes())), nil)
	if err != nil {
		t.Fatalf("%s %.80s: %v in %q", method, path, err, all.Bytes())
	}
	resp.Body.Close()
	return resp.StatusCode, all.Bytes()
}

// evilNames are written where the name of an image is expected.
var evilNames = []string{
	"..%2f..%2fetc%2fpasswd", "..%2F..%2F..%2F..%2Fetc%2Fpasswd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..%5cetc%5cpasswd",
	"%2fetc%2fpasswd", "%00", "a%00b", "a%0d%0aSet-Cookie:%20x=y", "%ff%fe", "..", "%2e%2e", ".", "%2e", "~", "a~b", "-", ".hidden",
	"incomplete", "invalid", "queue", ".imgcache", ".imgcache%2flock", "incomplete%2fx", "cache.db", "secret", "%25%32%65",
	"linked", "out%2fsecret", "out", strings.Repeat("a", 4096), strings.Repeat("%2e%2e%2f", 400) + "etc%2fpasswd",
}

// TestEvilNames asks for what is no image, on every path that takes an id.
func TestEvilNames(t *testing.T) {
	t.Parallel()
	outside := sealed(t)
	files := t.TempDir()
	for link, target := range map[string]string{"linked": filepath.Join(outside, "secret"), "out": outside} {
		if err := os.Symlink(target, filepath.Join(files, link)); err != nil {
			t.Fatal(err)
		}
	}
	d := start(t, setup{origin: directoryOrigin(files)})
	writeFile(t, filepath.Join(d.dir, "invalid", "x"), canary)
	writeFile(t, filepath.Join(d.dir, "incomplete", "x"), canary)
	for _, name := range evilNames {
		for _, r := range []struct{ network, address, method, path string }{
			{"tcp", d.public, "GET", "/images/" + name},
			{"tcp", d.public, "HEAD", "/images/" + name},
			{"unix", d.socket, "GET", "/v1/images/" + name + "/data"},
		} {
			status, all := raw(t, r.network, r.address, r.method, r.path)
			if status != http.StatusBadRequest && status != http.StatusNotFound {
				t.Errorf("%s %.80s: status %d", r.method, r.path, status)
			}
			harmless(t, r.path, all)
		}
		for _, r := range []struct{ method, path string }{
			{"GET", "/v1/images/" + name}, {"DELETE", "/v1/images/" + name}, {"PUT", "/v1/queue/" + name}, {"DELETE", "/v1/queue/" + name},
		} {
			status, all := raw(t, "unix", d.socket, r.method, r.path)
			if status >= http.StatusInternalServerError {
				t.Errorf("%s %.80s: status %d", r.method, r.path, status)
			}
			harmless(t, r.path, all)
		}
	}
	for _, path := range []string{"/images/../../etc/passwd", "/../etc/passwd", "/images//etc/passwd", "//etc/passwd", "/images/", "/images", "*"} {
		status, all := raw(t, "tcp", d.public, "GET", path)
		if status == http.StatusOK {
			t.Errorf("GET %s: status %d", path, status)
		}
		harmless(t, path, all)
	}
	for _, name := range []string{"invalid/x", "incomplete/x", "queue", ".imgcache/lock"} {
		if _, err := os.Lstat(filepath.Join(d.dir, name)); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// harmless fails the test when an answer shows what it must not.
func harmless(t *testing.T, path string, all []byte) {
	t.Helper()
	for _, text := range []string{canary, "root:", "\r\nSet-Cookie"} {
		if bytes.Contains(all, []byte(text)) {
			t.Errorf("%.80s: the answer holds %q", path, text)
		}
	}
}

// TestAdminStaysAdmin asks the public listener for what only the socket has.
func TestAdminStaysAdmin(t *testing.T) {
	t.Parallel()
	d := start(t, setup{})
	for _, path := range []string{"/v1/images", "/v1/usage", "/v1/plugins", "/debug/pprof/", "/v1/queue"} {
		if status, _ := raw(t, "tcp", d.public, "GET", path); status != http.StatusNotFound {
			t.Errorf("GET %s: status %d", path, status)
		}
	}
	for _, r := range [][2]string{{"DELETE", "/v1/images"}, {"POST", "/v1/prune"}, {"POST", "/v1/writes"}, {"POST", "/images/a"}, {"DELETE", "/images/a"}} {
		if status, _ := raw(t, "tcp", d.public, r[0], r[1]); status != http.StatusNotFound && status != http.StatusMethodNotAllowed {
			t.Errorf("%s %s: status %d", r[0], r[1], status)
		}
	}
}

// TestPlantedLinks puts symbolic links where the cache has its files.
func TestPlantedLinks(t *testing.T) {
	t.Parallel()
	outside := sealed(t)
	secret := filepath.Join(outside, "secret")
	origin := newOrigin(t)
	img := origin.add("debian", 2*mib)
	d := start(t, setup{origin: origin.block()})
	for _, link := range []string{"debian", "alone", "incomplete/debian", "invalid/debian", "queue/other", ".imgcache/blocks/debian"} {
		if err := os.Symlink(secret, filepath.Join(d.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	try := func() {
		t.Helper()
		for _, id := range []string{"debian", "alone"} {
			if s := d.state(id).State; s == cache.StateCached {
				t.Errorf("the link %s is %s", id, s)
			}
			if a := d.call(http.MethodGet, "/v1/images/"+id+"/data", ""); a.status != http.StatusNotFound {
				t.Errorf("data of the link %s: status %d", id, a.status)
			}
		}
		if a := d.get("alone"); a.status != http.StatusNotFound {
			t.Errorf("GET of the link alone: status %d", a.status)
		}
	}
	try()
	d.stop()
	d.restart() // now the scan comes by
	try()
	for range 2 {
		if err := img.check(d.get("debian")); err != nil {
			t.Errorf("an image in whose place there is a link: %v", err)
		}
	}
	d.waitState("debian", cache.StateCached)
	if info, err := os.Lstat(filepath.Join(d.dir, "debian")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the cached image is %v, %v", info, err)
	}
	for _, r := range []struct{ method, path string }{
		{"POST", "/v1/clean"}, {"DELETE", "/v1/images/alone"}, {"DELETE", "/v1/images/debian"}, {"POST", "/v1/prune"}, {"DELETE", "/v1/queue"},
	} {
		if a := d.call(r.method, r.path, ""); a.status >= http.StatusInternalServerError {
			t.Errorf("%s %s: %d %s", r.method, r.path, a.status, a.body)
		}
	}
	if info, err := os.Lstat(secret); err != nil || info.Size() != int64(len(canary)) {
		t.Errorf("the file outside: %v, %v", info, err)
	}
}
