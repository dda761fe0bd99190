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

	AnswerTimeout time.Duration // until a connection to a node is made, and again until it answers
	IdleTimeout   time.Duration // without a byte, while one is waited for
	MinRate       int64         // bytes a second, below which a transfer breaks off; 0: no bound

	Log *slog.Logger
}

// Peers are the other nodes that share records with this one. A node that
// misses an image takes it from one that holds it rather than from the origin.
//
// What an image is, only the origin says: it is asked for version, size and
// digest first, and without a digest no peer is asked for bytes. So nothing
// that a peer sends passes for the image unless it is. A peer that has another
// version is passed over; one that breaks off, does not answer, or sent wrong
// bytes is left alone for a while.
type Peers struct {
	cfg PeersConfig

	mu    sync.Mutex
	nodes map[string]*HTTP     // by URL
	aside map[string]time.Time // until when a node is left alone, by URL
	blind bool                 // the last lookup failed

	transfers, bytes, failures, wrong atomic.Uint64
}

const (
	// peerPause is how long a node that failed is left alone: longer than a
	// restart.
	peerPause = 30 * time.Second
	// peerBan is how long one is left alone that sent wrong bytes: as long as
	// somebody needs to look at it.
	peerBan = time.Hour
	// maxPeers is of how many nodes is kept how they are reached, and which are
	// left alone: a driver may name others each time.
	maxPeers = 1024
	// peerTries is how many nodes are asked for an image before the origin is.
	peerTries = 2
	// peerPath is where a node serves what it has, behind its URL.
	peerPath = "/v1/images/"
	peerData = "/data"
)

// NewPeers returns the peers. It connects to nobody yet.
func NewPeers(cfg PeersConfig) *Peers {
	return &Peers{cfg: cfg, nodes: map[string]*HTTP{}, aside: map[string]time.Time{}}
}

// PeerStats are counts since the start.
type PeerStats struct {
	Transfers uint64 // that peers began
	Bytes     uint64 // that they sent
	Failures  uint64 // of nodes: no answer, or a transfer that broke off
	Wrong     uint64 // transfers of which the bytes turned out to be wrong
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

// Open implements [Origin]. Only what is read to the end of the image is taken
// from a peer: the digest says nothing of a part.
func (o *peered) Open(ctx context.Context, r Request) (Object, io.ReadCloser, error) {
	if r.Length < 0 {
		if obj, body := o.peers.open(ctx, o.Origin, o.id(r.Name), r); body != nil {
			return obj, body, nil
		}
	}
	return o.Origin.Open(ctx, r)
}

// open returns the bytes asked for from a peer, or no body.
func (p *Peers) open(ctx context.Context, o Origin, id string, r Request) (Object, io.ReadCloser) {
	urls := p.holders(ctx, id)
	if len(urls) == 0 {
		return Object{}, nil
	}
	want, ok := describe(ctx, o, r)
	if !ok {
		return Object{}, nil // whatever it is, the origin says it best itself
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

// describe returns what the image is, if that can be checked. A transfer that
// goes on knows it from its beginning, so that the origin may be away.
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

// holders returns the URLs of the nodes that are to be asked, in any order, so
// that many nodes which miss an image do not all ask the same one.
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

// see says once that lookups fail, and once that they succeed again.
func (p *Peers) see(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil && !p.blind:
		p.cfg.Log.Warn("nobody says which nodes hold an image; origins are asked alone", "error", err)
	case err == nil && p.blind:
		p.cfg.Log.Info("the nodes that hold an image are known again")
	}
	p.blind = err != nil
}

// ask asks a node for an image as it is at the origin.
func (p *Peers) ask(ctx context.Context, url, id string, want Object, r Request) (Object, io.ReadCloser, error) {
	node, err := p.node(url)
	if err != nil {
		return Object{}, nil, err
	}
	r.Name, r.Version = id+peerData, `"`+want.Version+`"` // a node's entity tag is its version
	r.Known = nil                                         // of the origin's answer
	got, body, err := Bound(node).Open(ctx, r)
	if err != nil {
		return Object{}, nil, err
	}
	if want.Size >= 0 && got.Size != want.Size {
		body.Close()
		return Object{}, nil, fmt.Errorf("%w: it has %d bytes, the origin %d", ErrChanged, got.Size, want.Size)
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
		_ = node.Close() // what is in use ends by itself
		delete(p.nodes, other)
	}
	p.nodes[url] = n
	return n, nil
}

// failed notes what a node answered. One that merely has the image no more, or
// another version, is as good as before.
func (p *Peers) failed(ctx context.Context, url string, err error) {
	if ctx.Err() != nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrChanged) {
		return
	}
	p.failures.Add(1)
	p.cfg.Log.Warn("a peer is left alone for a while", "peer", url, "pause", peerPause, "error", err)
	p.leave(url, peerPause)
}

// leave leaves a node alone for at least so long.
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

// peerBody is what a peer sends. It is a [Suspect].
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
	b.peers.cfg.Log.Error("a peer sent other bytes than the image's, and is left alone",
		"peer", b.url, "image", b.id, "pause", peerBan)
	b.peers.leave(b.url, peerBan)
}
