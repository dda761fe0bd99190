package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// PeersConfig says how other nodes are asked for images. Name, Lookup and Log
// are required.
type PeersConfig struct {
	Name  string
	Self  string // URL of this node, which is not asked
	Token string // bearer token that the nodes accept

	// Lookup returns the nodes that hold an image, within LookupTimeout.
	Lookup        func(ctx context.Context, id string) ([]sdk.Node, error)
	LookupTimeout time.Duration

	AnswerTimeout time.Duration // for a connection to a node, and again for its answer
	IdleTimeout   time.Duration // how long a read of the body waits for a byte
	MinRate       int64         // bytes a second, below which a transfer breaks off; 0: no bound

	Log *slog.Logger
}

// Peers are the other nodes that share records with this one. A node that does not
// have an image takes it from a peer that has it rather than from the origin.
//
// The origin is always asked first for version, size and digest, and without a
// digest no peer is asked for bytes. So a peer cannot make other bytes pass for the
// image. A peer that has another version is skipped. A peer that does not answer,
// breaks off or sends wrong bytes is not asked again for a while.
type Peers struct {
	cfg PeersConfig

	mu    sync.Mutex
	nodes map[string]*HTTP     // by URL
	aside map[string]time.Time // until when a node is not asked, by URL
	blind bool                 // the last lookup failed

	transfers, bytes, failures, wrong atomic.Uint64
}

const (
	// peerPause is how long a node that failed is not asked: longer than a
	// restart takes.
	peerPause = 30 * time.Second
	// peerBan is how long a node that sent wrong bytes is not asked: so long
	// that somebody can look at it.
	peerBan = time.Hour
	// maxPeers bounds how many nodes are remembered: a driver may name other
	// nodes each time.
	maxPeers = 1024
	// peerTries is how many nodes are asked for an image before the origin is.
	peerTries = 2
	// peerPath is where a node serves its images, below its URL.
	peerPath = "/v1/images/"
	peerData = "/data"
)

// NewPeers returns the peers. It does not connect yet.
func NewPeers(cfg PeersConfig) *Peers {
	return &Peers{cfg: cfg, nodes: map[string]*HTTP{}, aside: map[string]time.Time{}}
}

// PeerStats are counts since the start.
type PeerStats struct {
	Transfers uint64 // that peers began
	Bytes     uint64 // that peers sent
	Failures  uint64 // nodes that did not answer, or transfers that broke off
	Wrong     uint64 // transfers whose bytes turned out to be wrong
}

// Stats returns the counts.
func (p *Peers) Stats() PeerStats {
	return PeerStats{Transfers: p.transfers.Load(), Bytes: p.bytes.Load(), Failures: p.failures.Load(), Wrong: p.wrong.Load()}
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

// Before returns an origin that asks the peers before o. id returns the id, by which
// nodes know an image, for the origin's name of it.
func (p *Peers) Before(o Origin, id func(name string) string) Origin {
	return &peered{Origin: o, peers: p, id: id}
}

// peered is an origin before which peers are asked.
type peered struct {
	Origin
	peers *Peers
	id    func(string) string
}

// Open implements [Origin]. Peers are asked only if the image is read to its end,
// since the digest cannot prove a part.
func (o *peered) Open(ctx context.Context, r Request) (Object, io.ReadCloser, error) {
	if r.Length < 0 {
		if obj, body := o.peers.open(ctx, o.Origin, o.id(r.Name), r); body != nil {
			return obj, body, nil
		}
	}
	return o.Origin.Open(ctx, r)
}

// open returns the requested bytes from a peer, or a nil body.
func (p *Peers) open(ctx context.Context, o Origin, id string, r Request) (Object, io.ReadCloser) {
	urls := p.holders(ctx, id)
	if len(urls) == 0 {
		return Object{}, nil
	}
	want, ok := describe(ctx, o, r)
	if !ok {
		return Object{}, nil // the origin returns the error, if there is one
	}
	for _, url := range urls {
		obj, body, err := p.ask(ctx, url, id, want, r)
		if err == nil {
			p.transfers.Add(1)
			return obj, &peerBody{ReadCloser: body, peers: p, url: url, id: id, ctx: ctx}
		}
		p.failed(ctx, url, err)
	}
	return Object{}, nil
}

// describe returns what the image must be, if a digest can check that. A transfer
// that is continued knows it already, so the origin may be away.
func describe(ctx context.Context, o Origin, r Request) (Object, bool) {
	if d, ok := digestOf(r.Version); ok {
		return Object{Version: r.Version, Size: -1, Digests: []Digest{d}}, true
	}
	if r.Version != "" {
		return Object{}, false
	}
	obj, err := o.Stat(ctx, r.Name)
	_, ok := digestOf(obj.Version)
	return obj, err == nil && ok
}

// holders returns the URLs of the nodes to ask, in random order, so that many nodes
// without an image do not all ask the same one.
func (p *Peers) holders(ctx context.Context, id string) (urls []string) {
	limited, cancel := context.WithTimeout(ctx, p.cfg.LookupTimeout)
	defer cancel()
	nodes, err := p.cfg.Lookup(limited, id)
	p.see(ctx, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range nodes {
		if n.URL != "" && n.URL != p.cfg.Self && time.Now().After(p.aside[n.URL]) {
			urls = append(urls, n.URL)
		}
	}
	rand.Shuffle(len(urls), func(i, j int) { urls[i], urls[j] = urls[j], urls[i] })
	return urls[:min(len(urls), peerTries)]
}

// see logs once that lookups fail, and once that they succeed again.
func (p *Peers) see(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil && !p.blind:
		p.cfg.Log.Warn("could not find out which nodes hold an image; only origins are asked", "error", err)
	case err == nil && p.blind:
		p.cfg.Log.Info("the nodes that hold an image can be found out again")
	}
	p.blind = err != nil
}

// ask asks a node for the version of an image that the origin has.
func (p *Peers) ask(ctx context.Context, url, id string, want Object, r Request) (Object, io.ReadCloser, error) {
	node, err := p.node(url)
	if err != nil {
		return Object{}, nil, err
	}
	r.Name, r.Version = id+peerData, `"`+want.Version+`"` // a node's entity tag is its version
	r.Known = nil                                         // it compares answers of the origin only
	got, body, err := Bound(node).Open(ctx, r)
	if err != nil {
		return Object{}, nil, err
	}
	if want.Size >= 0 && got.Size != want.Size {
		body.Close()
		return Object{}, nil, fmt.Errorf("%w: the peer has %d bytes; expected the %d of the origin", ErrChanged, got.Size, want.Size)
	}
	want.Size, want.URL = got.Size, got.URL
	return want, body, nil
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
		Name: p.cfg.Name, Endpoint: strings.TrimSuffix(url, "/") + peerPath, Headers: headers, Terms: Terms{MinRate: p.cfg.MinRate},
		ConnectTimeout: p.cfg.AnswerTimeout, AnswerTimeout: p.cfg.AnswerTimeout, IdleTimeout: p.cfg.IdleTimeout,
	})
	if err != nil {
		return nil, err
	}
	for other, node := range p.nodes {
		if len(p.nodes) < maxPeers {
			break
		}
		_ = node.Close() // connections in use end by themselves
		delete(p.nodes, other)
	}
	p.nodes[url] = n
	return n, nil
}

// failed notes that a node failed. It is no failure if the node no longer has the
// image, or has another version.
func (p *Peers) failed(ctx context.Context, url string, err error) {
	if ctx.Err() != nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrChanged) {
		return
	}
	p.failures.Add(1)
	p.cfg.Log.Warn("a peer failed and is not asked for a while", "peer", url, "pause", peerPause, "error", err)
	p.leave(url, peerPause)
}

// leave makes sure that a node is not asked for at least the given time.
func (p *Peers) leave(url string, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if len(p.aside) >= maxPeers {
		maps.DeleteFunc(p.aside, func(_ string, until time.Time) bool { return now.After(until) })
	}
	for other := range p.aside {
		if len(p.aside) < maxPeers {
			break
		}
		delete(p.aside, other)
	}
	if until := now.Add(pause); until.After(p.aside[url]) {
		p.aside[url] = until
	}
}

// peerBody is the body of a transfer from a peer. It is a [Suspect].
type peerBody struct {
	io.ReadCloser
	peers   *Peers
	url, id string
	ctx     context.Context
}

func (b *peerBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	b.peers.bytes.Add(uint64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		b.peers.failed(b.ctx, b.url, err)
	}
	return n, err
}

// Wrong implements [Suspect].
func (b *peerBody) Wrong() {
	b.peers.wrong.Add(1)
	b.peers.cfg.Log.Error("a peer sent wrong bytes for an image and is not asked for a while",
		"peer", b.url, "image", b.id, "pause", peerBan)
	b.peers.leave(b.url, peerBan)
}
