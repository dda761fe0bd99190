package origin_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/imgcache/imgcache-host/host/origin"
)

// s3Tool is a real S3 server over a directory, versitygw.
var s3Tool = filepath.Join("..", "..", ".tools", "versitygw")

const (
	s3AccessKey = "AKTESTTESTTEST"
	s3SecretKey = "s3cr3t-of-the-tests"
	s3Bucket    = "images"
)

// s3Server is a running S3 server with the bucket s3Bucket.
type s3Server struct {
	address string
	dir     string // the files of the bucket
	client  *minio.Core
}

// newS3Server starts a server, which ends with the test.
func newS3Server(t *testing.T) *s3Server {
	t.Helper()
	if _, err := os.Stat(s3Tool); err != nil {
		t.Fatalf("there is no S3 server to test against (%v); run: make tools", err)
	}
	root := t.TempDir()
	s := &s3Server{dir: filepath.Join(root, "data", s3Bucket)}
	sidecar := filepath.Join(root, "attributes") // not every file system has extended ones
	for _, dir := range []string{filepath.Dir(s.dir), sidecar} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for tries := 5; s.client == nil; tries-- { // somebody else may take the port first
		s.address = freePort(t)
		output := filepath.Join(root, "output")
		if !s.start(t, output, filepath.Dir(s.dir), sidecar) && tries == 0 {
			text, _ := os.ReadFile(output)
			t.Fatalf("the S3 server does not start:\n%s", text)
		}
	}
	if err := s.client.MakeBucket(t.Context(), s3Bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start reports whether the server came up.
func (s *s3Server) start(t *testing.T, output string, args ...string) bool {
	t.Helper()
	out, err := os.Create(output)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(s3Tool, "--port", s.address, "--health", "/health", "--quiet", "posix", "--sidecar", args[1], args[0])
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3AccessKey, "ROOT_SECRET_KEY="+s3SecretKey)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }() //nolint:errcheck // it is killed
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	if !s.healthy(ended) {
		return false
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	s.client, err = minio.NewCore(s.address, &minio.Options{
		Creds: credentials.NewStaticV4(s3AccessKey, s3SecretKey, ""), Transport: transport, Region: "us-east-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// healthy waits until the server answers, and reports whether it does.
func (s *s3Server) healthy(ended <-chan struct{}) bool {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if resp, err := client.Get("http://" + s.address + "/health"); err == nil {
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		}
		select {
		case <-ended:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return false
}

// put stores an object and returns its entity tag, with quotes. With a checksum
// the server keeps, and declares, that of the whole.
func (s *s3Server) put(t *testing.T, key string, data []byte, checksum minio.ChecksumType) string {
	t.Helper()
	var opts minio.PutObjectOptions
	if checksum.IsSet() {
		opts.UserMetadata = map[string]string{checksum.Key(): checksum.ChecksumBytes(data).Encoded()}
	}
	info, err := s.client.PutObject(t.Context(), s3Bucket, key, bytes.NewReader(data), int64(len(data)), "", "", opts)
	if err != nil {
		t.Fatal(err)
	}
	return `"` + info.ETag + `"`
}

// putParts stores an object in two parts, with the SHA-256 sum of each.
func (s *s3Server) putParts(t *testing.T, key string, parts ...[]byte) string {
	t.Helper()
	ctx := t.Context()
	id, err := s.client.NewMultipartUpload(ctx, s3Bucket, key, minio.PutObjectOptions{
		UserMetadata: map[string]string{"x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-type": "COMPOSITE"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var done []minio.CompletePart
	for i, data := range parts {
		sum := minio.ChecksumSHA256.ChecksumBytes(data).Encoded()
		header := http.Header{"X-Amz-Checksum-Sha256": {sum}}
		part, err := s.client.PutObjectPart(ctx, s3Bucket, key, id, i+1, bytes.NewReader(data), int64(len(data)),
			minio.PutObjectPartOptions{CustomHeader: header})
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, minio.CompletePart{PartNumber: i + 1, ETag: part.ETag, ChecksumSHA256: sum})
	}
	info, err := s.client.CompleteMultipartUpload(ctx, s3Bucket, key, id, done, minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return `"` + info.ETag + `"`
}

// origin returns an origin of the bucket.
func (s *s3Server) origin(t *testing.T, edit ...func(*origin.S3Config)) *origin.S3 {
	t.Helper()
	cfg := origin.S3Config{
		Name: "objects", Endpoint: "http://" + s.address, Bucket: s3Bucket, Region: "us-east-1",
		AccessKey: s3AccessKey, SecretKey: s3SecretKey, ConnectTimeout: time.Minute, IdleTimeout: time.Minute,
	}
	for _, f := range edit {
		f(&cfg)
	}
	o, err := origin.NewS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// s3World makes worlds of an S3 server that keeps, or does not, sums of whole
// objects.
func s3World(checksum minio.ChecksumType, edit ...func(*origin.S3Config)) func(*testing.T, []byte) world {
	return func(t *testing.T, data []byte) world {
		s := newS3Server(t)
		put := func(data []byte) { s.put(t, "a", data, checksum) }
		put(data)
		return world{origin: s.origin(t, edit...), replace: put, declares: checksum == minio.ChecksumSHA256}
	}
}

// readAll reads a body within a test.
func readAll(t *testing.T, ctx context.Context, o origin.Origin, name string) []byte {
	t.Helper()
	_, body, err := o.Open(ctx, origin.Request{Name: name, Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
