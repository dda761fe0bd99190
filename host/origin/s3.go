package origin

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Config says where an S3 origin is. Name, Endpoint and Bucket are required.
type S3Config struct {
	Name      string
	Endpoint  string // http://host:port or https://host:port, without a path
	Bucket    string
	Prefix    string // an image is the object PREFIX/NAME; "": NAME
	Region    string // "": the server is asked
	PathStyle *bool  // whether the bucket stands in the path, else in the host's name; nil: as is usual for the endpoint
	AccessKey string // with SecretKey; both "": nothing is signed, as for a public bucket
	SecretKey string

	ConnectTimeout time.Duration // until a connection is made; 0: no limit
	IdleTimeout    time.Duration // without an answer or a byte, while one is waited for; 0: no limit
	Terms          Terms
}

// S3 is an origin in a bucket of an S3 server. The digests of an image are the
// sums that the server declares for the whole object. Its entity tag is no sum,
// whatever it looks like: that of an object which was uploaded in parts or is
// encrypted is another one.
type S3 struct {
	cfg       S3Config
	prefix    string // "", or ends with a slash
	core      *minio.Core
	transport *http.Transport
	heads     heads
	known     *recent[pairing] // by name
}

// s3Tries is how often the library sends a request that fails. It is less than
// the library's ten, as the caller tries again by itself, and waits no more
// than seconds for an answer on behalf of a cached image.
const s3Tries = 3

// NewS3 returns an S3 origin. It connects to nobody yet.
func NewS3(cfg S3Config) (*S3, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("origin %s: endpoint is no URL", cfg.Name) // the error shows a password in it
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("origin %s: endpoint %s is not of the form http://host or https://host:port", cfg.Name, u.Redacted())
	}
	if (cfg.AccessKey == "") != (cfg.SecretKey == "") {
		return nil, fmt.Errorf("origin %s: of access key and secret key only one is given", cfg.Name)
	}
	s := &S3{cfg: cfg, prefix: strings.Trim(cfg.Prefix, "/"), known: newRecent[pairing](rememberedPairings)}
	s.heads.names = newRecent[bool](rememberedHeads)
	if s.prefix != "" {
		s.prefix += "/"
	}
	s.transport = newTransport(HTTPConfig{ConnectTimeout: cfg.ConnectTimeout, IdleTimeout: cfg.IdleTimeout})
	s.core, err = minio.NewCore(u.Host, &minio.Options{
		Creds:        credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, ""),
		Secure:       u.Scheme == "https",
		Transport:    telling{s.transport},
		Region:       cfg.Region,
		BucketLookup: lookup(cfg.PathStyle),
		MaxRetries:   s3Tries,
	})
	if err != nil {
		return nil, fmt.Errorf("origin %s: %w", cfg.Name, err)
	}
	return s, nil
}

func lookup(pathStyle *bool) minio.BucketLookupType {
	switch {
	case pathStyle == nil:
		return minio.BucketLookupAuto
	case *pathStyle:
		return minio.BucketLookupPath
	}
	return minio.BucketLookupDNS
}

// Name implements [Origin].
func (s *S3) Name() string { return s.cfg.Name }

// Terms implements [Origin].
func (s *S3) Terms() Terms { return s.cfg.Terms }

// Close closes the connections that are not in use.
func (s *S3) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// telling lets who asks see the header of the answer, of which the library hands
// out parts, and of errors none.
type telling struct{ http.RoundTripper }

// answerKey is the key of a *http.Response in the context of a request, which
// becomes the last answer to it.
type answerKey struct{}

// RoundTrip implements [http.RoundTripper].
func (t telling) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(req)
	if told, ok := req.Context().Value(answerKey{}).(*http.Response); ok && err == nil {
		*told = *resp
		told.Body = nil
	}
	return resp, err
}

// Stat implements [Origin]. What HEAD refuses, and what it says is empty, is
// asked for once more by a GET of the first byte, which also says why: the
// answer to a HEAD has no body, in which a missing bucket and a missing object
// differ.
func (s *S3) Stat(ctx context.Context, name string) (Object, error) {
	key, err := s.key(name)
	if err != nil {
		return Object{}, err
	}
	if s.heads.useless(name) {
		return s.probe(ctx, name, key)
	}
	obj, headErr := s.head(ctx, name, key)
	if !doubtful(obj, headErr) || context.Cause(ctx) != nil {
		return obj, headErr
	}
	confirmed, err := s.probe(ctx, name, key)
	if err == nil && (headErr != nil || confirmed.Size > 0) {
		s.heads.proven(name, headErr)
	}
	return confirmed, err
}

func (s *S3) head(ctx context.Context, name, key string) (Object, error) {
	var told http.Response
	info, err := s.core.StatObject(context.WithValue(ctx, answerKey{}, &told), s.cfg.Bucket, key, s3Options())
	if err != nil {
		return Object{}, s.failure(ctx, &told, err)
	}
	return s.describe(name, s3Answer{info: info, told: &told, size: info.Size, whole: true})
}

// probe asks for the first byte. An object without bytes has none, and is asked
// for as a whole.
func (s *S3) probe(ctx context.Context, name, key string) (Object, error) {
	a, err := s.get(ctx, key, "bytes=0-0", "")
	if statusOf(err) == http.StatusRequestedRangeNotSatisfiable {
		a, err = s.get(ctx, key, "", "")
	}
	if err != nil {
		return Object{}, err
	}
	a.body.Close()
	return s.describe(name, a)
}

// Open implements [Origin]. Where a condition does not hold, the answer to the
// same question without one says what is there: the same bytes may have got
// another tag.
func (s *S3) Open(ctx context.Context, r Request) (Object, io.ReadCloser, error) {
	key, err := s.key(r.Name)
	if err != nil {
		return Object{}, nil, err
	}
	tag := s.condition(r)
	obj, body, err := s.open(ctx, r, key, tag)
	if tag == "" || !errors.Is(err, ErrChanged) {
		return obj, body, err
	}
	changed := err
	obj, body, err = s.open(ctx, r, key, "")
	if errors.Is(err, errUnidentified) || statusOf(err) == http.StatusRequestedRangeNotSatisfiable {
		err = changed // which says more
	}
	return obj, body, err
}

// statusOf returns the status of HTTP that an error is about, or 0.
func statusOf(err error) int {
	var f *Failure
	if errors.As(err, &f) {
		return f.Status
	}
	return 0
}

// condition returns the strong entity tag of the version asked for, "" when none
// is known.
func (s *S3) condition(r Request) string {
	pair := s.known.get(r.Name)
	switch {
	case !s.cfg.Terms.counts(ByETag):
	case isETag(r.Version):
		return r.Version
	case r.Known != nil && isETag(r.Known.ETag):
		return r.Known.ETag
	case pair.declares(r.Version) && isETag(pair.now.ETag):
		return pair.now.ETag
	}
	return ""
}

// open sends one request and checks that the answer holds the bytes asked for.
func (s *S3) open(ctx context.Context, r Request, key, tag string) (obj Object, body io.ReadCloser, err error) {
	rctx, cancel := context.WithCancelCause(ctx)
	a, err := s.get(rctx, key, byteRange(r), tag)
	if err != nil {
		cancel(nil)
		return Object{}, nil, s.pastTheEnd(ctx, r, err)
	}
	b := &httpBody{ctx: ctx, rc: a.body, cancel: cancel, idle: s.cfg.IdleTimeout}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	if !a.whole {
		if err := a.part.check(r, a.info.Size); err != nil {
			return Object{}, nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, s.cfg.Name, err)
		}
	}
	if obj, err = s.opened(ctx, r, a); err != nil {
		return Object{}, nil, err
	}
	if r.Length != 0 {
		if err := b.skip(r.Offset - a.part.first); err != nil {
			return Object{}, nil, err
		}
	}
	b.limit(r, a.size)
	return obj, b, nil
}

// pastTheEnd tells an object that has become shorter than a version was from a
// range that is none. Not every server says the length with its refusal.
func (s *S3) pastTheEnd(ctx context.Context, r Request, err error) error {
	if statusOf(err) != http.StatusRequestedRangeNotSatisfiable || r.Version == "" {
		return err
	}
	obj, statErr := s.Stat(ctx, r.Name)
	if statErr == nil && obj.Size >= 0 && obj.Size < r.Offset && obj.Version != r.Version {
		return fmt.Errorf("%w: %s has %d bytes now, offset is %d", ErrChanged, r.Name, obj.Size, r.Offset)
	}
	return err
}

// byteRange is the field Range for a request, "" when the whole is wanted. One
// for no bytes at all cannot be written.
func byteRange(r Request) string {
	switch {
	case r.Length > 0:
		return fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+r.Length-1)
	case r.Length < 0 && r.Offset > 0:
		return fmt.Sprintf("bytes=%d-", r.Offset)
	}
	return ""
}

// s3Answer is what the server said of an object, and perhaps its bytes.
type s3Answer struct {
	info  minio.ObjectInfo
	told  *http.Response // without its body
	size  int64          // bytes of the whole object; -1: unknown
	whole bool           // the answer speaks of the whole object
	part  contentRange   // else of this part; zero where it is the whole
	body  io.ReadCloser
}

// get asks for an object, or for a range of it. A tag that is not empty must be
// the object's.
func (s *S3) get(ctx context.Context, key, ranged, tag string) (s3Answer, error) {
	opts := s3Options()
	if ranged != "" {
		opts.Set("Range", ranged)
	}
	if tag != "" {
		opts.Set("If-Match", tag)
	}
	var told http.Response
	body, info, _, err := s.core.GetObject(context.WithValue(ctx, answerKey{}, &told), s.cfg.Bucket, key, opts)
	if err != nil {
		return s3Answer{}, s.failure(ctx, &told, err)
	}
	a := s3Answer{info: info, told: &told, size: info.Size, whole: told.StatusCode != http.StatusPartialContent, body: body}
	if a.whole {
		return a, nil
	}
	if a.part, err = parseContentRange(told.Header.Get("Content-Range")); err != nil {
		body.Close()
		return s3Answer{}, fmt.Errorf("%w: %s: %w", ErrUnavailable, s.cfg.Name, err)
	}
	a.size = a.part.total
	return a, nil
}

// s3Options asks for the checksums that the server has. The library's own
// option would have it compute them while it reads, which the cache does.
func s3Options() (opts minio.GetObjectOptions) {
	opts.Set("x-amz-checksum-mode", "ENABLED")
	return opts
}

// opened describes the object of an answer to r, if it is of the version asked
// for. A part does not tell the sums of the whole, so they are asked for unless
// they are known.
func (s *S3) opened(ctx context.Context, r Request, a s3Answer) (Object, error) {
	obj, err := s.describe(r.Name, a)
	if err != nil {
		return Object{}, err
	}
	if !a.whole && obj.ETag != "" {
		pair := s.known.get(r.Name)
		if pair.now.ETag != obj.ETag {
			if _, err := s.Stat(ctx, r.Name); err != nil {
				return Object{}, err
			}
			pair = s.known.get(r.Name)
		}
		if pair.now.ETag == obj.ETag {
			obj.Digests = pair.digests
			obj.Version = obj.Validators().version(s.cfg.Terms)
		}
	}
	if r.Version == "" {
		return obj, nil
	}
	switch r.join(obj.Validators(), s.cfg.Terms, r.Offset == 0 && r.Length < 0) {
	case Same:
		obj.Version = r.Version
		return obj, nil
	case Changed:
		return Object{}, fmt.Errorf("%w: %s is %s now, not %s", ErrChanged, r.Name, cmp.Or(obj.Version, "another object"), r.Version)
	default:
		return Object{}, fmt.Errorf("%w: %w: %s does not say which version it is, asked was %s", ErrUnavailable, errUnidentified, r.Name, r.Version)
	}
}

// describe returns the object of an answer. What speaks of the whole is
// remembered.
func (s *S3) describe(name string, a s3Answer) (Object, error) {
	h := a.told.Header
	if err := checkCoding(s.cfg.Name, name, s3Coding(h)); err != nil {
		return Object{}, err
	}
	obj := Object{
		Size: a.size, ETag: entityTag(h), LastModified: lastModified(h), URL: s.url(name),
		ContentType: contentType(h), Caching: caching(h, time.Now()), OpenEnded: openEnded(a.told),
	}
	if a.whole {
		obj.Digests = s3Digests(a.info)
		s.known.put(name, pairing{now: obj.Validators(), digests: obj.Digests})
	}
	obj.Version = obj.Validators().version(s.cfg.Terms)
	obj.Refused = s.cfg.Terms.refusal(name, obj)
	return obj, nil
}

// s3Coding returns the header less aws-chunked, with which clients upload: some
// servers keep it with the object, as if it were about its bytes.
func s3Coding(h http.Header) http.Header {
	var codings []string
	for coding := range strings.SplitSeq(strings.Join(h.Values("Content-Encoding"), ","), ",") {
		if !strings.EqualFold(strings.TrimSpace(coding), "aws-chunked") {
			codings = append(codings, coding)
		}
	}
	return http.Header{"Content-Encoding": codings}
}

// s3Digests returns the sums that an answer about a whole object declares,
// strongest first. One of an object that was uploaded in parts is a sum of the
// sums of its parts, and marked as such by its type or by a dash and their
// number.
func s3Digests(info minio.ObjectInfo) []Digest {
	if strings.EqualFold(info.ChecksumMode, minio.ChecksumCompositeMode.String()) {
		return nil
	}
	var list []Digest
	for _, d := range []struct{ algorithm, sum string }{
		{algSHA512, info.ChecksumSHA512},
		{algSHA256, info.ChecksumSHA256},
		{algMD5, info.ChecksumMD5},
	} {
		sum, err := base64.StdEncoding.DecodeString(d.sum)
		if err == nil && len(sum) == digestBytes[d.algorithm] {
			list = append(list, Digest{Algorithm: d.algorithm, Sum: sum})
		}
	}
	return list
}

// key returns the key of the object of an image. Keys are UTF-8 of at most
// 1024 bytes, and no name has an escape in it where the key has none.
func (s *S3) key(name string) (string, error) {
	file, err := fileName(name)
	key := s.prefix + file
	if err != nil || !utf8.ValidString(key) || len(key) > maxName {
		return "", fmt.Errorf("%w: %.64q is no name of an object", ErrNotFound, name)
	}
	return key, nil
}

// url is where people find the object.
func (s *S3) url(name string) string {
	return s.core.EndpointURL().JoinPath(s.cfg.Bucket).String() + "/" + escapeName(s.prefix+name)
}

// credentialCodes are errors about our keys or the clock by which we sign, not
// about an object, whatever their status is.
var credentialCodes = map[string]bool{
	minio.InvalidAccessKeyID: true, minio.SignatureDoesNotMatch: true, minio.AuthorizationHeaderMalformed: true,
	"ExpiredToken": true, "InvalidToken": true, "TokenRefreshRequired": true, "RequestTimeTooSkewed": true,
}

// failure says what an error of the library means, in words of our own: theirs
// can hold a URL or what the server made up. The error is that of the context or
// a [Failure].
func (s *S3) failure(ctx context.Context, told *http.Response, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var resp minio.ErrorResponse
	if errors.As(err, &resp) && resp.StatusCode != 0 {
		return s.statusError(told, resp)
	}
	var uerr *url.Error
	if errors.As(err, &uerr) {
		err = uerr.Err
	}
	var untrusted *tls.CertificateVerificationError
	return &Failure{
		Temporary: !errors.As(err, &untrusted),
		err:       fmt.Errorf("%w: %s: %w", ErrUnavailable, s.cfg.Name, err),
	}
}

func (s *S3) statusError(told *http.Response, resp minio.ErrorResponse) error {
	kind, credential := ErrUnavailable, credentialCodes[resp.Code]
	switch status := resp.StatusCode; {
	case credential, status == http.StatusUnauthorized:
		kind, credential = ErrDenied, true
	case status == http.StatusForbidden:
		kind, credential = ErrDenied, s.cfg.AccessKey != "" && resp.Code != "InvalidObjectState"
	case s3Absent(resp):
		kind = ErrNotFound
	case status == http.StatusPreconditionFailed:
		kind = ErrChanged
	}
	return &Failure{
		Status:     resp.StatusCode,
		RetryAfter: retryAfter(told.Header, time.Now()),
		Temporary:  temporary(resp.StatusCode),
		Credential: credential,
		err:        fmt.Errorf("%w: %s answered %d %s", kind, s.cfg.Name, resp.StatusCode, s3Code(resp)),
	}
}

// s3Absent reports whether the object is not there: a server may answer a 404
// also for a bucket or a user that it does not know. A body that tells
// nothing counts as one about the object.
func s3Absent(resp minio.ErrorResponse) bool {
	if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusGone {
		return false
	}
	switch resp.Code {
	case minio.NoSuchKey, minio.NoSuchVersion, "NotFound":
		return true
	}
	return s3Code(resp) != resp.Code
}

// s3Code returns the code of an error, such as NoSuchKey, if it is one, else
// what its status means.
func s3Code(resp minio.ErrorResponse) string {
	letters := func(r rune) bool { return r < '0' || r > 'z' || r > '9' && r < 'A' || r > 'Z' && r < 'a' }
	if resp.Code == "" || len(resp.Code) > 64 || strings.ContainsFunc(resp.Code, letters) {
		return http.StatusText(resp.StatusCode)
	}
	return resp.Code
}
