package origin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// cluster is an origin, and nodes that hold its image.
type cluster struct {
	t      *testing.T
	data   []byte
	digest bool         // the origin declares one
	sent   atomic.Int64 // bytes of the origin
	away   atomic.Bool  // it answers nothing but errors
	nodes  []sdk.Node
	peers  *Peers
	Origin
}

func newCluster(t *testing.T, digest bool) *cluster {
	c := &cluster{t: t, data: bytes.Repeat([]byte("image "), 50_000), digest: digest}
	far := c.serve(func(w http.ResponseWriter, r *http.Request) {
		if c.away.Load() {
			http.Error(w, "", http.StatusServiceUnavailable)
			return
		}
		if c.digest {
			w.Header().Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum(c.data))+":")
		}
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(counted{w, &c.sent}, r, "", time.Time{}, bytes.NewReader(c.data))
	})
	web, err := NewHTTP(HTTPConfig{Name: "far", Endpoint: far + "/"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Close() })
	c.peers = NewPeers(PeersConfig{
		Name: "nodes", Self: "http://self.example", Token: "secret", LookupTimeout: time.Second, AnswerTimeout: 10 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Lookup: func(_ context.Context, id string) ([]sdk.Node, error) {
			if id != "far.image" {
				return nil, fmt.Errorf("asked for %q", id)
			}
			return c.nodes, nil
		},
	})
	t.Cleanup(func() { c.peers.Close() })
	c.Origin = c.peers.Before(web, func(name string) string { return "far." + name })
	return c
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

func (c *cluster) serve(h http.HandlerFunc) (url string) {
	s := httptest.NewServer(h)
	c.t.Cleanup(s.Close)
	return s.URL
}

// counted counts the bytes of a body.
type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p))) // before a client that has got them looks
	return c.ResponseWriter.Write(p)
}

// holds adds a node that has data under a version, and returns how often it was
// asked.
func (c *cluster) holds(version string, data []byte) *atomic.Int64 {
	asked := new(atomic.Int64)
	c.nodes = append(c.nodes, sdk.Node{URL: c.serve(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path != "/v1/images/far.image/data" || r.Header.Get("Authorization") != "Bearer secret" || r.Header.Get("Cache-Control") != "only-if-cached" {
			c.t.Errorf("asked for %s with %v", r.URL.Path, r.Header)
		}
		w.Header().Set("ETag", `"`+version+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})})
	return asked
}

func (c *cluster) version() string { return fmt.Sprintf("sha256:%x", sum(c.data)) }

// get reads the image from an offset on.
func (c *cluster) get(offset int64) (string, Object, error) {
	c.t.Helper()
	obj, body, err := c.Open(c.t.Context(), Request{Name: "image", Offset: offset, Length: -1})
	if err != nil {
		return "", obj, err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return string(b), obj, err
}

func (c *cluster) want(offset, sent int64) Object {
	c.t.Helper()
	before := c.sent.Load()
	got, obj, err := c.get(offset)
	if err != nil || got != string(c.data[offset:]) {
		c.t.Errorf("from %d on: %d bytes, %v", offset, len(got), err)
	}
	if n := c.sent.Load() - before; n != sent {
		c.t.Errorf("the origin sent %d bytes, want %d", n, sent)
	}
	return obj
}

func TestPeers(t *testing.T) {
	c := newCluster(t, true)
	c.nodes = []sdk.Node{{URL: "http://self.example"}, {URL: ""}}
	asked := c.holds(c.version(), c.data)
	obj := c.want(1000, 0)
	if obj.Version != c.version() || obj.Size != int64(len(c.data)) || !strings.HasPrefix(obj.URL, c.nodes[2].URL) {
		t.Errorf("got %+v", obj)
	}
	c.want(0, 0)
	if n := asked.Load(); n != 2 {
		t.Errorf("the peer was asked %d times, want twice", n)
	}
	if s := c.peers.Stats(); s != (PeerStats{Transfers: 2, Bytes: uint64(2*len(c.data) - 1000)}) {
		t.Errorf("counted %+v", s)
	}
}

// TestPeersGoOn: what is to come of a version that is a digest needs no origin;
// of any other version, and of a part, the origin sends it.
func TestPeersGoOn(t *testing.T) {
	c := newCluster(t, true)
	c.holds(c.version(), c.data)
	for _, test := range []struct {
		Request
		away bool
		sent int64
	}{
		{Request: Request{Offset: 1000, Length: -1, Version: c.version()}, away: true},
		{Request: Request{Offset: 1000, Length: -1, Version: `"1"`}, sent: int64(len(c.data) - 1000)},
		{Request: Request{Offset: 1000, Length: 10, Version: c.version()}, sent: 10},
	} {
		test.Name = "image"
		c.away.Store(test.away)
		before := c.sent.Load()
		obj, body, err := c.Open(t.Context(), test.Request)
		if err != nil {
			t.Errorf("%+v: %v", test.Request, err)
			continue
		}
		got, err := io.ReadAll(body)
		body.Close()
		want := c.data[1000:]
		if test.Length > 0 {
			want = want[:test.Length]
		}
		if err != nil || !bytes.Equal(got, want) || obj.Version != test.Version || obj.Size != int64(len(c.data)) {
			t.Errorf("%+v: %d bytes of %+v, %v", test.Request, len(got), obj, err)
		}
		if sent := c.sent.Load() - before; sent != test.sent {
			t.Errorf("%+v: the origin sent %d bytes, want %d", test.Request, sent, test.sent)
		}
	}
}

func TestPeersWithoutDigest(t *testing.T) {
	c := newCluster(t, false)
	asked := c.holds("1", c.data)
	c.want(0, int64(len(c.data)))
	if n := asked.Load(); n != 0 {
		t.Errorf("a peer was asked %d times for what nothing can check", n)
	}
}

// TestPeersOfNoUse: whatever is wrong with the nodes, the origin's bytes come.
func TestPeersOfNoUse(t *testing.T) {
	for name, spoil := range map[string]func(*cluster){
		"none":            func(*cluster) {},
		"another version": func(c *cluster) { c.holds("sha256:00", c.data) },
		"another size":    func(c *cluster) { c.holds(c.version(), c.data[1:]) },
		"not there":       func(c *cluster) { c.nodes = []sdk.Node{{URL: "http://127.0.0.1:1"}} },
		"not answering": func(c *cluster) {
			c.nodes = []sdk.Node{{URL: c.serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}}
		},
		"not a URL": func(c *cluster) { c.nodes = []sdk.Node{{URL: "::"}} },
		"not any more": func(c *cluster) {
			c.nodes = []sdk.Node{{URL: c.serve(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusGatewayTimeout) })}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, true)
			spoil(c)
			c.want(0, int64(len(c.data)))
		})
	}
}

// TestPeerBreaksOff: the next question goes to another node.
func TestPeerBreaksOff(t *testing.T) {
	c := newCluster(t, true)
	c.nodes = []sdk.Node{{URL: c.serve(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"`+c.version()+`"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(c.data)))
		_, _ = w.Write(c.data[:100])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})}}
	if got, _, err := c.get(0); !errors.Is(err, ErrUnavailable) || len(got) != 100 {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	asked := c.holds(c.version(), c.data)
	c.want(100, 0)
	if asked.Load() != 1 {
		t.Error("the second node was not asked")
	}
	if s := c.peers.Stats(); s.Failures != 1 {
		t.Errorf("counted %+v", s)
	}
}

// TestPeerSendsWrongBytes: whoever did so once is not asked again soon.
func TestPeerSendsWrongBytes(t *testing.T) {
	c := newCluster(t, true)
	asked := c.holds(c.version(), bytes.ToUpper(c.data))
	_, body, err := c.Open(t.Context(), Request{Name: "image", Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	body.(Suspect).Wrong()
	c.want(0, int64(len(c.data)))
	if s := c.peers.Stats(); asked.Load() != 1 || s.Wrong != 1 || s.Failures != 0 {
		t.Errorf("asked %d times, counted %+v", asked.Load(), s)
	}
}

// TestPeersWithoutEnd: of however many nodes a driver names, only some are kept.
func TestPeersWithoutEnd(t *testing.T) {
	c := newCluster(t, true)
	for i := range 2 * maxPeers {
		url := fmt.Sprintf("http://node-%d.example", i)
		if _, err := c.peers.node(url); err != nil {
			t.Fatal(err)
		}
		c.peers.leave(url, time.Hour)
		if c.peers.nodes[url] == nil || c.peers.aside[url].IsZero() {
			t.Fatalf("the newest node, %s, is not kept", url)
		}
	}
	if nodes, aside := len(c.peers.nodes), len(c.peers.aside); nodes != maxPeers || aside != maxPeers {
		t.Errorf("%d nodes and %d that are left alone are kept, want %d", nodes, aside, maxPeers)
	}
}

// TestPeersAreForgiven: those who failed are asked again after a while. That
// nobody knows them is said once.
func TestPeersAreForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var fail error
		p := NewPeers(PeersConfig{
			LookupTimeout: time.Second, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Lookup: func(ctx context.Context, _ string) ([]sdk.Node, error) {
				if _, ok := ctx.Deadline(); !ok {
					t.Error("no deadline")
				}
				return []sdk.Node{{URL: "http://a.example"}, {URL: "http://b.example"}}, fail
			},
		})
		peerBody := &peerBody{peers: p, url: "http://a.example"}
		peerBody.Wrong()
		p.failed(t.Context(), "http://a.example", ErrUnavailable)
		p.failed(t.Context(), "http://b.example", ErrUnavailable)
		for _, test := range []struct {
			pass time.Duration
			want int
		}{{0, 0}, {peerPause + time.Second, 1}, {peerBan, 2}} {
			time.Sleep(test.pass)
			if n := len(p.holders(t.Context(), "image")); n != test.want {
				t.Errorf("%d nodes after %v more, want %d", n, test.pass, test.want)
			}
		}
		log.Reset()
		for _, fail = range []error{sdk.ErrUnavailable, sdk.ErrUnavailable, nil, nil} {
			p.holders(t.Context(), "image")
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines of one outage: %s", n, &log)
		}
	})
}
