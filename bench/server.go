package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/imgcache/imgcache-host/host/client"
)

// server is one of those that are measured.
type server struct {
	*process
	name  string
	dir   string // its own
	addr  string
	start func(*server) error
	api   *client.Client // of imgcache-host alone
}

// prepare makes the directory of a server and starts it.
func prepare(name, parent string, start func(*server) error) (*server, error) {
	s := &server{name: name, dir: filepath.Join(parent, strings.ReplaceAll(name, " ", "-")), start: start}
	return s, s.anew()
}

// anew starts a server with an empty directory.
func (s *server) anew() error {
	if s.process != nil {
		s.process.stop()
	}
	err := errors.Join(os.RemoveAll(s.dir), os.Mkdir(s.dir, 0o700))
	if err == nil && os.Getuid() == 0 {
		err = os.Chown(s.dir, nobody, nobody)
	}
	if err == nil {
		err = s.start(s)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	return nil
}

// launch starts the program of a server and waits until it accepts clients.
func (s *server) launch(name string, args ...string) (err error) {
	if s.process, err = launch(filepath.Join(s.dir, "log"), name, args...); err != nil {
		return err
	}
	return s.until(func() bool {
		c, err := net.Dial("tcp", s.addr)
		return err == nil && c.Close() == nil
	})
}

// freeAddress returns an address that nobody listens on.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// nginx returns how nginx is started with lines for its server block.
func nginx(nopush, http, lines string) func(*server) error {
	return func(s *server) (err error) {
		if s.addr, err = freeAddress(); err != nil {
			return err
		}
		conf := fmt.Sprintf(`
daemon off;
worker_processes %d;
pid %[2]s/pid;
error_log stderr error;
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  tcp_nopush %[3]s;
  keepalive_requests 1000000;
  client_body_temp_path %[2]s/body;
  proxy_temp_path %[2]s/temp;
  fastcgi_temp_path %[2]s/fastcgi;
  uwsgi_temp_path %[2]s/uwsgi;
  scgi_temp_path %[2]s/scgi;
  %[4]s
  server {
    listen %[5]s;
    %[6]s
  }
}
`, runtime.NumCPU(), s.dir, nopush, strings.ReplaceAll(http, "DIR", s.dir), s.addr, strings.ReplaceAll(lines, "DIR", s.dir))
		path := filepath.Join(s.dir, "nginx.conf")
		if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
			return err
		}
		return s.launch("nginx", "-c", path, "-p", s.dir, "-e", "stderr")
	}
}

// varnish returns how Varnish is started, with memory for that many bytes.
func varnish(origin string, memory int64) func(*server) error {
	return func(s *server) (err error) {
		if s.addr, err = freeAddress(); err != nil {
			return err
		}
		host, port, _ := net.SplitHostPort(origin)
		vcl := fmt.Sprintf(`vcl 4.1;
backend default { .host = %q; .port = %q; }
sub vcl_backend_response { set beresp.ttl = 1h; }
`, host, port)
		path := filepath.Join(s.dir, "default.vcl")
		if err := os.WriteFile(path, []byte(vcl), 0o644); err != nil {
			return err
		}
		return s.launch("varnishd", "-F", "-j", "none", "-n", filepath.Join(s.dir, "work"), "-a", s.addr, "-f", path,
			"-T", "none", "-s", fmt.Sprintf("malloc,%d", memory), "-p", "cli_timeout=60")
	}
}

// bare returns how the bare sender is started.
func bare(self, file string) func(*server) error {
	return func(s *server) (err error) {
		if s.process, err = launch(filepath.Join(s.dir, "log"), self, "-sender", file); err != nil {
			return err
		}
		return s.until(func() bool {
			b, err := os.ReadFile(s.log)
			s.addr = strings.TrimSpace(string(b))
			return err == nil && strings.HasSuffix(string(b), "\n")
		})
	}
}

// imgcache returns how imgcache-host is started, with more blocks for its
// configuration. The images lie below its directory.
func imgcache(bin, blocks string) func(*server) error {
	return func(s *server) (err error) {
		conf := fmt.Sprintf(`
node {
  data_dir = "%[1]s/data"
  run_dir  = "%[1]s/run"
}
listener "tcp" "public" { address = "127.0.0.1:0" }
cache "default" {
  dir      = "%[1]s/images"
  max_size = "8GiB"
}
log { level = "info" }
%[2]s
`, s.dir, blocks)
		path := filepath.Join(s.dir, "config.hcl")
		if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
			return err
		}
		return s.serve(bin, path)
	}
}

// serve starts imgcache-host and waits until it is ready for everything.
func (s *server) serve(bin, config string) (err error) {
	s.api = client.New(filepath.Join(s.dir, "run", "admin.sock"))
	if s.process, err = launch(filepath.Join(s.dir, "log"), filepath.Join(bin, "imgcache-host"), "serve", "--config", config); err != nil {
		return err
	}
	return s.until(func() bool {
		s.addr = listening(s.log)
		reasons, err := s.api.Ready(context.Background())
		return s.addr != "" && err == nil && len(reasons) == 0
	})
}

// listening returns where the service listens, as it says in its log, or "".
func listening(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		var record struct{ Msg, Listener, Address string }
		if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "listening" && record.Listener == "public" {
			return record.Address
		}
	}
	return ""
}

// settle waits until the service has told its driver all it has to.
func (s *server) settle(ctx context.Context, images int) error {
	for deadline := time.Now().Add(3 * patience); ; time.Sleep(50 * time.Millisecond) {
		u, err := s.api.Usage(ctx)
		if err == nil && u.Records == "ready" && u.Unsent == 0 && (images < 0 || u.Images == images) {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("not settled: %d images, records %s, %d unsent", u.Images, u.Records, u.Unsent), err)
		}
	}
}
