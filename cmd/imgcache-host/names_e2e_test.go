package main

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgcache/imgcache-host/host/cache"
	"golang.org/x/crypto/bcrypt"
)

// ctl runs a command of an operator on the daemon, and returns its
// output with single blanks. It fails the test when the exit code is not the expected one.
func (d *daemon) ctl(code int, args ...string) string {
	d.t.Helper()
	got, stdout, stderr := command(d.t, append([]string{"--socket", d.socket}, args...)...)
	if got != code {
		d.t.Errorf("%q ends with %d, want %d: %s%s", args, got, code, stdout, stderr)
	}
	var lines []string
	for line := range strings.Lines(stdout + stderr) {
		lines = append(lines, strings.Join(strings.Fields(line), " ")) // columns are as wide as they need
	}
	return strings.Join(lines, "\n")
}

// TestOperatorsKnowNames does before the first download, and after a restart,
// with the names of images what is done with ids.
func TestOperatorsKnowNames(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	for _, name := range []string{"noble/queued/x.img", "my prefetched image+1.raw", "größe/gepinnt.img", "jammy/configured.img", "jammy/scheduled.img"} {
		origin.add(name, 3*mib+9)
	}
	d := start(t, setup{origin: origin.block(), more: `
pin "here" {
  images = ["/images/jammy/configured.img"]
}
`})
	d.ctl(0, "queue", "noble/queued/x.img")
	d.ctl(0, "prefetch", "/images/my%20prefetched%20image+1.raw")
	d.ctl(0, "pin", "größe/gepinnt.img")
	d.ctl(3, "show", "größe/gepinnt.img")
	d.ctl(0, "prefetch", "noble/queued/x.img", "größe/gepinnt.img", "jammy/configured.img")
	d.ctl(1, "queue", "noble/../x")
	d.ctl(1, "queue", "noble/queued/x.img?version=2")
	for run := range 2 {
		if run > 0 {
			d.stop()
			d.restart()
		}
		list := d.ctl(0, "list")
		for _, name := range []string{"noble/queued/x.img", "my prefetched image+1.raw"} {
			if !strings.Contains(list, name+" cached ") {
				t.Errorf("list lacks %s:\n%s", name, list)
			}
			if got := d.ctl(0, "show", name); !strings.Contains(got, name) {
				t.Errorf("show %s:\n%s", name, got)
			}
		}
		for _, name := range []string{"größe/gepinnt.img", "jammy/configured.img"} {
			if !strings.Contains(list, name+" cached, pinned") {
				t.Errorf("list lacks %s:\n%s", name, list)
			}
			if pins := d.ctl(0, "pin", "list"); !strings.Contains(pins, name) {
				t.Errorf("pin list lacks %s:\n%s", name, pins)
			}
		}
	}
	d.ctl(0, "unpin", "größe/gepinnt.img")
	d.ctl(0, "delete", "größe/gepinnt.img", "noble/queued/x.img")
	d.ctl(0, "verify", "my prefetched image+1.raw")
	if got := d.ctl(0, "list", "--output", "json"); strings.Contains(got, "gepinnt") || strings.Contains(got, "queued/x") || !strings.Contains(got, `"name": "jammy/configured.img"`) {
		t.Errorf("list:\n%s", got)
	}
}

// TestRefresh has the origin asked before that is due, by a client and by a
// command. The old version is served until the new one is whole.
func TestRefresh(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	const name = "noble/current/x.img"
	old := origin.add(name, 2*mib)
	d := start(t, setup{origin: origin.block()})
	if err := old.check(d.get(name)); err != nil {
		t.Fatal(err)
	}
	d.eventually("it is cached", func() bool { return strings.Contains(d.ctl(0, "list"), "cached") })
	if got := d.ctl(0, "refresh", name); !strings.Contains(got, "the origin has no other version") {
		t.Errorf("refresh of what has not changed:\n%s", got)
	}

	replace := func(size int64, tag string) *offered {
		f := origin.add(name, size)
		f.set(func(f *offered) { f.etag = tag })
		return f
	}
	second := replace(3*mib, `"second"`).gateAt(2 * mib)
	if err := old.check(d.get(name)); err != nil {
		t.Errorf("while it is trusted: %v", err)
	}
	done := make(chan string, 1)
	go func() { done <- d.ctl(0, "refresh", name) }()
	d.eventually("the new version comes", func() bool { return strings.Contains(d.ctl(0, "fills"), "streaming") })
	if err := old.check(d.get(name)); err != nil {
		t.Errorf("while the new version comes: %v", err)
	}
	second.release()
	if got := <-done; !strings.Contains(got, "fetched") {
		t.Errorf("refresh:\n%s", got)
	}
	if err := second.check(d.get(name)); err != nil {
		t.Errorf("afterwards: %v", err)
	}

	third := replace(4*mib, `"third"`)
	if err := third.check(d.get(name, "Pragma", "no-cache")); err != nil {
		t.Errorf("a client that wants a fresh one: %v", err)
	}
	d.eventually("it is cached", func() bool { return third.check(d.get(name)) == nil })
	replace(5*mib, `"fourth"`).refuse(true)
	if got := d.ctl(1, "refresh", name); !strings.Contains(got, "refresh "+name) {
		t.Errorf("refresh while the origin is away:\n%s", got)
	}
	if err := third.check(d.get(name)); err != nil {
		t.Errorf("after a refresh that failed: %v", err)
	}
	d.ctl(3, "refresh", "noble/none")
}

// TestHangup sends SIGHUP while an image is downloaded.
func TestHangup(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	img := origin.add("image", 3*mib).gateAt(mib)
	d := start(t, setup{origin: origin.block()})
	got := make(chan answer, 1)
	go func() { got <- d.get("image") }()
	for n := range 3 {
		if err := d.p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		d.eventually("the log says it", func() bool { return strings.Count(d.logs[0].String(), "SIGHUP is ignored") == n+1 })
	}
	img.release()
	if err := img.check(<-got); err != nil {
		t.Error(err)
	}
	d.waitState("image", cache.StateCached)
}

// TestImagesForSome serves images to those who show a token or a password.
func TestImagesForSome(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	img := origin.add("image", mib)
	hash, err := bcrypt.GenerateFromPassword([]byte("a password"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "clients")
	writeSecret(t, file, fmt.Sprintf("0123456789abcdef\nalice:%s\n", hash))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	d := start(t, setup{
		origin: origin.block("headers = { Authorization = \"Bearer of the service\" }"),
		more:   fmt.Sprintf("listener \"tcp\" \"some\" {\n  address   = %q\n  auth_file = %q\n}\n", address, file),
	})
	ask := func(change func(*http.Request)) answer {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/images/image", nil)
		if err != nil {
			t.Fatal(err)
		}
		change(req)
		resp, err := d.web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return read(resp)
	}
	for range 2 {
		for what, change := range map[string]func(*http.Request){
			"token":    func(r *http.Request) { r.Header.Set("Authorization", "Bearer 0123456789abcdef") },
			"password": func(r *http.Request) { r.SetBasicAuth("alice", "a password") },
		} {
			if err := img.check(ask(change)); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		for what, change := range map[string]func(*http.Request){
			"nothing":       func(*http.Request) {},
			"another token": func(r *http.Request) { r.Header.Set("Authorization", "Bearer of the service") },
			"no password":   func(r *http.Request) { r.SetBasicAuth("alice", "") },
		} {
			if a := ask(change); a.status != http.StatusUnauthorized || len(a.header.Values("WWW-Authenticate")) != 2 {
				t.Errorf("%s: %d %v", what, a.status, a.header)
			}
		}
	}
	code, _, stderr := command(t, "config", "validate", d.config)
	if code != 0 || !strings.Contains(stderr, "Private images are open") || !strings.Contains(stderr, `listener "public"`) || strings.Contains(stderr, `listener "some"`) {
		t.Errorf("validate ends with %d: %s", code, stderr)
	}
}
