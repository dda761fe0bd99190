package origin_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/minio/minio-go/v7"
)

// world is an origin that has the image "a", and ways to change it.
type world struct {
	origin   origin.Origin
	replace  func(data []byte)
	declares bool // the digest of the image is known
}

// worlds are all the kinds of origins. The conformance tests hold for each.
var worlds = map[string]func(t *testing.T, data []byte) world{
	"directory": func(t *testing.T, data []byte) world {
		dir := t.TempDir()
		at := time.Now()
		put := func(data []byte) {
			tmp := filepath.Join(dir, ".new")
			if err := os.WriteFile(tmp, data, 0o640); err != nil {
				t.Fatal(err)
			}
			at = at.Add(time.Second)
			if err := errors.Join(os.Chtimes(tmp, at, at), os.Rename(tmp, filepath.Join(dir, "a"))); err != nil {
				t.Fatal(err)
			}
		}
		put(data)
		return world{origin: origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir}), replace: put}
	},
	"http with ETag":          web(`ETag`, func(n string) string { return `"` + n + `"` }, nil),
	"http with Last-Modified": web(`Last-Modified`, modTime, nil),
	"http with both, no ranges": web(`ETag`, func(n string) string { return `"` + n + `"` }, func(s *server) {
		s.noRanges = true
		s.headers["Last-Modified"] = modTime("1")
	}),
	"http without HEAD":               web(`ETag`, func(n string) string { return `"` + n + `"` }, func(s *server) { s.noHead = 405 }),
	"http with HEAD 501":              web(`ETag`, func(n string) string { return `"` + n + `"` }, func(s *server) { s.noHead = 501 }),
	"directory with a list":           sumsWorld(),
	"directory with required lists":   sumsWorld(required, file("{name}.sha256")),
	"s3":                              s3World(minio.ChecksumNone),
	"s3 with SHA-256":                 s3World(minio.ChecksumSHA256),
	"s3 with CRC":                     s3World(minio.ChecksumFullObjectCRC32C),
	"s3 that is asked for its region": s3World(minio.ChecksumNone, func(cfg *origin.S3Config) { cfg.Region = "" }),
}

func modTime(n string) string {
	return time.Unix(1e9+int64(n[0]), 0).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
}

// web makes worlds of a server whose versions differ in one header.
func web(field string, value func(n string) string, knobs func(*server)) func(*testing.T, []byte) world {
	return func(t *testing.T, data []byte) world {
		s := newServer(t, data)
		s.headers[field] = value("1")
		if knobs != nil {
			knobs(s)
		}
		return world{origin: s.origin(t), replace: func(data []byte) {
			s.set(func(s *server) { s.data, s.headers[field] = data, value("2") })
		}}
	}
}

func eachWorld(t *testing.T, test func(t *testing.T, w world, data []byte)) {
	for name, build := range worlds {
		t.Run(name, func(t *testing.T) {
			data := random(1, 300_000)
			test(t, build(t, data), data)
		})
	}
}

func TestWhole(t *testing.T) {
	eachWorld(t, func(t *testing.T, w world, data []byte) {
		stat, err := w.origin.Stat(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if stat.Version == "" || stat.Size != int64(len(data)) || stat.URL == "" || len(stat.Digests) > 0 != w.declares {
			t.Errorf("Stat = %+v", stat)
		}
		opened := expect(t, w.origin, origin.Request{Name: "a", Length: -1}, data)
		if diff := cmp.Diff(stat, opened); diff != "" {
			t.Errorf("Open describes another object than Stat: %s", diff)
		}
		expect(t, w.origin, origin.Request{Name: "a", Length: -1, Version: stat.Version}, data)
	})
}

func TestParts(t *testing.T) {
	eachWorld(t, func(t *testing.T, w world, data []byte) {
		stat, err := w.origin.Stat(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		end := int64(len(data))
		for _, p := range []struct{ offset, length int64 }{
			{0, 1},
			{0, 0},
			{1, -1},
			{1000, 2000},
			{0, end},
			{end - 1, 1},
			{end - 1, -1},
			{70_000, 0},
		} {
			want := data[p.offset:]
			if p.length >= 0 {
				want = want[:p.length]
			}
			for _, version := range []string{"", stat.Version} {
				obj := expect(t, w.origin, origin.Request{Name: "a", Offset: p.offset, Length: p.length, Version: version}, want)
				if diff := cmp.Diff(stat, obj); diff != "" {
					t.Errorf("part %v: Open describes another object than Stat: %s", p, diff)
				}
			}
		}
	})
}

// More than there is never ends cleanly.
func TestPastTheEnd(t *testing.T) {
	eachWorld(t, func(t *testing.T, w world, data []byte) {
		end := int64(len(data))
		for _, r := range []origin.Request{
			{Name: "a", Offset: end - 10, Length: 11},
			{Name: "a", Offset: 0, Length: end + 1},
			{Name: "a", Offset: end + 1, Length: -1},
			{Name: "a", Offset: end + 1, Length: 1},
		} {
			if _, _, err := fetch(w.origin, r); !errors.Is(err, origin.ErrUnavailable) {
				t.Errorf("%+v: %v, want ErrUnavailable", r, err)
			}
		}
	})
}

func TestOtherVersion(t *testing.T) {
	eachWorld(t, func(t *testing.T, w world, data []byte) {
		before, err := w.origin.Stat(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		other := random(2, 200_000)
		w.replace(other)
		after, err := w.origin.Stat(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if after.Version == before.Version {
			t.Fatalf("the version stays %s", after.Version)
		}
		for _, r := range []origin.Request{
			{Name: "a", Length: -1, Version: before.Version},
			{Name: "a", Offset: 100, Length: -1, Version: before.Version},
			{Name: "a", Offset: 100, Length: 50, Version: before.Version},
			{Name: "a", Offset: 250_000, Length: -1, Version: before.Version},
		} {
			if _, _, err := fetch(w.origin, r); !errors.Is(err, origin.ErrChanged) {
				t.Errorf("%+v: %v, want ErrChanged", r, err)
			}
		}
		expect(t, w.origin, origin.Request{Name: "a", Offset: 100, Length: -1, Version: after.Version}, other[100:])
	})
}

func TestAbsent(t *testing.T) {
	eachWorld(t, func(t *testing.T, w world, _ []byte) {
		for _, name := range []string{"b", "a/b", "..", "../a", "/a", "", ".", "a/", "a//b", "a\x00"} {
			if _, err := w.origin.Stat(t.Context(), name); !errors.Is(err, origin.ErrNotFound) || !errors.Is(err, sdk.ErrNotFound) {
				t.Errorf("Stat(%q) = %v, want ErrNotFound", name, err)
			}
			if _, _, err := fetch(w.origin, origin.Request{Name: name, Length: -1}); !errors.Is(err, origin.ErrNotFound) {
				t.Errorf("Open(%q) = %v, want ErrNotFound", name, err)
			}
		}
	})
}

func TestEmptyImage(t *testing.T) {
	eachWorld(t, func(t *testing.T, w world, _ []byte) {
		w.replace(nil)
		stat, err := w.origin.Stat(t.Context(), "a")
		if err != nil || stat.Size != 0 {
			t.Errorf("Stat = %+v, %v", stat, err)
		}
		expect(t, w.origin, origin.Request{Name: "a", Length: -1}, nil)
	})
}

// The context ends calls and bodies with its own error.
func TestContext(t *testing.T) {
	eachWorld(t, func(t *testing.T, w world, _ []byte) {
		cause := errors.New("nobody waits any more")
		ctx, cancel := context.WithCancelCause(t.Context())
		_, body, err := w.origin.Open(ctx, origin.Request{Name: "a", Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		cancel(cause)
		if _, err := io.Copy(io.Discard, body); err != nil && !errors.Is(err, cause) {
			t.Errorf("Read = %v, want the cause", err)
		}
		if _, err := w.origin.Stat(ctx, "a"); !errors.Is(err, cause) {
			t.Errorf("Stat = %v, want the cause", err)
		}
		if _, _, err := w.origin.Open(ctx, origin.Request{Name: "a", Length: -1}); !errors.Is(err, cause) {
			t.Errorf("Open = %v, want the cause", err)
		}
	})
}

// An error stays, so that a reader that was given bytes with it meets it again.
func TestErrorsStay(t *testing.T) {
	eachWorld(t, func(t *testing.T, w world, data []byte) {
		_, body, err := w.origin.Open(t.Context(), origin.Request{Name: "a", Offset: 10, Length: 20})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if _, err := io.ReadAll(body); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if n, err := body.Read(make([]byte, 10)); n != 0 || err != io.EOF {
				t.Errorf("Read after the end = %d, %v", n, err)
			}
		}
	})
}
