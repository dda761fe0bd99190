package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
)

// centralNode is the setup of a node that shares its records in a database, and
// asks the others, and the URL where these find it.
func centralNode(t *testing.T, name, dsn, token, origin string) (s setup, url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	url = "http://" + address
	return setup{
		origin: origin,
		node:   fmt.Sprintf("name = %q\n  advertise = %q", name, url),
		cache:  "driver = driver.shared",
		more: fmt.Sprintf(`
driver "centraldb" "shared" {
  config {
    dsn = %q
  }
}
listener "tcp" "nodes" {
  address    = %q
  serve      = ["peers"]
  token_file = %[3]q
}
origin "peer" "nodes" {
  token_file     = %[3]q
  lookup_timeout = "10s" # the machine of a test may be busy
}
`, dsn, address, token),
	}, url
}

// TestNodes lets two daemons share a database: each lists the other's images,
// and takes what it misses from the other, so that the origin sends each image
// once.
func TestNodes(t *testing.T) {
	for _, database := range []func(testing.TB) *dbtest.Server{dbtest.PostgreSQL, dbtest.MariaDB} {
		server := database(t)
		t.Run(server.Name(), func(t *testing.T) {
			dsn := server.Database(t)
			token := filepath.Join(t.TempDir(), "token")
			writeSecret(t, token, "a secret of the nodes\n")
			origin := newOrigin(t)
			const size = 5 << 20
			a, b := origin.add("a", size).declare(nil), origin.add("b", size).declare(nil)
			undeclared := origin.add("undeclared", size)
			origin.add("elsewhere", size)

			first, firstURL := centralNode(t, "one", dsn, token, origin.block())
			second, secondURL := centralNode(t, "two", dsn, token, origin.block())
			one, two := start(t, first), start(t, second)
			fetch := func(d *daemon, img *offered, sent int64) {
				t.Helper()
				_, _, before := img.counts()
				if err := img.check(d.get(img.id)); err != nil {
					t.Fatal(err)
				}
				if _, _, after := img.counts(); after-before != sent {
					t.Errorf("the origin sent %d bytes of %s, want %d", after-before, img.id, sent)
				}
				d.waitState(img.id, "cached")
			}
			held := func(id string, want ...string) {
				t.Helper()
				for _, d := range []*daemon{one, two} {
					d.eventually(fmt.Sprintf("%s is listed at %v", id, want), func() bool {
						resp, err := d.admin.Get("http://d/v2/cache/nodes/" + id)
						if err != nil {
							t.Fatal(err)
						}
						defer resp.Body.Close()
						var urls []string
						if resp.StatusCode == http.StatusOK {
							if err := json.NewDecoder(resp.Body).Decode(&urls); err != nil {
								t.Fatal(err)
							}
						}
						slices.Sort(urls)
						return slices.Equal(urls, want)
					})
				}
			}
			both := []string{firstURL, secondURL}
			slices.Sort(both)

			fetch(one, a, size)
			held("a", firstURL)
			fetch(two, a, 0)
			held("a", both...)
			fetch(two, b, size)
			held("b", secondURL)
			fetch(one, b, 0)
			held("b", both...)

			code, out, errs := command(t, "--socket", one.socket, "nodes", "b")
			if code != 0 || !strings.Contains(out, "\none ") || !strings.Contains(out, secondURL) {
				t.Errorf("nodes ended with %d: %s%s", code, out, errs)
			}

			fetch(one, undeclared, size)
			held("undeclared", firstURL)
			fetch(two, undeclared, size) // nothing could tell whether a peer's bytes are right

			if got := two.do(http.MethodGet, "none", "Cache-Control", "only-if-cached"); got.status != http.StatusGatewayTimeout {
				t.Errorf("only-if-cached: status %d", got.status)
			}
			for id, want := range map[string]int{"nobody-has-it": http.StatusNotFound, "no//name": http.StatusBadRequest, "elsewhere": http.StatusOK} {
				if got := two.call(http.MethodGet, "/v2/cache/nodes/"+url.PathEscape(id), ""); got.status != want {
					t.Errorf("nodes of %q: status %d: %s", id, got.status, got.body)
				}
			}

			one.kill9() // what it holds is listed until it is stale, and cannot be had
			if err := two.api.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			fetch(two, a, size)
		})
	}
}

// badPeer stands before a node and spoils what it sends.
type badPeer struct {
	node *httputil.ReverseProxy
	how  atomic.Pointer[func(http.ResponseWriter) http.ResponseWriter]
}

func (b *badPeer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.node.ServeHTTP((*b.how.Load())(w), r)
}

// spoiler passes n bytes of a body on, then does something to the rest.
type spoiler struct {
	http.ResponseWriter
	n    int
	then func(p []byte) []byte
}

func (s *spoiler) Write(p []byte) (int, error) {
	good := p[:min(len(p), s.n)]
	s.n -= len(good)
	if bad := p[len(good):]; len(bad) > 0 {
		_, err := s.ResponseWriter.Write(append(slices.Clone(good), s.then(bad)...))
		return len(p), err
	}
	return s.ResponseWriter.Write(p)
}

// TestNodesMisbehave puts a node between another and its peer that breaks
// transfers off: the origin sends the rest. Then it sends wrong bytes: nobody
// takes them for the image, and it is not asked again.
func TestNodesMisbehave(t *testing.T) {
	dsn := dbtest.PostgreSQL(t).Database(t)
	token := filepath.Join(t.TempDir(), "token")
	writeSecret(t, token, "a secret of the nodes\n")
	origin := newOrigin(t)
	const size = 5 << 20
	a, b := origin.add("a", size).declare(nil), origin.add("b", size).declare(nil)

	first, firstURL := centralNode(t, "one", dsn, token, origin.block())
	to, err := url.Parse(firstURL)
	if err != nil {
		t.Fatal(err)
	}
	peer := &badPeer{node: httputil.NewSingleHostReverseProxy(to)}
	front := httptest.NewServer(peer)
	t.Cleanup(front.Close)
	first.node = strings.Replace(first.node, firstURL, front.URL, 1)
	second, _ := centralNode(t, "two", dsn, token, origin.block())
	one, two := start(t, first), start(t, second)
	for _, img := range []*offered{a, b} {
		if err := img.check(one.get(img.id)); err != nil {
			t.Fatal(err)
		}
		two.eventually("node one holds "+img.id, func() bool {
			nodes, err := two.api.Nodes(t.Context(), img.id)
			if err != nil {
				t.Fatal(err)
			}
			return len(nodes) == 1
		})
	}
	spoil := func(then func([]byte) []byte) {
		how := func(w http.ResponseWriter) http.ResponseWriter {
			return &spoiler{ResponseWriter: w, n: 3 << 20, then: then}
		}
		peer.how.Store(&how)
	}
	sent := func(img *offered, want int64) {
		t.Helper()
		if _, _, n := img.counts(); n != size+want { // the first node had all of it
			t.Errorf("the origin sent %d bytes of %s, want %d", n-size, img.id, want)
		}
	}

	spoil(func([]byte) []byte { panic(http.ErrAbortHandler) })
	if err := a.check(two.get("a")); err != nil {
		t.Error(err)
	}
	if _, _, n := a.counts(); n < size+1 || n >= 2*size {
		t.Errorf("the origin sent %d bytes of a, want the rest", n-size)
	}

	two.stop() // it would leave the other alone for a while
	two.restart()
	spoil(func(p []byte) []byte { return make([]byte, len(p)) })
	if got := two.get("b"); got.err == nil {
		t.Errorf("wrong bytes came as a whole: %d bytes, status %d", len(got.body), got.status)
	}
	sent(b, 0)
	if err := b.check(two.get("b")); err != nil {
		t.Error(err)
	}
	sent(b, size)
	if text := string(two.call(http.MethodGet, "/metrics", "").body); !strings.Contains(text, "\nimgcache_peer_wrong_total 1\n") {
		t.Error("the metrics do not count wrong bytes")
	}
}
