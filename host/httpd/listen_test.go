package httpd

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	group := strconv.Itoa(os.Getgid())
	for _, mode := range []fs.FileMode{0o600, 0o660, 0o666} {
		ln, err := ListenUnix(t.Context(), path, mode, group)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != fs.ModeSocket|mode {
			t.Errorf("%v, %v; want %v", info.Mode(), err, mode)
		}
		if _, err := ListenUnix(t.Context(), path, mode, ""); err == nil || !strings.Contains(err.Error(), "another process listens") {
			t.Errorf("second listener: %v", err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the refused listener removed the socket: %v", err)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket outlives its listener")
		}
	}
}

func TestListenUnixReplacesAStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = dead.Close() // as a process that is killed leaves it
	ln, err := ListenUnix(t.Context(), path, 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestListenUnixRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ path, group, says string }{
		{file, "", "no socket"},
		{link, "", "no socket"},
		{dir, "", "no socket"},
		{filepath.Join(dir, "none", "s"), "", "no such file"},
		{filepath.Join(dir, strings.Repeat("s", 108)), "", "longer than 107 bytes"},
		{filepath.Join(dir, "s"), "no-such-group-here", "no-such-group-here"},
	} {
		ln, err := ListenUnix(t.Context(), test.path, 0o600, test.group)
		if err == nil {
			_ = ln.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%.40s: %v, want %q", test.path, err, test.says)
		}
	}
	if got, err := os.ReadFile(file); string(got) != "precious" {
		t.Errorf("the file holds %q, %v", got, err)
	}
}

func TestListenTCP(t *testing.T) {
	ln, err := ListenTCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := ListenTCP(t.Context(), ln.Addr().String()); err == nil {
		t.Error("two listeners have one port")
	}
}
