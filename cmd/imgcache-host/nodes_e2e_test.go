package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
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
			writeFile(t, token, "a secret of the nodes\n")
			origin := newOrigin(t)
			const size = 5 << 20
			a, b := origin.add("a", size).declare(nil), origin.add("b", size).declare(nil)
			undeclared := origin.add("undeclared", size)

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

			fetch(one, undeclared, size)
			held("undeclared", firstURL)
			fetch(two, undeclared, size) // nothing could tell whether a peer's bytes are right

			one.kill9() // what it holds is listed until it is stale, and cannot be had
			if err := two.api.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			fetch(two, a, size)
		})
	}
}
