package origin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
)

// errRedirect says that a redirect is not followed.
var errRedirect = errors.New("redirect refused")

// checkRedirect refuses redirects to other hosts unless they are allowed, and never
// sends those the configured headers, which may contain a token.
func (o *HTTP) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("%w: more than %d", errRedirect, maxRedirects)
	}
	if sameHost(o.endpoint, req.URL) {
		return nil
	}
	if !o.cfg.AllowRedirects {
		return fmt.Errorf("%w: it leads to another host, %s; set allow_redirects to follow it", errRedirect, req.URL.Host)
	}
	if o.endpoint.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("%w: it leads to %s without encryption; expected https", errRedirect, req.URL.Host)
	}
	for field := range o.cfg.Headers {
		req.Header.Del(field)
	}
	req.Header.Del("Authorization") // has the endpoint's user and password
	req.Header.Del("Referer")       // has the endpoint's query
	return nil
}

// sameHost reports whether u is on the endpoint's server. So is a redirect from http
// to https on the usual ports.
func sameHost(endpoint, u *url.URL) bool {
	if !strings.EqualFold(endpoint.Hostname(), u.Hostname()) {
		return false
	}
	if endpoint.Scheme == "http" && u.Scheme == "https" {
		return port(endpoint) == "80" && port(u) == "443"
	}
	return endpoint.Scheme == u.Scheme && port(endpoint) == port(u)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

// Destinations are hosts and networks to which an origin may redirect although
// their addresses are not public.
type Destinations struct {
	hosts    []string // in lower case; "*.example" stands for all hosts below example
	networks []netip.Prefix
}

// ParseDestinations reads a list of host names, "*.DOMAIN", addresses and networks
// such as "10.0.0.0/8". The error names the first text that is none of these.
func ParseDestinations(list []string) (Destinations, error) {
	var d Destinations
	for _, text := range list {
		if network, err := netip.ParsePrefix(text); err == nil {
			d.networks = append(d.networks, network.Masked())
			continue
		}
		if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
			addr = addr.Unmap()
			d.networks = append(d.networks, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		host := strings.ToLower(text)
		if !isHost(strings.TrimPrefix(host, "*.")) {
			return d, fmt.Errorf(`%q is neither a host nor a network; expected for example "mirror.example", "*.mirror.example" or "10.1.0.0/16"`, text)
		}
		d.hosts = append(d.hosts, host)
	}
	return d, nil
}

// isHost reports whether a text can be the name of a host. A text of digits and dots
// cannot; it is a malformed address.
func isHost(name string) bool {
	if len(name) > 253 || !strings.ContainsFunc(name, func(r rune) bool { return r >= 'a' && r <= 'z' }) {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// names reports whether the name of a host is among the destinations.
func (d Destinations) names(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return slices.ContainsFunc(d.hosts, func(h string) bool {
		domain, below := strings.CutPrefix(h, "*")
		return h == host || below && strings.HasSuffix(host, domain)
	})
}

// holds reports whether an address is in one of the networks.
func (d Destinations) holds(addr netip.Addr) bool {
	addr = plain(addr)
	return slices.ContainsFunc(d.networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// routes sends requests to the endpoint, and over separate connections to where it
// redirects. A redirect may lead to public addresses and to the allowed destinations.
// From an endpoint with a loopback or private address it may also lead to addresses
// of the same kind, as long as all hosts on the way have one. The address of the
// actual connection decides, so a name cannot have a harmless address when it is
// checked and another one when it is used.
type routes struct {
	endpoint *url.URL
	allowed  Destinations
	kind     func(netip.Addr) addressKind
	proxy    func(*http.Request) (*url.URL, error)
	resolver *net.Resolver                   // nil: the default one
	here     *http.Transport                 // to the endpoint, and through proxies
	away     map[addressKind]*http.Transport // by the kind that is allowed in addition to public addresses
}

func newRoutes(cfg HTTPConfig, endpoint *url.URL) (*routes, error) {
	allowed, err := ParseDestinations(cfg.RedirectTo)
	if err != nil {
		return nil, fmt.Errorf("origin %s: redirect_to: %w", cfg.Name, err)
	}
	r := &routes{
		endpoint: endpoint, allowed: allowed, kind: kindOf, proxy: http.ProxyFromEnvironment,
		here: newTransport(cfg), away: map[addressKind]*http.Transport{},
	}
	for _, kind := range []addressKind{kindPublic, kindLoopback, kindPrivate} {
		t := newTransport(cfg)
		t.Proxy = nil        // RoundTrip looks for a proxy itself
		if cfg.Dial == nil { // a caller with a Dial of its own is responsible for where it leads
			t.DialContext = r.dial(cfg, kind)
		}
		r.away[kind] = t
	}
	return r, nil
}

// dial returns a function that connects to allowed addresses, and to hosts that are
// allowed by name. Its dialer looks up a name once, and checks the address before
// each attempt.
func (r *routes) dial(cfg HTTPConfig, also addressKind) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := &net.Dialer{Timeout: cfg.ConnectTimeout, Resolver: r.resolver}
		if host, _, err := net.SplitHostPort(address); err != nil || !r.allowed.names(host) {
			dialer.Control = func(_, resolved string, _ syscall.RawConn) error {
				to, err := netip.ParseAddrPort(resolved)
				if err != nil {
					return fmt.Errorf("%w: it leads to %s, which is not an address", errRedirect, resolved)
				}
				return r.judge(host, to.Addr(), also)
			}
		}
		return dialer.DialContext(ctx, network, address)
	}
}

// judge returns an error for an address to which a redirect may not lead.
func (r *routes) judge(host string, addr netip.Addr, also addressKind) error {
	kind := r.kind(addr)
	if kind == kindPublic || kind == also || r.allowed.holds(addr) {
		return nil
	}
	return fmt.Errorf("%w: it leads to %s, which has the %s address %s; redirect_to can allow it", errRedirect, host, kind, addr)
}

// way is shared by the requests for one image, each of which was redirected to the
// next.
type way struct {
	kind    addressKind // of the addresses of all hosts so far; public if they differ, one is public, or it is not known
	started bool
}

type wayKey struct{}

// onWay returns a context for a request and all requests to which it is redirected.
func onWay(ctx context.Context) context.Context { return context.WithValue(ctx, wayKey{}, new(way)) }

// passed notes the kind of address of the next host.
func (w *way) passed(kind addressKind) {
	if !w.started {
		w.started, w.kind = true, kind
	}
	if kind != w.kind || kind == kindSpecial {
		w.kind = kindPublic
	}
}

// RoundTrip implements http.RoundTripper.
func (r *routes) RoundTrip(req *http.Request) (*http.Response, error) {
	w, _ := req.Context().Value(wayKey{}).(*way)
	if w == nil {
		w = new(way)
	}
	proxy, err := r.proxy(req)
	switch {
	case err != nil:
		return nil, fmt.Errorf("find proxy: %w", err)
	case proxy != nil:
		return r.throughProxy(req, w)
	}
	transport := r.here
	if !sameHost(r.endpoint, req.URL) {
		if transport = r.away[w.kind]; !w.started {
			transport = r.away[kindPublic]
		}
	}
	var kind addressKind
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		to, _ := netip.ParseAddrPort(info.Conn.RemoteAddr().String()) // a zero address is special
		kind = r.kind(to.Addr())
	}})
	resp, err := transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	w.passed(kind)
	resp.Request = req
	return resp, nil
}

// throughProxy sends a request to a proxy. Only the proxy looks up the name, so only
// the name can be judged.
func (r *routes) throughProxy(req *http.Request, w *way) (*http.Response, error) {
	host := req.URL.Hostname()
	kind := kindPublic
	if addr, err := netip.ParseAddr(host); err == nil {
		kind = r.kind(addr)
		if err := r.judge(host, addr, w.kind); err != nil && !sameHost(r.endpoint, req.URL) && !r.allowed.names(host) {
			return nil, err
		}
	}
	resp, err := r.here.RoundTrip(req)
	if err == nil {
		w.passed(kind)
	}
	return resp, err
}

// CloseIdleConnections closes the connections that are not in use.
func (r *routes) CloseIdleConnections() {
	r.here.CloseIdleConnections()
	for _, t := range r.away {
		t.CloseIdleConnections()
	}
}
