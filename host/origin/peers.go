package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// PeersConfig says how other nodes are asked for images. Name and Lookup are
// required.
type PeersConfig struct {
	Name  string
	Self  string // URL of this node, which is not asked
	Token string // bearer token that the nodes accept

	// Lookup returns the nodes that hold an image, within LookupTimeout.
	Lookup        func(ctx context.Context, id string) ([]sdk.Node, error)
	LookupTimeout time.Duration

	ConnectTimeout time.Duration // until a connection to a node is made
	IdleTimeout    time.Duration // without a byte, while one is waited for

	Log *slog.Logger
}

// Peers are the other nodes that share records with this one. A node that
// misses an image takes it from one that holds it rather than from the origin.
//
// What an image is, only the origin says: it is asked for version, size and
// digest first, and without a digest no peer is asked for bytes. A peer that
// says it has another version is passed over; one that breaks off, or does not
// answer, is left alone for a while.
type Peers struct {
	cfg PeersConfig

	mu      sync.Mutex
	nodes   map[string]*HTTP     // by URL
	aside   map[string]time.Time // until when a node is left alone, by URL
	brought map[string]time.Time // when a peer last sent all of an image, by id

	bytes     atomic.Uint64
	transfers atomic.Uint64
	failures  atomic.Uint64
}

const (
	// peerPause is how long a node that failed is left alone: longer than a
	// restart.
	peerPause = 30 * time.Second
	// peerTries is how many nodes are asked for an image before the origin is.
	peerTries = 2
	// peerDoubt is for how long an image that came from a peer is fetched from
	// the origin when it is wanted anew: its bytes were wrong, or it left the
	// cache at once.
	peerDoubt = 10 * time.Minute
	// peerPath is where a node serves what it has, behind its URL.
	peerPath = "/v1/images/"
	peerData = "/data"
)

// NewPeers returns the peers. It connects to nobody yet.
func NewPeers(cfg PeersConfig) *Peers {
	return &Peers{cfg: cfg, nodes: map[string]*HTTP{}, aside: map[string]time.Time{}, brought: map[string]time.Time{}}
}

// PeerStats are counts since the start.
type PeerStats struct {
	Transfers uint64 // that peers began
	Bytes     uint64 // that they sent
	Failures  uint64 // of nodes: no answer, or a transfer that broke off
}

// Stats returns the counts.
func (p *Peers) Stats() PeerStats {
	return PeerStats{Transfers: p.transfers.Load(), Bytes: p.bytes.Load(), Failures: p.failures.Load()}
}

// Close closes the connections that are not in use.
func (p *Peers) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		_ = n.Close() // never fails
	}
	return nil
}

// Before returns o with the peers in front. id makes the id of an image, by
// which nodes know it, from the origin's name of it.
func (p *Peers) Before(o Origin, id func(name string) string) Origin {
	return &peered{Origin: o, peers: p, id: id}
}

// peered is an origin that peers relieve.
type peered struct {
	Origin
	peers *Peers
	id    func(string) string
}

// Open implements [Origin].
func (o *peered) Open(ctx context.Context, r Request) (Object, io.ReadCloser, error) {
	if obj, body := o.peers.open(ctx, o.Origin, o.id(r.Name), r); body != nil {
		return obj, body, nil
	}
	return o.Origin.Open(ctx, r)
}

// open returns the bytes asked for from a peer, or no body.
func (p *Peers) open(ctx context.Context, o Origin, id string, r Request) (Object, io.ReadCloser) {
	if r.Offset == 0 && p.doubted(id) {
		return Object{}, nil
	}
	urls := p.holders(ctx, id)
	if len(urls) == 0 {
		return Object{}, nil
	}
	obj, err := o.Stat(ctx, r.Name)
	if err != nil || len(obj.Digests) == 0 || obj.Size < 0 || r.Version != "" && r.Version != obj.Version {
		return Object{}, nil // whatever it is, the origin says it best itself
	}
	for _, url := range urls {
		body, err := p.ask(ctx, url, id, obj, r)
		if err == nil {
			p.transfers.Add(1)
			obj.URL = url + peerPath + id + peerData
			return obj, &peerBody{ReadCloser: body, peers: p, url: url, id: id, ctx: ctx}
		}
		p.failed(ctx, url, err)
	}
	return Object{}, nil
}

// holders returns the URLs of the nodes that are to be asked.
func (p *Peers) holders(ctx context.Context, id string) (urls []string) {
	limited, cancel := context.WithTimeout(ctx, p.cfg.LookupTimeout)
	defer cancel()
	nodes, err := p.cfg.Lookup(limited, id)
	if err != nil {
		p.cfg.Log.Debug("peers are not known", "image", id, "error", err)
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range nodes {
		if n.URL != "" && n.URL != p.cfg.Self && time.Now().After(p.aside[n.URL]) && len(urls) < peerTries {
			urls = append(urls, n.URL)
		}
	}
	return urls
}

// ask asks a node for an image as it is at the origin.
func (p *Peers) ask(ctx context.Context, url, id string, want Object, r Request) (io.ReadCloser, error) {
	node, err := p.node(url)
	if err != nil {
		return nil, err
	}
	r.Name, r.Version = id+peerData, ""
	got, body, err := node.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	if got.Size == want.Size && (got.Version == want.Version || got.Version == `"`+want.Version+`"`) {
		return body, nil
	}
	body.Close()
	return nil, fmt.Errorf("%w: it has version %s of %d bytes, the origin %s of %d", ErrChanged, got.Version, got.Size, want.Version, want.Size)
}

func (p *Peers) node(url string) (*HTTP, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.nodes[url]; n != nil {
		return n, nil
	}
	headers := map[string]string{"Cache-Control": "only-if-cached"}
	if p.cfg.Token != "" {
		headers["Authorization"] = "Bearer " + p.cfg.Token
	}
	n, err := NewHTTP(HTTPConfig{
		Name: p.cfg.Name, Endpoint: url + peerPath, Headers: headers,
		ConnectTimeout: p.cfg.ConnectTimeout, IdleTimeout: p.cfg.IdleTimeout,
	})
	if err == nil {
		p.nodes[url] = n
	}
	return n, err
}

// failed notes what a node answered. One that merely has the image no more, or
// another version, is as good as before.
func (p *Peers) failed(ctx context.Context, url string, err error) {
	if ctx.Err() != nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrChanged) {
		return
	}
	p.failures.Add(1)
	p.cfg.Log.Warn("a peer is left alone for a while", "peer", url, "pause", peerPause, "error", err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.aside[url] = time.Now().Add(peerPause)
}

// done notes that a peer sent all of an image.
func (p *Peers) done(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for other, at := range p.brought {
		if time.Since(at) > peerDoubt {
			delete(p.brought, other)
		}
	}
	p.brought[id] = time.Now()
}

func (p *Peers) doubted(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.brought[id]
	return ok && time.Since(at) <= peerDoubt
}

// peerBody is what a peer sends.
type peerBody struct {
	io.ReadCloser
	peers   *Peers
	url, id string
	ctx     context.Context
}

func (b *peerBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	b.peers.bytes.Add(uint64(n))
	switch {
	case errors.Is(err, io.EOF):
		b.peers.done(b.id)
	case err != nil:
		b.peers.failed(b.ctx, b.url, err)
	}
	return n, err
}
