package origin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// HTTPConfig says where an HTTP origin is. Name and Endpoint are required.
type HTTPConfig struct {
	Name           string
	Endpoint       string            // an image is at Endpoint/NAME; a query of it stays at the end
	ConnectTimeout time.Duration     // for making a connection; 0: no limit
	AnswerTimeout  time.Duration     // for the headers of an answer; 0: IdleTimeout
	IdleTimeout    time.Duration     // how long a read of the body waits for a byte; 0: no limit
	Headers        map[string]string // sent to the endpoint's host with every request
	AllowRedirects bool              // follow redirects to other hosts, without Headers
	RedirectTo     []string          // hosts and networks that are not public and may be redirected to; see ParseDestinations
	Terms          Terms

	// Dial makes a connection; nil: the system does, within ConnectTimeout, and a
	// redirect leads to allowed addresses alone.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// HTTP is an origin on an HTTP server. It stores no images and does not retry.
type HTTP struct {
	cfg      HTTPConfig
	endpoint *url.URL // its path ends with a slash
	routes   *routes
	client   *http.Client
	heads    heads
}

// maxRedirects is the limit of net/http, which a CheckRedirect of one's own turns
// off.
const maxRedirects = 10

// errorBody is how many bytes of the body of an error are read so that its
// connection can be used again. Reading more costs more than a new connection.
const errorBody = 64 << 10

// NewHTTP returns an HTTP origin. It does not connect yet.
func NewHTTP(cfg HTTPConfig) (*HTTP, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("origin %s: the endpoint is not a URL; expected http://host/path or https://host/path", cfg.Name) // err would show a password in it
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		return nil, fmt.Errorf("origin %s: the endpoint is %s; expected http://host/path or https://host/path", cfg.Name, u.Redacted())
	}
	if !strings.HasSuffix(u.Path, "/") {
		*u = *u.JoinPath("/")
	}
	routes, err := newRoutes(cfg, u)
	if err != nil {
		return nil, err
	}
	o := &HTTP{cfg: cfg, endpoint: u, routes: routes, heads: heads{names: newRecent[bool](rememberedHeads)}}
	o.client = &http.Client{Transport: routes, CheckRedirect: o.checkRedirect}
	return o, nil
}

func newTransport(cfg HTTPConfig) *http.Transport {
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: cfg.ConnectTimeout}).DialContext
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dial,
		TLSHandshakeTimeout:   cfg.ConnectTimeout,
		ResponseHeaderTimeout: cmp.Or(cfg.AnswerTimeout, cfg.IdleTimeout),
		IdleConnTimeout:       90 * time.Second, // as http.DefaultTransport
		MaxIdleConnsPerHost:   8,                // as many fills as usually run at once
		ForceAttemptHTTP2:     true,
		DisableCompression:    true,     // the image is the bytes without a coding
		ReadBufferSize:        64 << 10, // needs a sixteenth of the reads of the default, 4 KiB
	}
}

// Name implements [Origin].
func (o *HTTP) Name() string { return o.cfg.Name }

// Terms implements [Origin].
func (o *HTTP) Terms() Terms { return o.cfg.Terms }

// Close closes the connections that are not in use.
func (o *HTTP) Close() error {
	o.client.CloseIdleConnections()
	return nil
}

// asking says how an image is requested.
type asking struct {
	ranged      bool // only the wanted part; otherwise the whole image
	conditional bool // only the wanted version; otherwise any
}

// Open implements [Origin].
func (o *HTTP) Open(ctx context.Context, r Request) (Object, io.ReadCloser, error) {
	if r.Version != "" && r.Offset > 0 && !Joins(r.Version) && !r.Alone {
		return Object{}, nil, fmt.Errorf("%w: the version %s of %s cannot prove that the rest belongs to the same image", ErrUnavailable, r.Version, r.Name)
	}
	how := asking{
		ranged:      r.Length > 0 || r.Offset > 0 && r.Length < 0,
		conditional: isETag(r.Version) && o.cfg.Terms.counts(ByETag),
	}
	for {
		obj, body, err := o.open(ctx, r, how)
		switch {
		case how.conditional && errors.Is(err, errCondition):
			// Another mirror may have answered, which has a tag of its own for
			// the same bytes; or the server does not know conditions. The same
			// request without a condition shows which version it has.
			how.conditional = false
		case how.ranged && errors.Is(err, errUnidentified):
			// The answer with the part does not say which version it is. That
			// with the whole image may: its prefix is skipped.
			how.ranged = false
		default:
			return obj, body, err
		}
	}
}

var (
	// errUnidentified says that the answer with a part does not say which version
	// it is.
	errUnidentified = errors.New("part of an unknown version")
	// errCondition says that the server does not have the version that was asked
	// for.
	errCondition = fmt.Errorf("%w: the condition does not hold", ErrChanged)
)

// open sends one request and checks that the response has the bytes that were asked
// for.
func (o *HTTP) open(ctx context.Context, r Request, how asking) (obj Object, body io.ReadCloser, err error) {
	rctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		if err != nil {
			cancel(nil)
		}
	}()
	req, err := o.request(rctx, http.MethodGet, r.Name)
	if err != nil {
		return Object{}, nil, err
	}
	how.describe(req.Header, r)
	resp, err := o.do(req)
	if err != nil {
		return Object{}, nil, err
	}
	b := &httpBody{ctx: ctx, rc: resp.Body, cancel: cancel, idle: o.cfg.IdleTimeout}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	size, start, err := o.checkResponse(resp, r, how, b)
	if err == nil {
		err = checkCoding(o.cfg.Name, r.Name, resp.Header)
	}
	if err != nil {
		return Object{}, nil, err
	}
	ended := size >= 0 || !openEnded(resp)
	if !ended {
		size = o.lengthElsewhere(ctx, r.Name, resp)
	}
	obj = o.object(r.Name, resp, size)
	if r.Version != "" || r.Known != nil {
		if err := o.checkVersion(r, resp, obj); err != nil {
			return Object{}, nil, err
		}
		obj.Version = cmp.Or(r.Version, obj.Version)
	}
	if r.Length != 0 {
		if err := b.skip(r.Offset - start); err != nil {
			return Object{}, nil, err
		}
	}
	b.limit(r, size)
	b.mustEnd = !ended && r.Length < 0
	return obj, b, nil
}

// openEnded reports whether only the end of the connection ends a body. With HTTP/2
// or chunks an end differs from a broken connection.
func openEnded(resp *http.Response) bool {
	return resp.ContentLength < 0 && resp.ProtoMajor < 2 && len(resp.TransferEncoding) == 0 &&
		resp.StatusCode == http.StatusOK && resp.Request.Method != http.MethodHead
}

// lengthPatience bounds how long an image waits for the answer about its length. A
// server that serves one client at a time does not answer while it sends the image.
const lengthPatience = 5 * time.Second

// lengthElsewhere asks, by Stat, for the length that an answer does not have. It
// returns -1 if there is none, or if it is that of another version. A length of 0
// counts as none: servers send it when they do not know the length.
func (o *HTTP) lengthElsewhere(ctx context.Context, name string, resp *http.Response) int64 {
	ctx, cancel := context.WithTimeout(ctx, lengthPatience)
	defer cancel()
	said, err := o.Stat(ctx, name)
	if err != nil || said.Size <= 0 {
		return -1
	}
	if v, _ := Judge(o.object(name, resp, -1).Validators(), said.Validators(), Terms{}); v == Changed {
		return -1
	}
	return said.Size
}

// describe sets the header fields that ask for a part and for one version. A server
// that does not know If-Match still sees If-Range, and sends the whole image if it
// has another version, which shows that. Both fields are kept in a redirect.
func (a asking) describe(h http.Header, r Request) {
	if a.conditional {
		h.Set("If-Match", r.Version)
	}
	if !a.ranged {
		return
	}
	if a.conditional {
		h.Set("If-Range", r.Version)
	}
	if r.Length < 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", r.Offset))
	} else {
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+r.Length-1))
	}
}

// checkResponse returns the size of the image and the offset at which the body
// starts. Only a 200 is a whole image, and only a 206 with exactly the range that
// was asked for is a part.
func (o *HTTP) checkResponse(resp *http.Response, r Request, how asking, b *httpBody) (size, start int64, err error) {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return resp.ContentLength, 0, nil
	case code == http.StatusPartialContent && how.ranged:
		got, err := parseContentRange(resp.Header.Get("Content-Range"))
		if err == nil {
			err = got.check(r, resp.ContentLength)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("%w: %s: %w", ErrUnavailable, o.cfg.Name, err)
		}
		return got.total, got.first, nil
	case code == http.StatusRequestedRangeNotSatisfiable && r.Version != "":
		if got, err := parseContentRange(resp.Header.Get("Content-Range")); err == nil && got.total >= 0 && got.total < r.Offset {
			return 0, 0, fmt.Errorf("%w: %s has %d bytes now, but the offset is %d", ErrChanged, r.Name, got.total, r.Offset)
		}
	case code == http.StatusPreconditionFailed && how.conditional:
		b.drain()
		return 0, 0, fmt.Errorf("%w: %s does not have the version %s of %s", errCondition, o.cfg.Name, r.Version, r.Name)
	}
	b.drain()
	return 0, 0, o.statusError(resp)
}

// checkVersion compares an answer with the version that was asked for. A whole image
// need not fit to other bytes, unless it continues a part, and neither do bytes of a
// request with Alone.
func (o *HTTP) checkVersion(r Request, resp *http.Response, obj Object) error {
	now := obj.Validators()
	if d := contentMD5(resp.Header); d.version() == r.Version {
		now.Digests = append(now.Digests, d) // if it is equal it is that of the whole image, in a 206 too
	}
	switch r.join(now, o.cfg.Terms, r.Alone || r.Offset == 0 && r.Length < 0) {
	case Same:
		return nil
	case Changed:
		return fmt.Errorf("%w: %s is %s now; expected %s", ErrChanged, r.Name, cmp.Or(obj.Version, "another image"), cmp.Or(r.Version, "the image of before"))
	default:
		if r.Version == "" {
			return nil // there is no way to know better
		}
		if resp.StatusCode == http.StatusPartialContent {
			return errUnidentified
		}
	}
	return fmt.Errorf("%w: the answer does not say which version of %s it is; expected %s", ErrUnavailable, r.Name, r.Version)
}

// request makes a request for the image name.
func (o *HTTP) request(ctx context.Context, method, name string) (*http.Request, error) {
	u, err := o.url(name)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: make request: %w", ErrUnavailable, err)
	}
	for field, v := range o.cfg.Headers {
		if strings.EqualFold(field, "Host") {
			req.Host = v
		}
		req.Header.Set(field, v)
	}
	req.Header.Set("Accept-Encoding", "identity")
	return req, nil
}

// url returns the endpoint's URL with the path of a name, and its query, appended.
func (o *HTTP) url(name string) (*url.URL, error) {
	if !isName(name) {
		return nil, fmt.Errorf("%w: %.64q cannot be the name of an image", ErrNotFound, name)
	}
	escaped, query, _ := strings.Cut(escapeName(name), "?")
	plain, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, fmt.Errorf("%w: %.64q cannot be the name of an image", ErrNotFound, name)
	}
	u := *o.endpoint
	u.RawPath = u.EscapedPath() + escaped
	u.Path += plain
	u.RawQuery = strings.Trim(u.RawQuery+"&"+query, "&") // the endpoint may have a query of its own
	return &u, nil
}

// do sends a request. Errors are those of the context or a [Failure].
func (o *HTTP) do(req *http.Request) (*http.Response, error) {
	resp, err := o.client.Do(req.WithContext(onWay(req.Context())))
	if err == nil {
		return resp, nil
	}
	if cause := context.Cause(req.Context()); cause != nil {
		return nil, cause
	}
	var uerr *url.Error
	if errors.As(err, &uerr) {
		err = uerr.Err // the URL may hold a secret in its query
	}
	var untrusted *tls.CertificateVerificationError
	return nil, &Failure{
		Temporary: !errors.Is(err, errRedirect) && !errors.As(err, &untrusted),
		err:       fmt.Errorf("%w: %s: %w", ErrUnavailable, o.cfg.Name, err),
	}
}

func (o *HTTP) statusError(resp *http.Response) error {
	kind := ErrUnavailable
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		kind = ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		kind = ErrDenied
	}
	elsewhere := !sameHost(o.endpoint, resp.Request.URL)
	return &Failure{
		Status:     resp.StatusCode,
		RetryAfter: retryAfter(resp.Header, time.Now()),
		Temporary:  temporary(resp.StatusCode),
		Credential: o.refusesUs(resp.StatusCode, elsewhere),
		elsewhere:  elsewhere,
		err:        fmt.Errorf("%w: %s answered %d %s", kind, o.cfg.Name, resp.StatusCode, http.StatusText(resp.StatusCode)),
	}
}

// refusesUs reports whether a status refuses our credential rather than the image. A
// 401 always does, and a 403 does if the request has a credential. From another host
// a 403 refuses the signature in the redirect.
func (o *HTTP) refusesUs(status int, elsewhere bool) bool {
	switch status {
	case http.StatusUnauthorized:
		return true
	case http.StatusForbidden:
		return elsewhere || o.credential()
	}
	return false
}

// credential reports whether requests contain anything that could be a credential.
func (o *HTTP) credential() bool {
	if o.endpoint.User != nil || o.endpoint.RawQuery != "" {
		return true
	}
	for field := range o.cfg.Headers {
		switch http.CanonicalHeaderKey(field) {
		case "Host", "User-Agent", "Accept", "Accept-Encoding", "Accept-Language":
		default:
			return true
		}
	}
	return false
}

// object describes the image of a response. The URL is that of the request, without
// parts that may be secret.
func (o *HTTP) object(name string, resp *http.Response, size int64) Object {
	obj := Object{
		Size: size, Digests: declared(resp), ETag: entityTag(resp.Header), LastModified: lastModified(resp.Header),
		ContentType: contentType(resp.Header), Caching: caching(resp.Header, time.Now()), OpenEnded: openEnded(resp),
	}
	obj.Version = obj.Validators().version(o.cfg.Terms)
	obj.Refused = o.cfg.Terms.refusal(name, obj)
	if u, err := o.url(name); err == nil {
		u.User, u.RawQuery = nil, ""
		obj.URL = u.String()
	}
	return obj
}
