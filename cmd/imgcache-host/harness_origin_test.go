package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// pattern is the content that all test images are made of. Its length is a
// prime, so that no block of an image equals another one.
var pattern = sync.OnceValue(func() []byte {
	b := make([]byte, 1048573)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
})

// testImage is an image whose bytes are computed where they are needed. It
// begins with its id.
type testImage struct {
	id   string
	size int64
	seed int64 // where in the pattern it begins
	sum  func() [sha256.Size]byte
}

func newImage(id string, size int64) *testImage {
	h := sha256.Sum256([]byte(id))
	i := &testImage{id: id, size: size, seed: int64(binary.LittleEndian.Uint32(h[:]))}
	i.sum = sync.OnceValue(func() [sha256.Size]byte {
		h := sha256.New()
		_, _ = io.Copy(h, i.reader())
		return [sha256.Size]byte(h.Sum(nil))
	})
	return i
}

func (i *testImage) reader() *io.SectionReader { return io.NewSectionReader(i, 0, i.size) }

// ReadAt implements [io.ReaderAt].
func (i *testImage) ReadAt(p []byte, off int64) (int, error) {
	if off >= i.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > i.size-off
	p = p[:min(int64(len(p)), i.size-off)]
	for n := 0; n < len(p); {
		n += copy(p[n:], pattern()[(i.seed+off+int64(n))%int64(len(pattern())):])
	}
	if off < int64(len(i.id)) {
		copy(p, i.id[off:])
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

// bytes returns the bytes [from, to).
func (i *testImage) bytes(from, to int64) []byte {
	b := make([]byte, to-from)
	_, _ = i.ReadAt(b, from)
	return b
}

// hex returns the SHA-256 in hexadecimal digits.
func (i *testImage) hex() string { sum := i.sum(); return hex.EncodeToString(sum[:]) }

// check says what is wrong with an answer that should be the whole image.
func (i *testImage) check(a answer) error {
	switch {
	case a.err != nil:
		return fmt.Errorf("%s: after %d bytes: %w", i.id, len(a.body), a.err)
	case a.status != http.StatusOK:
		return fmt.Errorf("%s: status %d: %.200s", i.id, a.status, a.body)
	case int64(len(a.body)) != i.size:
		return fmt.Errorf("%s: %d bytes, want %d", i.id, len(a.body), i.size)
	case sha256.Sum256(a.body) != i.sum():
		return fmt.Errorf("%s: the bytes are others", i.id)
	}
	return nil
}

// testOrigin is an HTTP server with images that misbehave as told.
type testOrigin struct {
	*httptest.Server
	mu     sync.Mutex
	images map[string]*offered
	asked  []string // what was asked for by GET, in that order
}

// newOrigin starts an origin, which ends with the test.
func newOrigin(t *testing.T) *testOrigin {
	o := &testOrigin{images: map[string]*offered{}}
	o.Server = httptest.NewUnstartedServer(o)
	o.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10) // so that what was sent was nearly received
		return ctx
	}
	o.Start()
	t.Cleanup(func() {
		o.mu.Lock()
		for _, f := range o.images {
			f.release()
		}
		o.mu.Unlock()
		o.CloseClientConnections()
		o.Close()
	})
	return o
}

// block is the origin in a configuration. More are further lines of it.
func (o *testOrigin) block(more ...string) string {
	return fmt.Sprintf("origin \"http\" \"far\" {\n  endpoint = %q\n  %s\n}\n", o.URL, strings.Join(more, "\n  "))
}

// add offers an image of a size.
func (o *testOrigin) add(id string, size int64) *offered {
	f := &offered{testImage: newImage(id, size), etag: `"` + id + `-1"`, gate: -1, cut: -1, changed: make(chan struct{})}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.images[id] = f
	return f
}

// gets returns what was asked for by GET, in that order.
func (o *testOrigin) gets() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.asked)
}

// ServeHTTP implements [http.Handler].
func (o *testOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, "/")
	o.mu.Lock()
	f := o.images[id]
	if r.Method == http.MethodGet {
		o.asked = append(o.asked, id)
	}
	o.mu.Unlock()
	if f == nil {
		http.NotFound(w, r)
		return
	}
	f.serve(w, r)
}

// offered is an image of an origin, and how that treats it.
type offered struct {
	*testImage

	mu      sync.Mutex
	etag    string
	digest  string // Repr-Digest
	rate    int64  // bytes a second; 0: no limit
	gate    int64  // no byte from here on is sent for now; -1: no gate
	cut     int64  // the connection breaks here, and then the origin refuses; -1: never
	refuses bool
	changed chan struct{} // closed and replaced when the gate opens
	gets    int
	heads   int
	sent    int64
}

// set changes how the image is treated.
func (f *offered) set(change func(*offered)) *offered {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
	return f
}

// declare sends the digest, which is that of other if it is not nil.
func (f *offered) declare(other *testImage) *offered {
	if other == nil {
		other = f.testImage
	}
	sum := other.sum()
	return f.set(func(f *offered) { f.digest = "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":" })
}

// gateAt lets no byte from n on out until release.
func (f *offered) gateAt(n int64) *offered { return f.set(func(f *offered) { f.gate = n }) }

// release opens the gate.
func (f *offered) release() {
	f.set(func(f *offered) {
		f.gate = -1
		close(f.changed)
		f.changed = make(chan struct{})
	})
}

// cutAt breaks the connection at byte n and refuses from then on.
func (f *offered) cutAt(n int64) *offered { return f.set(func(f *offered) { f.cut = n }) }

// refuse answers nothing but errors, or as usual again.
func (f *offered) refuse(refuses bool) *offered {
	return f.set(func(f *offered) { f.refuses, f.cut = refuses, -1 })
}

// limit sends so many bytes a second.
func (f *offered) limit(rate int64) *offered { return f.set(func(f *offered) { f.rate = rate }) }

// counts returns the requests and the bytes of bodies so far.
func (f *offered) counts() (gets, heads int, sent int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gets, f.heads, f.sent
}

func (f *offered) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	if r.Method == http.MethodHead {
		f.heads++
	} else {
		f.gets++
	}
	refuses, etag, digest := f.refuses, f.etag, f.digest
	f.mu.Unlock()
	if refuses {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	if digest != "" {
		w.Header().Set("Repr-Digest", digest)
	}
	content := &position{SectionReader: f.reader()}
	http.ServeContent(&choke{ResponseWriter: w, r: r, f: f, content: content}, r, "", time.Time{}, content)
}

// position remembers where the last read began.
type position struct {
	*io.SectionReader
	at int64
}

func (p *position) Read(b []byte) (int, error) {
	p.at, _ = p.SectionReader.Seek(0, io.SeekCurrent)
	return p.SectionReader.Read(b)
}

// choke sends the body of a response as the image is treated.
type choke struct {
	http.ResponseWriter
	r       *http.Request
	f       *offered
	content *position
}

func (c *choke) Write(p []byte) (int, error) {
	if c.Header().Get("Content-Length") == "" {
		return c.ResponseWriter.Write(p) // an error's text
	}
	at, total := c.content.at, 0
	for len(p) > 0 {
		n, err := c.await(at, len(p))
		if err != nil {
			return total, err
		}
		n, err = c.ResponseWriter.Write(p[:n])
		c.f.set(func(f *offered) { f.sent += int64(n) })
		if err != nil {
			return total, err
		}
		at, total, p = at+int64(n), total+n, p[n:]
	}
	return total, nil
}

// await returns how many of n bytes at an offset may be sent, once any may.
func (c *choke) await(at int64, n int) (int, error) {
	for {
		c.f.mu.Lock()
		gate, cut, rate, changed := c.f.gate, c.f.cut, c.f.rate, c.f.changed
		if cut >= 0 && at >= cut {
			c.f.refuses = true
		}
		c.f.mu.Unlock()
		if rate > 0 {
			n = min(n, 64<<10)
			time.Sleep(time.Duration(n) * time.Second / time.Duration(rate))
		}
		switch {
		case cut >= 0 && at >= cut:
			panic(http.ErrAbortHandler)
		case cut >= 0:
			n = int(min(int64(n), cut-at))
		}
		if gate < 0 || at < gate {
			if gate >= 0 {
				n = int(min(int64(n), gate-at))
			}
			return n, nil
		}
		if err := http.NewResponseController(c.ResponseWriter).Flush(); err != nil {
			return 0, err
		}
		select {
		case <-changed:
		case <-c.r.Context().Done():
			return 0, c.r.Context().Err()
		}
	}
}

// errOther says that a download is not the image.
var errOther = errors.New("the bytes are others")

// follow reads a body and compares it with the image as it comes, which costs
// less than to keep it. Each is called after each read with the bytes so far
// and may end it with an error. It returns nil after the whole image alone.
func (i *testImage) follow(body io.Reader, each func(n int64) error) error {
	buf := make([]byte, 256<<10)
	for at := int64(0); ; {
		n, err := body.Read(buf)
		if !i.equal(buf[:n], at) {
			return fmt.Errorf("%w at %d", errOther, at)
		}
		at += int64(n)
		if n > 0 && each != nil {
			if err := each(at); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && at == i.size:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%w: a clean end after %d of %d bytes", errOther, at, i.size)
		case err != nil:
			return err
		}
	}
}

// equal reports whether p are the bytes of the image at an offset.
func (i *testImage) equal(p []byte, off int64) bool {
	if off+int64(len(p)) > i.size {
		return false
	}
	for len(p) > 0 {
		want := pattern()[(i.seed+off)%int64(len(pattern())):]
		if off < int64(len(i.id)) {
			want = []byte(i.id[off:])
		}
		n := min(len(p), len(want))
		// bytes.Equal would tell the race detector of each byte.
		if unsafe.String(&p[0], n) != unsafe.String(&want[0], n) {
			return false
		}
		off, p = off+int64(n), p[n:]
	}
	return true
}
