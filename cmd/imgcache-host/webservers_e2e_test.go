package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// webServer is a server of Debian as an origin.
type webServer struct {
	name    string // as in the table of docs/origins.md
	program string // "": an origin "directory"
	config  string // more of its configuration
}

// webServers are the rows of the table. All of them list directories and code
// what they send where a client accepts it, as far as they can.
var webServers = []webServer{
	{name: "directory"},
	{name: "nginx", program: "nginx"},
	{name: "nginx, `etag off`", program: "nginx", config: "etag off;"},
	{name: "nginx, `max_ranges 0`", program: "nginx", config: "max_ranges 0;"},
	{name: "nginx, signed for GET", program: "nginx", config: signedForGET},
	{name: "Apache", program: "apache2"},
	{name: "Apache, `FileETag None`", program: "apache2", config: "FileETag None"},
	{name: "Apache, `MaxRanges none`", program: "apache2", config: "MaxRanges none"},
	{name: "Caddy", program: "caddy"},
	{name: "Caddy, `header -ETag`", program: "caddy", config: "header -ETag"},
}

// signedForGET sends everybody to an address on another host that is good for a
// GET alone, as stores of objects do.
const signedForGET = `
if ($http_host ~ "^127\.0\.0\.1(:\d+)$") { set $port $1; }
location / { return 302 http://localhost$port/signed$uri?signature=5f2e; }
location /signed/ {
  if ($request_method != GET) { return 403; }
  if ($arg_signature != 5f2e) { return 403; }
  rewrite ^/signed/(.*)$ /$1 break;
}`

// configuration is what a server is started with.
func (s webServer) configuration(address, root, dir string) string {
	switch s.program {
	case "nginx":
		return fmt.Sprintf(`
daemon off; pid %[3]s/pid; error_log stderr; user root; worker_processes 1;
events {}
http {
  access_log off; types {} default_type application/octet-stream; sendfile on;
  gzip on; gzip_types *; client_body_temp_path %[3]s; proxy_temp_path %[3]s; fastcgi_temp_path %[3]s; uwsgi_temp_path %[3]s; scgi_temp_path %[3]s;
  server { listen %[1]s; root %[2]s; autoindex on; absolute_redirect off; %[4]s }
}`, address, root, dir, s.config)
	case "apache2":
		modules := "/usr/lib/apache2/modules"
		return fmt.Sprintf(`
LoadModule mpm_event_module %[4]s/mod_mpm_event.so
LoadModule authz_core_module %[4]s/mod_authz_core.so
LoadModule dir_module %[4]s/mod_dir.so
LoadModule autoindex_module %[4]s/mod_autoindex.so
LoadModule mime_module %[4]s/mod_mime.so
LoadModule filter_module %[4]s/mod_filter.so
LoadModule deflate_module %[4]s/mod_deflate.so
ServerRoot %[3]s
ServerName localhost
DefaultRuntimeDir %[3]s
PidFile %[3]s/pid
ErrorLog /dev/stderr
User nobody
Group nogroup
Listen %[1]s
DocumentRoot %[2]s
TypesConfig /dev/null
AddType application/x-gzip .gz
AddEncoding x-gzip .gz
SetOutputFilter DEFLATE
<Directory %[2]s>
  Options +Indexes
  Require all granted
</Directory>
%[5]s
`, address, root, dir, modules, s.config)
	}
	return fmt.Sprintf(`
{
  admin off
  auto_https off
}
http://%s {
  root * %s
  encode gzip
  file_server browse
  %s
}
`, address, root, s.config)
}

// start starts the server over a directory and returns its address.
func (s webServer) start(t *testing.T, root string) string {
	t.Helper()
	address, dir := freeAddress(t), openDir(t)
	config := filepath.Join(dir, "config")
	writeFile(t, config, s.configuration(address, root, dir))
	cmd := exec.Command(s.program, map[string][]string{
		"nginx":   {"-p", dir, "-c", config, "-e", "stderr"},
		"apache2": {"-DFOREGROUND", "-f", config},
		"caddy":   {"run", "--config", config, "--adapter", "caddyfile"},
	}[s.program]...)
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "PATH="+os.Getenv("PATH")+":/usr/sbin:/usr/bin")
	if path, err := exec.LookPath("/usr/sbin/" + s.program); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v; scripts/setup test installs it", s.program, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // of a signal
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s says:\n%s", s.program, tail(log.String(), 4000))
		}
	})
	eventually(t, s.program+" listens", func() bool {
		c, err := net.Dial("tcp", address)
		return err == nil && c.Close() == nil
	})
	return address
}

// openDir returns a directory that other users may read: some servers change
// theirs.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "web")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// freeAddress returns an address on which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// cutter passes connections on, counts what comes back, and cuts one when it is
// told to.
type cutter struct {
	net.Listener
	target string
	sent   atomic.Int64
	cut    atomic.Int64 // the connection that sends this byte ends; 0: none
}

func newCutter(t *testing.T, target string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: l, target: target}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go c.pass(conn)
		}
	}()
	return c
}

func (c *cutter) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if cut := c.cut.Load(); cut > 0 && c.sent.Add(int64(n)) >= cut {
			c.cut.Store(0)
			return
		} else if cut == 0 {
			c.sent.Add(int64(n))
		}
		if _, werr := client.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// webCase is a server with a service before it.
type webCase struct {
	t    *testing.T
	s    webServer
	root string
	pass *cutter // nil: it has no connections
	d    *daemon
	at   time.Time // of the files
}

// place puts an image below the root, as a publisher does: by a rename.
func (c *webCase) place(name string, content []byte, at time.Time) {
	c.t.Helper()
	path := filepath.Join(c.root, name)
	writeFile(c.t, path+".part", string(content))
	if err := os.Chtimes(path+".part", at, at); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		c.t.Fatal(err)
	}
}

// wants downloads an image and returns good when it is content, else what came.
// It waits until the image is stored: who comes before that follows the transfer.
func (c *webCase) wants(name string, content []byte, good string) string {
	a := c.d.get(name)
	c.d.eventually("no transfer runs", func() bool {
		fills, err := c.d.api.Fills(c.t.Context())
		return err == nil && len(fills) == 0
	})
	switch {
	case a.err != nil:
		return fmt.Sprintf("cut: %v", a.err)
	case a.status != http.StatusOK:
		return strconv.Itoa(a.status)
	case !bytes.Equal(a.body, content):
		return "other bytes"
	}
	return good
}

// version is the kind of version that a stored image has.
func (c *webCase) version(name string) string {
	switch v := c.d.state(name).Version; {
	case strings.HasPrefix(v, `"`):
		return "strong ETag"
	case strings.HasPrefix(v, "stat:") && strings.Contains(v, "-f"):
		return "file"
	case strings.HasPrefix(v, "stat:") && strings.Contains(v, "-w"):
		return "weak ETag, size, time"
	case strings.HasPrefix(v, "stat:"):
		return "size, time"
	default:
		return strconv.Quote(v)
	}
}

// row tries the server and returns its row of the table.
func (c *webCase) row() []string {
	image := func(name string) []byte { return newImage(name, 6<<20).bytes(0, 6<<20) }
	c.place("cut.img", image("cut"), c.at)
	cut := "–"
	if c.pass != nil {
		before := c.pass.sent.Load()
		c.pass.cut.Store(before + 4<<20)
		cut = c.wants("cut.img", image("cut"), "goes on")
		if n := c.pass.sent.Load() - before; cut == "goes on" && n > 7<<20 {
			cut = "begins anew"
		}
	} else {
		c.wants("cut.img", image("cut"), "")
	}
	version := c.version("cut.img")

	c.place("a.img", image("a"), c.at)
	c.wants("a.img", image("a"), "")
	c.place("a.img", image("b"), c.at.Add(5*time.Second))
	replaced := c.wants("a.img", image("b"), "new bytes")
	c.place("a.img", image("c"), c.at.Add(5*time.Second+time.Second/2))
	sameSecond := c.wants("a.img", image("c"), "new bytes")
	if sameSecond == "other bytes" {
		sameSecond = c.wants("a.img", image("b"), "unnoticed")
	}
	if err := os.Remove(filepath.Join(c.root, "a.img")); err != nil {
		c.t.Fatal(err)
	}
	deleted := c.wants("a.img", nil, "")

	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(image("z"))
	_ = z.Close()
	c.place("z.img.gz", zipped.Bytes(), c.at)
	coded := c.wants("z.img.gz", zipped.Bytes(), "as they are")
	head := strconv.Itoa(c.d.do(http.MethodHead, "cut.img").status)
	return []string{c.s.name, version, cut, replaced, sameSecond, deleted, coded, head}
}

// listing asks for a directory, which is no image.
func (c *webCase) listing() {
	writeFile(c.t, filepath.Join(c.root, "sub", "x.img"), "x")
	c.d.get("sub")
	if info := c.d.state("sub"); info.Size >= 0 && info.State == "cached" {
		c.t.Errorf("%s: the list of a directory is kept as an image", c.s.name)
	}
}

// TestWebServers has real servers as origins, and checks the table of
// docs/origins.md: what is promised there is what they do.
func TestWebServers(t *testing.T) {
	promised := webTable(t)
	for _, s := range webServers {
		t.Run(s.name, func(t *testing.T) {
			c := &webCase{t: t, s: s, root: openDir(t), at: time.Now().Add(-time.Hour).Truncate(time.Second)}
			origin := directoryOrigin(c.root)
			if s.program != "" {
				c.pass = newCutter(t, s.start(t, c.root))
				origin = fmt.Sprintf("origin \"http\" \"web\" {\n  endpoint = \"http://%s/\"\n  allow_redirects = true\n  revalidate_after = \"0s\"\n  negative_ttl = \"0s\"\n}\n", c.pass.Addr())
			}
			c.d = start(t, setup{origin: origin})
			if row := c.row(); !slices.Equal(row, promised[s.name]) {
				t.Errorf("what was seen:\n| %s |\nwhat docs/origins.md says:\n| %s |", strings.Join(row, " | "), strings.Join(promised[s.name], " | "))
			}
			c.listing()
			delete(promised, s.name)
		})
	}
	for name := range promised {
		if !slices.ContainsFunc(webServers, func(s webServer) bool { return s.name == name }) {
			t.Errorf("docs/origins.md promises something for %q, which is not tried", name)
		}
	}
}

// webTable reads the rows of the table below "What is seen", by their first cell.
func webTable(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/origins.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "### What is seen\n")
	if !found {
		t.Fatal("docs/origins.md has no heading \"What is seen\"")
	}
	table, _, _ = strings.Cut(table, "\n#")
	rows := map[string][]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) > 1 && !strings.HasPrefix(cells[0], "-") && cells[0] != "origin" {
			rows[cells[0]] = cells
		}
	}
	return rows
}
