package main

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
)

// image is a file that all servers send.
type image struct {
	name string // below each path of the origin, with a hyphen and any text
	path string
	size int64
	sums []uint32 // CRC32C by block
}

// stage is everything that stands through the hits and the misses.
type stage struct {
	big, small *image
	bin        string // directory of imgcache-host and its plugins, for whoever runs them
	originLog  string // path of the log of requests
	origin     *server
	host       *server
	static     *server // with tcp_nopush on, as usual
	unpushed   *server // with tcp_nopush off
	proxy      *server
	varnish    *server
	bare       *server
}

// stage starts the servers. What was started is to be stopped even after an
// error of the caller's.
func (p *plan) stage() (*stage, error) {
	for _, name := range []string{"nginx", "varnishd"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, fmt.Errorf("%w: run scripts/setup bench", err)
		}
	}
	s := &stage{bin: filepath.Join(p.dir, "bin")}
	if err := errors.Join(os.Chmod(p.dir, 0o755), p.copyPrograms(s.bin)); err != nil {
		return nil, err
	}
	var err error
	if s.big, err = makeImage(p.dir, "big", p.image); err != nil {
		return nil, err
	}
	if s.small, err = makeImage(p.dir, "small", p.cold); err != nil {
		return nil, err
	}
	if err := s.start(p); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *stage) start(p *plan) (err error) {
	big, err := s.big.locations()
	if err != nil {
		return err
	}
	small, err := s.small.locations()
	if err != nil {
		return err
	}
	s.originLog = filepath.Join(p.dir, "origin", "requests")
	root := "root " + p.dir + "; "
	if s.origin, err = prepare("origin", p.dir, nginx("on", `log_format requests "$request_method $request_uri $body_bytes_sent";`,
		root+"access_log DIR/requests requests; "+big+small)); err != nil {
		return err
	}
	origins := ""
	for _, digest := range []string{"sha256", "md5"} {
		origins += fmt.Sprintf("origin \"http\" %q {\n  endpoint = \"http://%s/%[1]s/\"\n  prefix = \"/%[1]s/\"\n}\n", digest, s.origin.addr)
	}
	for _, start := range []struct {
		to   **server
		name string
		how  func(*server) error
	}{
		{&s.host, "imgcache-host", imgcache(s.bin, origins)},
		{&s.static, "nginx", nginx("on", "", root)},
		{&s.unpushed, "nginx, tcp_nopush off", nginx("off", "", root)},
		{&s.proxy, "nginx proxy_cache", nginx("on",
			"proxy_cache_path DIR/cache levels=1:2 keys_zone=images:10m max_size=16g inactive=1h use_temp_path=off;",
			`location / {
      proxy_pass http://`+s.origin.addr+`;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache images;
      proxy_cache_valid 200 1h;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 60s;
      proxy_cache_lock_age 60s;
    }`)},
		{&s.varnish, "Varnish", varnish(s.origin.addr, 3*p.image/2)},
		{&s.bare, "bare sendfile in Go", bare(filepath.Join(s.bin, "bench"), s.big.path)},
	} {
		if *start.to, err = prepare(start.name, p.dir, start.how); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) stop() {
	for _, one := range []*server{s.bare, s.varnish, s.proxy, s.unpushed, s.static, s.host, s.origin} {
		if one != nil && one.process != nil {
			one.process.stop()
		}
	}
}

// copyPrograms copies what is run to where every user may run it.
func (p *plan) copyPrograms(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.CopyFS(filepath.Join(to, "plugins"), os.DirFS(filepath.Join(p.bin, "plugins"))),
		copyProgram(filepath.Join(p.bin, "imgcache-host"), filepath.Join(to, "imgcache-host")),
		copyProgram(self, filepath.Join(to, "bench")),
	)
}

func copyProgram(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// makeImage writes an image of random bytes.
func makeImage(dir, name string, size int64) (*image, error) {
	i := &image{name: name, path: filepath.Join(dir, name), size: size}
	f, err := os.Create(i.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	random := rand.NewChaCha8([32]byte{1})
	for b := make([]byte, block); size > 0; size -= int64(len(b)) {
		b = b[:min(block, size)]
		_, _ = random.Read(b) // never fails
		i.sums = append(i.sums, crc32.Checksum(b, castagnoli))
		if _, err := f.Write(b); err != nil {
			return nil, err
		}
	}
	return i, f.Close()
}

// locations returns the lines of nginx with which the origin serves the image
// under any number of names, each time with another digest declared.
func (i *image) locations() (string, error) {
	f, err := os.Open(i.path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sha, md := sha256.New(), md5.New()
	if _, err := io.Copy(io.MultiWriter(sha, md), f); err != nil {
		return "", err
	}
	return fmt.Sprintf(`
    location /sha256/%[1]s- { add_header Repr-Digest "sha-256=:%[2]s:"; try_files /%[1]s =404; }
    location /md5/%[1]s- { add_header Content-MD5 "%[3]s"; try_files /%[1]s =404; }
`, i.name, base64.StdEncoding.EncodeToString(sha.Sum(nil)), hex.EncodeToString(md.Sum(nil))), nil
}
