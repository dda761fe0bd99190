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

// checkRedirect keeps the configured headers, which may hold a token, on the
// host of the endpoint, and everything else there too unless other hosts are
// allowed.
func (o *HTTP) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("%w: more than %d", errRedirect, maxRedirects)
	}
	if sameHost(o.endpoint, req.URL) {
		return nil
	}
	if !o.cfg.AllowRedirects {
		return fmt.Errorf("%w: to another host, %s, which allow_redirects does not allow", errRedirect, req.URL.Host)
	}
	if o.endpoint.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("%w: to %s, which gives up encryption", errRedirect, req.URL.Host)
	}
	for field := range o.cfg.Headers {
		req.Header.Del(field)
	}
	req.Header.Del("Authorization") // made of the endpoint's user and password
	req.Header.Del("Referer")       // the endpoint's query
	return nil
}

// sameHost reports whether u is on the endpoint's server. A step from http to
// https on the usual ports stays there.
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
	hosts    []string // in lower case; "*.example" stands for all below it
	networks []netip.Prefix
}

// ParseDestinations reads a list of host names, "*.DOMAIN", addresses and networks
// such as "10.0.0.0/8". The error names the one that is none of these.
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
			return d, fmt.Errorf(`%q is neither a host, such as "mirror.example" or "*.mirror.example", nor a network, such as "10.1.0.0/16"`, text)
		}
		d.hosts = append(d.hosts, host)
	}
	return d, nil
}

// isHost reports whether a text can be the name of a host. One of digits and dots
// is an address that is written wrongly.
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

// names reports whether a host is among the destinations by its name.
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

// routes sends requests to the endpoint, and to where it redirects, by
// connections of their own. A redirect leads to public addresses, to named
// destinations, and, from an endpoint that has a loopback or private address
// itself, to addresses of that kind, as long as each host on the way has one.
// What counts is the address of the connection that is made: a name that has
// another one each time it is looked up is judged by that which is used.
type routes struct {
	endpoint *url.URL
	allowed  Destinations
	kind     func(netip.Addr) addressKind
	proxy    func(*http.Request) (*url.URL, error)
	resolver *net.Resolver                   // nil: the usual one
	here     *http.Transport                 // to the endpoint, and through proxies
	away     map[addressKind]*http.Transport // by the kind that is allowed beside public addresses
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
		t.Proxy = nil // RoundTrip asks
		t.DialContext = r.dial(cfg, kind)
		r.away[kind] = t
	}
	return r, nil
}

// dial makes connections to addresses that are allowed, and to hosts that are
// named. The dialer looks a name up once and asks before each attempt.
func (r *routes) dial(cfg HTTPConfig, also addressKind) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := &net.Dialer{Timeout: cfg.ConnectTimeout, Resolver: r.resolver}
		if host, _, err := net.SplitHostPort(address); err != nil || !r.allowed.names(host) {
			dialer.Control = func(_, resolved string, _ syscall.RawConn) error {
				to, err := netip.ParseAddrPort(resolved)
				if err != nil {
					return fmt.Errorf("%w: to %s, which is not an address", errRedirect, resolved)
				}
				return r.judge(host, to.Addr(), also)
			}
		}
		return dialer.DialContext(ctx, network, address)
	}
}

// judge refuses an address that no redirect may lead to.
func (r *routes) judge(host string, addr netip.Addr, also addressKind) error {
	kind := r.kind(addr)
	if kind == kindPublic || kind == also || r.allowed.holds(addr) {
		return nil
	}
	return fmt.Errorf("%w: to %s, which has the %s address %s; redirect_to can allow it", errRedirect, host, kind, addr)
}

// way is what the requests for one image, each redirected to the next, have in
// common.
type way struct {
	kind    addressKind // of the addresses of all hosts so far; public: of one of them, or there is no telling
	started bool
}

type wayKey struct{}

// onWay returns a context for a request and all to which it is redirected.
func onWay(ctx context.Context) context.Context { return context.WithValue(ctx, wayKey{}, new(way)) }

// passed notes the next host.
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

// throughProxy sends a request to a proxy, which alone looks the name up: only the
// name can be judged.
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

// CloseIdleConnections closes what is not in use.
func (r *routes) CloseIdleConnections() {
	r.here.CloseIdleConnections()
	for _, t := range r.away {
		t.CloseIdleConnections()
	}
}
