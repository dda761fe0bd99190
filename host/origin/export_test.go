package origin

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// Describe makes an object of what an origin may say.
func Describe(h http.Header, size, seconds int64, file string) Object {
	obj := Object{Size: max(size, -1), ETag: entityTag(h)}
	if seconds != 0 {
		obj.LastModified = time.Unix(seconds%1e9, 0)
	}
	if file != "" {
		obj.File = "f" + hashText(file)
		obj.Size, obj.LastModified = max(size, 0), time.Unix(seconds%1e9, 0)
	}
	obj.Version = obj.Validators().version(Terms{})
	return obj
}

// RetryAfter is retryAfter.
var RetryAfter = retryAfter

// CachingOf is caching.
var CachingOf = caching

// The two directions of names.
var (
	ParseName  = parseName
	EscapeName = escapeName
)

// KindOf is kindOf.
func KindOf(addr netip.Addr) string { return string(kindOf(addr)) }

// NewHTTPAmong is NewHTTP in a network where the kinds of addresses are others,
// and where names are looked up by a resolver of its own.
func NewHTTPAmong(cfg HTTPConfig, kind func(netip.Addr) string, resolver *net.Resolver) (*HTTP, error) {
	o, err := NewHTTP(cfg)
	if err != nil {
		return nil, err
	}
	o.routes.kind = func(addr netip.Addr) addressKind { return addressKind(kind(addr)) }
	o.routes.resolver = resolver
	return o, nil
}

// SetProxy sets the proxy for all requests.
func (o *HTTP) SetProxy(proxy *url.URL) {
	o.routes.proxy = http.ProxyURL(proxy)
	o.routes.here.Proxy = o.routes.proxy
}
