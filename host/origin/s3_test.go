package origin_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/imgcache/imgcache-host/host/origin"
)

// The digest of an object is the sum of the whole alone.
func TestS3Versions(t *testing.T) {
	s := newS3Server(t)
	data := random(1, 6<<20)
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	plain := s.put(t, "plain", data, minio.ChecksumNone)
	s.put(t, "summed", data, minio.ChecksumSHA256)
	s.put(t, "crc", data, minio.ChecksumFullObjectCRC32C)
	parts := s.putParts(t, "parts", data[:5<<20], data[5<<20:])
	if !strings.Contains(parts, "-2") {
		t.Fatalf("entity tag of two parts is %s", parts)
	}
	for name, want := range map[string]string{"plain": plain, "crc": plain, "summed": sum, "parts": parts} {
		t.Run(name, func(t *testing.T) {
			o := s.origin(t)
			obj, err := o.Stat(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if digest := strings.HasPrefix(want, "sha256:"); obj.Version != want || len(obj.Digests) > 0 != digest {
				t.Errorf("version %s with %d digests, want %s", obj.Version, len(obj.Digests), want)
			}
			expect(t, o, origin.Request{Name: name, Length: -1}, data)
			// An origin that has seen nothing yet, as after a restart.
			expect(t, s.origin(t), origin.Request{Name: name, Offset: 5<<20 - 1, Length: 10, Version: want}, data[5<<20-1:][:10])
		})
	}
}

// What was uploaded anew is another version, also for an origin that does not
// know the old one, and whatever became of the sums.
func TestS3ReplacedSums(t *testing.T) {
	s := newS3Server(t)
	data, other := random(1, 1000), random(2, 1000)
	s.put(t, "a", data, minio.ChecksumSHA256)
	seen := s.origin(t)
	obj, err := seen.Stat(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	known := obj.Validators()
	for _, checksum := range []minio.ChecksumType{minio.ChecksumSHA256, minio.ChecksumNone} {
		s.put(t, "a", other, checksum)
		for name, o := range map[string]origin.Origin{"seen": seen, "new": s.origin(t)} {
			_, _, err := fetch(o, origin.Request{Name: "a", Offset: 10, Length: 10, Version: obj.Version, Known: &known})
			if !errors.Is(err, origin.ErrChanged) {
				t.Errorf("%s, %v: %v, want ErrChanged", name, checksum, err)
			}
		}
	}
	// The same bytes again are the same version, under the same tag.
	s.put(t, "a", data, minio.ChecksumSHA256)
	expect(t, seen, origin.Request{Name: "a", Offset: 10, Length: 10, Version: obj.Version}, data[10:20])
}

func TestS3Names(t *testing.T) {
	s := newS3Server(t)
	o := s.origin(t, func(cfg *origin.S3Config) { cfg.Prefix = "/some/where" })
	for name, key := range map[string]string{
		"a+b.img": "a+b.img", "a b.img": "a b.img", "a%2Bc.img": "a+c.img", "a%252Bd.img": "a%2Bd.img",
		"noble/current/x.img": "noble/current/x.img", "größe:@=~!'()*.img": "größe:@=~!'()*.img", "a%3Fb#c&d": "a?b#c&d",
	} {
		data := []byte("of " + key)
		s.put(t, "some/where/"+key, data, minio.ChecksumNone)
		obj := expect(t, o, origin.Request{Name: name, Length: -1}, data)
		u, err := url.Parse(obj.URL)
		if err != nil || u.Path != "/"+s3Bucket+"/some/where/"+key {
			t.Errorf("%q: URL %s, %v", name, obj.URL, err)
		}
	}
	for _, name := range []string{"noble", "noble/current", strings.Repeat("x", 1020), "\xff", "../secret", "a+b.img?versionId=1"} {
		if _, err := o.Stat(t.Context(), name); !errors.Is(err, origin.ErrNotFound) {
			t.Errorf("Stat(%.20q) = %v, want ErrNotFound", name, err)
		}
	}
}

func TestS3Failures(t *testing.T) {
	s := newS3Server(t)
	s.put(t, "a", random(1, 1000), minio.ChecksumNone)
	for name, test := range map[string]struct {
		edit func(*origin.S3Config)
		want error
	}{
		"wrong secret key": {func(cfg *origin.S3Config) { cfg.SecretKey = "another secret key" }, origin.ErrDenied},
		// This server answers 404 to it; the usual status is 403.
		"unknown key":    {func(cfg *origin.S3Config) { cfg.AccessKey = "AKSOMEBODYELSE" }, origin.ErrUnavailable},
		"no keys":        {func(cfg *origin.S3Config) { cfg.AccessKey, cfg.SecretKey = "", "" }, origin.ErrDenied},
		"no such bucket": {func(cfg *origin.S3Config) { cfg.Bucket = "elsewhere" }, origin.ErrUnavailable},
		"nobody there":   {func(cfg *origin.S3Config) { cfg.Endpoint = "http://" + freePort(t) }, origin.ErrUnavailable},
		"no TLS":         {func(cfg *origin.S3Config) { cfg.Endpoint = "https://" + s.address }, origin.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			var used origin.S3Config
			o := s.origin(t, test.edit, func(cfg *origin.S3Config) { used = *cfg })
			_, stat := o.Stat(t.Context(), "a")
			_, _, open := fetch(o, origin.Request{Name: "a", Length: -1})
			_, _, part := fetch(o, origin.Request{Name: "a", Offset: 5, Length: 5, Version: "sha256:" + strings.Repeat("0", 64)})
			for _, err := range []error{stat, open, part} {
				if !errors.Is(err, test.want) || errors.Is(err, origin.ErrNotFound) {
					t.Errorf("%v, want %v", err, test.want)
					continue
				}
				for _, secret := range []string{used.AccessKey, used.SecretKey, "Signature="} {
					if secret != "" && strings.Contains(err.Error(), secret) {
						t.Errorf("the error tells %q: %v", secret, err)
					}
				}
			}
		})
	}
}

func TestS3Config(t *testing.T) {
	for name, cfg := range map[string]origin.S3Config{
		"no scheme":       {Endpoint: "s3.example:9000", Bucket: "images"},
		"a path":          {Endpoint: "http://s3.example/images", Bucket: "images"},
		"a password":      {Endpoint: "http://me:hidden@s3.example", Bucket: "images"},
		"no secret key":   {Endpoint: "http://s3.example", Bucket: "images", AccessKey: "ak"},
		"only secret key": {Endpoint: "http://s3.example", Bucket: "images", SecretKey: "hidden"},
	} {
		if _, err := origin.NewS3(cfg); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// public lets everybody read the bucket.
func (s *s3Server) public(t *testing.T) {
	t.Helper()
	policy := `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
		"Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::` + s3Bucket + `/*"]}]}`
	if err := s.client.PutBucketPolicy(t.Context(), s3Bucket, policy); err != nil {
		t.Fatal(err)
	}
}

// proxy returns an origin of the public bucket behind something that changes
// requests and answers.
func (s *s3Server) proxy(t *testing.T, request func(*http.Request) (refuse int), answer func(*http.Response), edit ...func(*origin.S3Config)) *origin.S3 {
	t.Helper()
	s.public(t)
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // what breaks off is meant to
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", s.address },
		ModifyResponse: func(r *http.Response) error {
			answer(r)
			return nil
		},
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status := request(r); status != 0 {
			w.WriteHeader(status)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { web.Close(); transport.CloseIdleConnections() })
	public := func(cfg *origin.S3Config) { cfg.Endpoint, cfg.AccessKey, cfg.SecretKey = web.URL, "", "" }
	return s.origin(t, append([]func(*origin.S3Config){public}, edit...)...)
}

func unchanged(*http.Response) {}

// A HEAD that is refused says nothing of a GET.
func TestS3WithoutHead(t *testing.T) {
	s := newS3Server(t)
	data := random(1, 1000)
	tag := s.put(t, "a", data, minio.ChecksumNone)
	s.put(t, "empty", nil, minio.ChecksumNone)
	for _, status := range []int{400, 401, 403, 404, 405, 501} {
		o := s.proxy(t, func(r *http.Request) int {
			if r.Method == http.MethodHead {
				return status
			}
			return 0
		}, unchanged)
		if obj, err := o.Stat(t.Context(), "a"); err != nil || obj.Size != 1000 || obj.Version != tag {
			t.Errorf("HEAD answers %d: Stat = %+v, %v", status, obj, err)
		}
		if obj, err := o.Stat(t.Context(), "empty"); err != nil || obj.Size != 0 {
			t.Errorf("HEAD answers %d: Stat of an empty object = %+v, %v", status, obj, err)
		}
		if _, err := o.Stat(t.Context(), "b"); !errors.Is(err, origin.ErrNotFound) && !errors.Is(err, origin.ErrDenied) {
			t.Errorf("HEAD answers %d: Stat of nothing = %v", status, err)
		}
	}
}

// A server that knows no conditions or ranges hands out no other version, and
// the right bytes.
func TestS3WithoutConditions(t *testing.T) {
	s := newS3Server(t)
	data, other := random(1, 1000), random(2, 1000)
	tag := s.put(t, "a", data, minio.ChecksumNone)
	o := s.proxy(t, func(r *http.Request) int {
		r.Header.Del("If-Match")
		r.Header.Del("Range")
		return 0
	}, unchanged)
	expect(t, o, origin.Request{Name: "a", Offset: 100, Length: 50, Version: tag}, data[100:150])
	expect(t, o, origin.Request{Name: "a", Offset: 100, Length: -1}, data[100:])
	s.put(t, "a", other, minio.ChecksumNone)
	if _, _, err := fetch(o, origin.Request{Name: "a", Offset: 100, Length: 50, Version: tag}); !errors.Is(err, origin.ErrChanged) {
		t.Errorf("%v, want ErrChanged", err)
	}
}

// Without a strong entity tag size and time are the version.
func TestS3WithoutTag(t *testing.T) {
	s := newS3Server(t)
	data := random(1, 1000)
	s.put(t, "a", data, minio.ChecksumNone)
	for _, tag := range []string{"", `W/"abc"`} {
		o := s.proxy(t, func(*http.Request) int { return 0 }, func(r *http.Response) { r.Header.Set("ETag", tag) })
		obj, err := o.Stat(t.Context(), "a")
		if err != nil || !strings.HasPrefix(obj.Version, "stat:1000-") {
			t.Fatalf("Stat = %+v, %v", obj, err)
		}
		expect(t, o, origin.Request{Name: "a", Offset: 100, Length: 50, Version: obj.Version}, data[100:150])
		if _, _, err := fetch(o, origin.Request{Name: "a", Offset: 100, Length: 50, Version: "stat:1000-5"}); !errors.Is(err, origin.ErrChanged) {
			t.Errorf("%v, want ErrChanged", err)
		}
	}
}

// A body that is cut, and one that does not come, break off.
func TestS3BrokenOff(t *testing.T) {
	s := newS3Server(t)
	s.put(t, "a", random(1, 1000), minio.ChecksumNone)
	o := s.proxy(t, func(*http.Request) int { return 0 }, func(r *http.Response) {
		if r.Request.Method == http.MethodGet {
			r.Body = http.MaxBytesReader(nil, r.Body, 500)
		}
	})
	got, _, err := fetch(o, origin.Request{Name: "a", Length: -1})
	if !errors.Is(err, origin.ErrUnavailable) || len(got) > 500 {
		t.Errorf("%d bytes, %v, want ErrUnavailable", len(got), err)
	}
	busy := s.proxy(t, func(*http.Request) int { return http.StatusServiceUnavailable }, unchanged)
	if _, err := busy.Stat(t.Context(), "a"); !errors.Is(err, origin.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

// Nothing is signed for a public bucket.
func TestS3Public(t *testing.T) {
	s := newS3Server(t)
	data := random(1, 1000)
	s.put(t, "a", data, minio.ChecksumSHA256)
	signed := 0
	o := s.proxy(t, func(r *http.Request) int {
		signed += len(r.Header["Authorization"])
		return 0
	}, unchanged)
	if got := readAll(t, context.Background(), o, "a"); !bytes.Equal(got, data) || signed > 0 {
		t.Errorf("%d bytes, %d signatures", len(got), signed)
	}
}

// What else an answer says counts as it does for HTTP.
func TestS3Answers(t *testing.T) {
	s := newS3Server(t)
	s.put(t, "a", random(1, 1000), minio.ChecksumNone)
	for name, test := range map[string]struct {
		field, value string
		refused      origin.Refusal
		fails        bool
	}{
		"nothing":      {"X-Nothing", "", "", false},
		"no-store":     {"Cache-Control", "no-store", origin.RefusedNoStore, false},
		"a page":       {"Content-Type", "text/html; charset=utf-8", origin.RefusedHTML, false},
		"a coding":     {"Content-Encoding", "gzip", "", true},
		"of an upload": {"Content-Encoding", "aws-chunked", "", false},
		"both":         {"Content-Encoding", "gzip,aws-chunked", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			o := s.proxy(t, func(*http.Request) int { return 0 }, func(r *http.Response) { r.Header.Set(test.field, test.value) },
				func(cfg *origin.S3Config) { cfg.Terms.Expect.NotHTML = true })
			stat, statErr := o.Stat(t.Context(), "a")
			_, open, openErr := fetch(o, origin.Request{Name: "a", Length: -1})
			for _, err := range []error{statErr, openErr} {
				if (err != nil) != test.fails || err != nil && !errors.Is(err, origin.ErrUnavailable) {
					t.Errorf("%v, want failure: %v", err, test.fails)
				}
			}
			if stat.Refused != test.refused || open.Refused != test.refused {
				t.Errorf("refused %q and %q, want %q", stat.Refused, open.Refused, test.refused)
			}
		})
	}
}

// Failures say whom they are about, and when to ask again.
func TestS3FailuresSayMore(t *testing.T) {
	s := newS3Server(t)
	s.public(t)
	for name, test := range map[string]struct {
		status     int
		code       string
		keys       bool
		want       error
		credential bool
		temporary  bool
	}{
		"denied to nobody":  {403, "AccessDenied", false, origin.ErrDenied, false, false},
		"denied to us":      {403, "AccessDenied", true, origin.ErrDenied, true, false},
		"no permission":     {401, "Unauthorized", false, origin.ErrDenied, true, false},
		"expired":           {400, "ExpiredToken", true, origin.ErrDenied, true, false},
		"wrong signature":   {403, "SignatureDoesNotMatch", true, origin.ErrDenied, true, false},
		"in an archive":     {403, "InvalidObjectState", true, origin.ErrDenied, false, false},
		"too much":          {503, "SlowDown", true, origin.ErrUnavailable, false, true},
		"broken":            {500, "InternalError", true, origin.ErrUnavailable, false, true},
		"no such key":       {404, "NoSuchKey", true, origin.ErrNotFound, false, false},
		"no such bucket":    {404, "NoSuchBucket", true, origin.ErrUnavailable, false, false},
		"no code":           {404, "", true, origin.ErrNotFound, false, false},
		"gone":              {410, "", true, origin.ErrNotFound, false, false},
		"a code to deceive": {404, "x\n<b>", true, origin.ErrNotFound, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(test.status)
				if test.code != "" && r.Method == http.MethodGet {
					fmt.Fprintf(w, "<Error><Code>%s</Code><Message>of a secret</Message></Error>", html.EscapeString(test.code))
				}
			}))
			defer web.Close()
			o := s.origin(t, func(cfg *origin.S3Config) {
				cfg.Endpoint = web.URL
				if !test.keys {
					cfg.AccessKey, cfg.SecretKey = "", ""
				}
			})
			_, err := o.Stat(t.Context(), "a")
			var f *origin.Failure
			if !errors.Is(err, test.want) || !errors.As(err, &f) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if f.Status != test.status || f.RetryAfter != 7*time.Second || f.Credential != test.credential || f.Temporary != test.temporary {
				t.Errorf("%+v", f)
			}
			if text := err.Error(); strings.ContainsAny(text, "\n<") || strings.Contains(text, "secret") {
				t.Errorf("the server's words are told: %q", text)
			}
		})
	}
}
