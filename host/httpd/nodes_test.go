package httpd

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/sdk"
)

// TestNodes lists who has an image, in our form and in that of Glance.
func TestNodes(t *testing.T) {
	e := newEngine()
	e.images["img"] = newContent("abc")
	one := sdk.Node{Name: "one", URL: "http://one.example", Seen: time.Unix(1, 0).UTC()}
	nodes, fail := []sdk.Node{one, {Name: "two"}}, error(nil)
	h := newService(e, func(c *Config) {
		c.Nodes = func(ctx context.Context, _ string) ([]sdk.Node, error) {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("no deadline")
			}
			return nodes, fail
		}
	}).Handler(everything)
	want := func(target string, status int, body string) {
		t.Helper()
		w := do(h, "GET", target)
		if got := strings.TrimSpace(w.Body.String()); w.Code != status || got != body && body != "" {
			t.Errorf("%s: %d %s, want %d %s", target, w.Code, got, status, body)
		}
		if w := do(h, "HEAD", target); w.Code != status {
			t.Errorf("HEAD %s: %d, want %d", target, w.Code, status)
		}
	}
	want("/v2/cache/nodes/img", 200, `["http://one.example"]`)
	want("/v1/images/img/nodes", 200, `{"nodes":[{"name":"one","url":"http://one.example","seen":"1970-01-01T00:00:01Z"},{"name":"two","seen":"0001-01-01T00:00:00Z"}]}`)
	want("/v2/cache/nodes/no%20id", 400, "")
	nodes = nil
	want("/v2/cache/nodes/img", 200, `[]`)
	want("/v2/cache/nodes/none", 404, "")
	want("/v1/images/img/nodes", 200, `{"nodes":[]}`)
	fail = fmt.Errorf("nodes: %w", sdk.ErrUnavailable)
	want("/v2/cache/nodes/img", 503, "")
	fail = fmt.Errorf("nodes: %w", sdk.ErrUnsupported)
	want("/v2/cache/nodes/img", 409, "")
	want("/v1/images/img/nodes", 501, "")
	if w := do(newService(e).Handler(Faces{Images: true}), "GET", "/v2/cache/nodes/img"); w.Code != 404 {
		t.Errorf("in public: %d", w.Code)
	}
}

// TestOnlyIfCached starts no fill for those who want none.
func TestOnlyIfCached(t *testing.T) {
	e := newEngine()
	img := newContent("abc")
	img.info.State = cache.StateCached
	e.images["img"] = img
	h := newService(e).Handler(Faces{Images: true})
	for _, test := range []struct {
		method, target, control string
		want                    int
		calls                   string
	}{
		{"GET", "/images/img", "only-if-cached", 200, "open cached img"},
		{"GET", "/images/none", "max-age=0, Only-If-Cached", 504, "open cached none"},
		{"HEAD", "/images/none", "only-if-cached", 504, ""},
		{"HEAD", "/images/img", "only-if-cached", 200, "stat img"},
		{"POST", "/images/img", "only-if-cached", 405, ""},
		{"GET", "/images/none", "no-cache", 404, "fresh open none"},
	} {
		e.calls = nil
		w := do(h, test.method, test.target, "Cache-Control", test.control)
		if got := strings.Join(e.calls, "; "); w.Code != test.want || got != test.calls {
			t.Errorf("%s %s, %s: %d after %q, want %d after %q", test.method, test.target, test.control, w.Code, got, test.want, test.calls)
		}
	}
}

// TestPeersFace serves nodes with a token the bytes of what is cached, and
// nothing else.
func TestPeersFace(t *testing.T) {
	e := newEngine()
	img := newContent("abc")
	img.info.State = cache.StateCached
	e.images["img"] = img
	h := newService(e).Handler(Faces{Images: true, Peers: true, Tokens: []string{"secret"}})
	for _, test := range []struct {
		method, target, token string
		want                  int
	}{
		{"GET", "/v1/images/img/data", "", 401},
		{"GET", "/v1/images/img/data", "Bearer wrong", 403},
		{"GET", "/v1/images/img/data", "Bearer secret", 200},
		{"HEAD", "/v1/images/img/data", "Bearer secret", 200},
		{"GET", "/v1/images/none/data", "Bearer secret", 404},
		{"DELETE", "/v1/images/img/data", "Bearer secret", 405},
		{"GET", "/v1/images/img", "Bearer secret", 404},
		{"DELETE", "/v1/images/img", "Bearer secret", 404},
		{"GET", "/v1/usage", "Bearer secret", 404},
		{"GET", "/images/img", "", 200},
	} {
		var header []string
		if test.token != "" {
			header = []string{"Authorization", test.token}
		}
		if w := do(h, test.method, test.target, header...); w.Code != test.want {
			t.Errorf("%s %s with %q: %d, want %d", test.method, test.target, test.token, w.Code, test.want)
		}
	}
}

func TestPeerMetrics(t *testing.T) {
	h := newService(newEngine(), func(c *Config) {
		c.Peers = func() origin.PeerStats { return origin.PeerStats{Transfers: 1, Bytes: 22, Failures: 333, Wrong: 4444} }
	}).Handler(Faces{Metrics: true})
	text := do(h, "GET", "/metrics").Body.String()
	for _, line := range []string{"imgcache_peer_transfers_total 1\n", "imgcache_peer_fetched_bytes_total 22\n", "imgcache_peer_failures_total 333\n", "imgcache_peer_wrong_total 4444\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("no line %q", line)
		}
	}
}
