package origin_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/origin"
)

// listed is a directory of images with lists, and an origin of them that counts
// what it is asked.
type listed struct {
	t     *testing.T
	dir   string
	inner *countingOrigin
	log   bytes.Buffer
	clock time.Time
}

func newListed(t *testing.T) *listed {
	l := &listed{t: t, dir: t.TempDir(), clock: time.Now().Add(-time.Hour)}
	l.inner = &countingOrigin{Origin: origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: l.dir}), down: map[string]error{}, asked: map[string]int{}, read: map[string]int{}}
	return l
}

// put stores a file; each has another time.
func (l *listed) put(name string, data []byte) {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	l.clock = l.clock.Add(time.Second)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path+".new", data, 0o640),
		os.Chtimes(path+".new", l.clock, l.clock), os.Rename(path+".new", path))
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *listed) origin(edit ...func(*origin.ChecksumsConfig)) origin.Origin {
	l.t.Helper()
	cfg := origin.ChecksumsConfig{File: "SHA256SUMS", Log: slog.New(slog.NewTextHandler(&l.log, nil))}
	for _, f := range edit {
		f(&cfg)
	}
	o, err := origin.Checksums(l.inner, cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	return o
}

// refused reports whether an image is not to be stored, as it is not listed.
func refused(obj origin.Object) bool {
	return obj.Refused == origin.RefusedSum && len(obj.Digests) == 0
}

func required(cfg *origin.ChecksumsConfig) { cfg.Required = true }

func file(name string) func(*origin.ChecksumsConfig) {
	return func(cfg *origin.ChecksumsConfig) { cfg.File = name }
}

// signed requires a signature by GnuPG's test key; "" is one within the list.
func signed(t *testing.T, signature string) func(*origin.ChecksumsConfig) {
	t.Helper()
	k, err := origin.ReadKeyring(filepath.Join("..", "..", "testdata", "signed", "keyring.gpg"))
	if err != nil {
		t.Fatal(err)
	}
	return func(cfg *origin.ChecksumsConfig) { cfg.Keyring, cfg.Signature = k, signature }
}

// countingOrigin counts questions, and fails where it is told to.
type countingOrigin struct {
	origin.Origin
	mu    sync.Mutex
	down  map[string]error // by name
	asked map[string]int   // Stat by name
	read  map[string]int   // Open by name
	hold  chan struct{}    // a Stat of a list waits for it; nil: for nothing
}

func (c *countingOrigin) count(counts map[string]int, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts[name]++
	return c.down[name]
}

func (c *countingOrigin) Stat(ctx context.Context, name string) (origin.Object, error) {
	if err := c.count(c.asked, name); err != nil {
		return origin.Object{}, err
	}
	if c.hold != nil && name == "SHA256SUMS" {
		<-c.hold
	}
	return c.Origin.Stat(ctx, name)
}

func (c *countingOrigin) Open(ctx context.Context, r origin.Request) (origin.Object, io.ReadCloser, error) {
	if err := c.count(c.read, r.Name); err != nil {
		return origin.Object{}, nil, err
	}
	return c.Origin.Open(ctx, r)
}

func sha256Version(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// line is the line of a list, as sha256sum writes it.
func line(data []byte, name string) []byte {
	return fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(data), name)
}

// sumsWorld makes worlds whose images are in lists.
func sumsWorld(edit ...func(*origin.ChecksumsConfig)) func(*testing.T, []byte) world {
	return func(t *testing.T, data []byte) world {
		l := newListed(t)
		put := func(data []byte) {
			l.put("a", data)
			l.put("SHA256SUMS", line(data, "a"))
			l.put("a.sha256", line(data, "a"))
		}
		put(data)
		return world{origin: l.origin(edit...), replace: put, declares: true}
	}
}

// The digest of a list is found wherever the list is said to be.
func TestWhereListsAre(t *testing.T) {
	data := random(1, 1000)
	name := "noble/current/x.img"
	bare := fmt.Appendf(nil, "%x\n", sha256.Sum256(data))
	for _, test := range []struct {
		file, at string
		text     []byte
		found    bool
	}{
		{"SHA256SUMS", "noble/current/SHA256SUMS", line(data, "x.img"), true},
		{"SHA256SUMS", "noble/current/SHA256SUMS", line(data, "./x.img"), true},
		{"sums/SHA256SUMS", "noble/current/sums/SHA256SUMS", line(data, "x.img"), true},
		{"/SHA256SUMS", "SHA256SUMS", line(data, "noble/current/x.img"), true},
		{"/all/sums", "all/sums", line(data, "./noble/current/x.img"), true},
		{"{name}.sha256", "noble/current/x.img.sha256", line(data, "x.img"), true},
		{"{name}.sha256", "noble/current/x.img.sha256", line(data, "build/x.img"), true},
		{"{name}.sha256", "noble/current/x.img.sha256", bare, true},
		{"/sums/{name}", "sums/noble/current/x.img", bare, true},
		{".sums/{name}.txt", "noble/current/.sums/x.img.txt", bare, true},

		{"SHA256SUMS", "noble/SHA256SUMS", line(data, "x.img"), false},
		{"SHA256SUMS", "noble/current/SHA256SUMS", line(data, "y.img"), false},
		{"SHA256SUMS", "noble/current/SHA256SUMS", bare, false},
		{"/SHA256SUMS", "SHA256SUMS", line(data, "x.img"), false},
		{"{name}.sha256", "noble/current/x.img.sha256", line(data, "y.img"), false},
	} {
		t.Run(test.file+" in "+test.at, func(t *testing.T) {
			l := newListed(t)
			l.put(name, data)
			l.put(test.at, test.text)
			obj, err := l.origin(file(test.file)).Stat(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if found := obj.Version == sha256Version(data) && len(obj.Digests) == 1; found != test.found {
				t.Errorf("%+v, want found: %v", obj, test.found)
			}
			obj, err = l.origin(file(test.file), required).Stat(t.Context(), name)
			if err != nil || refused(obj) == test.found {
				t.Errorf("required: %+v, %v, want found: %v", obj, err, test.found)
			}
			if obj, err := l.origin(file(test.file), required).Stat(t.Context(), test.at); err != nil || len(obj.Digests) > 0 || refused(obj) {
				t.Errorf("the list itself: %+v, %v", obj, err)
			}
		})
	}
}

func TestListNames(t *testing.T) {
	l := newListed(t)
	for name, edit := range map[string]func(*origin.ChecksumsConfig){
		"nothing":       file(""),
		"a way up":      file("../SHA256SUMS"),
		"a way round":   file("/a/../SHA256SUMS"),
		"a directory":   file("sums/"),
		"the image":     file("{name}"),
		"another brace": file("{base}.sha256"),
		"one signature of each image": func(cfg *origin.ChecksumsConfig) {
			cfg.Keyring, cfg.Signature = &origin.Keyring{}, "{name}.gpg"
		},
	} {
		cfg := origin.ChecksumsConfig{File: "SHA256SUMS"}
		edit(&cfg)
		if _, err := origin.Checksums(l.inner, cfg); err == nil {
			t.Errorf("%s is a list", name)
		}
	}
}

// The strongest listed digest is the version, and all of them are declared.
func TestSeveralSums(t *testing.T) {
	l, data := newListed(t), random(1, 1000)
	l.put("a", data)
	l.put("SHA256SUMS", append(line(data, "a"), fmt.Sprintf("SHA512 (a) = %x\n", sha512.Sum512(data))...))
	o := l.origin()
	obj, err := o.Stat(t.Context(), "a")
	if err != nil || len(obj.Digests) != 2 || obj.Version != fmt.Sprintf("sha512:%x", sha512.Sum512(data)) {
		t.Errorf("%+v, %v", obj, err)
	}
	expect(t, o, origin.Request{Name: "a", Offset: 10, Length: 5, Version: sha256Version(data)}, data[10:15])
}

// A list is read when it has changed, and asked for with each image.
func TestListsAreReadAgain(t *testing.T) {
	l, data := newListed(t), random(1, 1000)
	l.put("a", data)
	l.put("SHA256SUMS", line(data, "a"))
	o := l.origin()
	for range 3 {
		if obj, err := o.Stat(t.Context(), "a"); err != nil || obj.Version != sha256Version(data) {
			t.Fatalf("%+v, %v", obj, err)
		}
	}
	if asked, read := l.inner.asked["SHA256SUMS"], l.inner.read["SHA256SUMS"]; asked != 3 || read != 1 {
		t.Errorf("the list was asked for %d times and read %d times", asked, read)
	}
	other := random(2, 1000) // of the same size; only the line tells it
	l.put("SHA256SUMS", line(other, "a"))
	if obj, err := o.Stat(t.Context(), "a"); err != nil || obj.Version != sha256Version(other) {
		t.Errorf("after a change of the line: %+v, %v", obj, err)
	}
	if err := os.Remove(filepath.Join(l.dir, "SHA256SUMS")); err != nil {
		t.Fatal(err)
	}
	if obj, err := o.Stat(t.Context(), "a"); err != nil || len(obj.Digests) > 0 {
		t.Errorf("without the list: %+v, %v", obj, err)
	}
}

// However many ask at once, one question is under way, and who leaves does not
// end it for the others.
func TestListsAreAskedForOnce(t *testing.T) {
	l, data := newListed(t), random(1, 1000)
	for i := range 20 {
		l.put(fmt.Sprint("a", i), data)
	}
	l.put("SHA256SUMS", line(data, "a0"))
	l.inner.hold = make(chan struct{})
	o := l.origin()
	leaving, leave := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	left := make(chan error)
	go func() {
		_, err := o.Stat(leaving, "a0")
		left <- err
	}()
	l.waitAsked(t, "SHA256SUMS", 1)
	var others sync.WaitGroup
	for i := range 20 {
		others.Go(func() {
			if _, err := o.Stat(t.Context(), fmt.Sprint("a", i)); err != nil {
				t.Error(err)
			}
		})
	}
	leave(gone)
	if err := <-left; !errors.Is(err, gone) {
		t.Errorf("who left: %v", err)
	}
	for i := range 20 {
		l.waitAsked(t, fmt.Sprint("a", i), 1)
	}
	close(l.inner.hold)
	others.Wait()
	// One that came after the answer may have asked anew.
	if n := l.inner.asked["SHA256SUMS"]; n > 20 {
		t.Errorf("the list was asked for %d times", n)
	}
	if n := l.inner.read["SHA256SUMS"]; n != 1 {
		t.Errorf("the list was read %d times", n)
	}
}

// waitAsked waits until a name has been asked for.
func (l *listed) waitAsked(t *testing.T, name string, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		l.inner.mu.Lock()
		asked := l.inner.asked[name]
		l.inner.mu.Unlock()
		if asked >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s was asked for %d times, want %d", name, asked, n)
		}
	}
}

// What is of no use is said once, and again when that changes; the image is as
// without a list, or refused where one is required.
func TestListsOfNoUse(t *testing.T) {
	data := random(1, 1000)
	unavailable := fmt.Errorf("%w: away", origin.ErrUnavailable)
	for name, spoil := range map[string]func(*listed){
		"missing":       func(*listed) {},
		"no checksums":  func(l *listed) { l.put("SHA256SUMS", []byte("<html>Log in</html>")) },
		"empty":         func(l *listed) { l.put("SHA256SUMS", nil) },
		"too large":     func(l *listed) { l.put("SHA256SUMS", append(line(data, "a"), make([]byte, 16<<20)...)) },
		"disputed":      func(l *listed) { l.put("SHA256SUMS", append(line(data, "a"), line(nil, "a")...)) },
		"away":          func(l *listed) { l.inner.down["SHA256SUMS"] = unavailable },
		"not permitted": func(l *listed) { l.inner.down["SHA256SUMS"] = origin.ErrDenied },
	} {
		t.Run(name, func(t *testing.T) {
			l := newListed(t)
			l.put("a", data)
			spoil(l)
			o := l.origin()
			plain, err := l.inner.Origin.Stat(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if obj, err := o.Stat(t.Context(), "a"); err != nil || obj.Version != plain.Version || len(obj.Digests) > 0 {
					t.Errorf("%+v, %v", obj, err)
				}
			}
			expect(t, o, origin.Request{Name: "a", Offset: 10, Length: -1, Version: plain.Version}, data[10:])
			if n := strings.Count(l.log.String(), "level=WARN"); n != 1 || !strings.Contains(l.log.String(), "list=SHA256SUMS") {
				t.Errorf("%d warnings, want one that names the list:\n%s", n, l.log.String())
			}
			strict := l.origin(required)
			if obj, err := strict.Stat(t.Context(), "a"); err != nil || !refused(obj) {
				t.Errorf("required: Stat = %+v, %v", obj, err)
			}
			for _, version := range []string{"", plain.Version} {
				obj := expect(t, strict, origin.Request{Name: "a", Length: -1, Version: version}, data)
				if !refused(obj) {
					t.Errorf("required: version %q may be stored: %+v", version, obj)
				}
			}
			delete(l.inner.down, "SHA256SUMS")
			l.put("SHA256SUMS", line(data, "a"))
			for _, o := range []origin.Origin{o, strict} {
				if obj, err := o.Stat(t.Context(), "a"); err != nil || obj.Version != sha256Version(data) || obj.Refused != "" {
					t.Errorf("after it was put right: %+v, %v", obj, err)
				}
			}
		})
	}
}

// A list that cannot be asked for counts as it was read; one that is taken away
// or spoilt does not.
func TestListsThatGoAway(t *testing.T) {
	l, data := newListed(t), random(1, 1000)
	l.put("a", data)
	l.put("SHA256SUMS", line(data, "a"))
	o := l.origin(required)
	for _, err := range []error{nil, origin.ErrUnavailable, origin.ErrDenied, context.DeadlineExceeded, nil} {
		l.inner.down["SHA256SUMS"] = err
		if obj, err := o.Stat(t.Context(), "a"); err != nil || obj.Version != sha256Version(data) {
			t.Errorf("%v: %+v", err, obj)
		}
	}
	l.put("SHA256SUMS", []byte("nothing of use"))
	if obj, err := o.Stat(t.Context(), "a"); err != nil || !refused(obj) {
		t.Errorf("a spoilt list: %+v, %v", obj, err)
	}
	for _, want := range []string{"it counts as it was read before", "a list of checksums is read again", "holds no checksum"} {
		if !strings.Contains(l.log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, l.log.String())
		}
	}
}

// Bytes of a listed version are those that were last seen under it.
func TestVersionsOfLists(t *testing.T) {
	l, data, other := newListed(t), random(1, 1000), random(2, 1000)
	l.put("a", data)
	l.put("SHA256SUMS", line(data, "a"))
	o := l.origin()
	version := sha256Version(data)
	if _, err := o.Stat(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	asked := l.inner.asked["SHA256SUMS"]
	expect(t, o, origin.Request{Name: "a", Offset: 10, Length: 5, Version: version}, data[10:15])
	if l.inner.asked["SHA256SUMS"] != asked {
		t.Error("the list was asked for, though the version is known")
	}

	// The same bytes, stored anew: the rest goes on, as it is checked as a whole.
	l.put("a", data)
	expect(t, o, origin.Request{Name: "a", Offset: 10, Length: -1, Version: version}, data[10:])

	// Other bytes under the old line are no part of it.
	l.put("a", other)
	if _, _, err := fetch(o, origin.Request{Name: "a", Offset: 10, Length: 5, Version: version}); !errors.Is(err, origin.ErrChanged) {
		t.Errorf("a part of other bytes: %v, want ErrChanged", err)
	}
	l.put("SHA256SUMS", line(other, "a"))
	for name, o := range map[string]origin.Origin{"that saw the old one": o, "after a restart": l.origin()} {
		for _, length := range []int64{-1, 5} {
			_, _, err := fetch(o, origin.Request{Name: "a", Offset: 10, Length: length, Version: version})
			if !errors.Is(err, origin.ErrChanged) {
				t.Errorf("%s: %v, want ErrChanged", name, err)
			}
		}
	}
	// A transfer that began before there was a list goes on.
	plain, err := l.inner.Origin.Stat(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	obj := expect(t, l.origin(), origin.Request{Name: "a", Offset: 10, Length: -1, Version: plain.Version}, other[10:])
	if obj.Version != plain.Version {
		t.Errorf("it goes on as %s", obj.Version)
	}
}

// signedList stores the list that GnuPG has signed, and returns the image in it.
func (l *listed) signedList(t *testing.T, list, signature string) {
	t.Helper()
	l.put("x.img", []byte("the image\n"))
	for from, to := range map[string]string{list: "SHA256SUMS", signature: "SHA256SUMS.sig"} {
		if from == "" {
			continue
		}
		data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "signed", from))
		if err != nil {
			t.Fatal(err)
		}
		l.put(to, data)
	}
}

func TestSignedLists(t *testing.T) {
	for name, test := range map[string]struct {
		list, signature string // files
		option          string
		good            bool
	}{
		"binary":                {"SHA256SUMS", "SHA256SUMS.gpg", "SHA256SUMS.sig", true},
		"armored":               {"SHA256SUMS", "SHA256SUMS.asc", "SHA256SUMS.sig", true},
		"within":                {"SHA256SUMS.clear", "", "", true},
		"a message":             {"SHA256SUMS.message", "", "", true},
		"of the whole origin":   {"SHA256SUMS", "SHA256SUMS.gpg", "/SHA256SUMS.sig", true},
		"no signature":          {"SHA256SUMS", "", "SHA256SUMS.sig", false},
		"none within":           {"SHA256SUMS", "", "", false},
		"by a stranger":         {"SHA256SUMS", "SHA256SUMS.stranger", "SHA256SUMS.sig", false},
		"within, by a stranger": {"SHA256SUMS.clear.stranger", "", "", false},
		"of another list":       {"SHA256SUMS.clear", "SHA256SUMS.gpg", "SHA256SUMS.sig", false},
		"no signature at all":   {"SHA256SUMS", "keyring.gpg", "SHA256SUMS.sig", false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newListed(t)
			l.signedList(t, test.list, test.signature)
			want := sha256Version([]byte("the image\n"))
			obj, err := l.origin(signed(t, test.option)).Stat(t.Context(), "x.img")
			if err != nil || (obj.Version == want) != test.good {
				t.Errorf("%+v, %v, want good: %v", obj, err, test.good)
			}
			obj, err = l.origin(required, signed(t, test.option)).Stat(t.Context(), "x.img")
			if err != nil || refused(obj) == test.good {
				t.Errorf("required: %+v, %v, want good: %v", obj, err, test.good)
			}
		})
	}
}

// A list that was wrongly signed counts when its signature is put right, though
// it is the same list; and none counts any more that was changed.
func TestSignaturesAreReadAgain(t *testing.T) {
	l := newListed(t)
	l.signedList(t, "SHA256SUMS", "SHA256SUMS.stranger")
	o := l.origin(required, signed(t, "SHA256SUMS.sig"))
	for range 3 {
		if obj, err := o.Stat(t.Context(), "x.img"); err != nil || !refused(obj) {
			t.Errorf("by a stranger: %+v, %v", obj, err)
		}
	}
	if n := l.inner.read["SHA256SUMS"]; n != 1 {
		t.Errorf("the list was read %d times, though nothing changed", n)
	}
	l.signedList(t, "", "SHA256SUMS.gpg")
	if obj, err := o.Stat(t.Context(), "x.img"); err != nil || len(obj.Digests) != 1 {
		t.Errorf("signed rightly: %+v, %v", obj, err)
	}
	l.put("SHA256SUMS", line([]byte("another image"), "x.img"))
	if obj, err := o.Stat(t.Context(), "x.img"); err != nil || !refused(obj) {
		t.Errorf("a line was changed: %+v, %v", obj, err)
	}
	if obj, err := o.Stat(t.Context(), "SHA256SUMS.sig"); err != nil || obj.Size == 0 {
		t.Errorf("the signature itself: %+v, %v", obj, err)
	}
}

// The lists that are held are bounded; those that were asked for last stay.
func TestHeldLists(t *testing.T) {
	l, data := newListed(t), random(1, 1000)
	padding := bytes.Repeat([]byte("# nothing\n"), 600<<10) // three lists are more than are held
	for _, dir := range []string{"a", "b", "c"} {
		l.put(dir+"/x.img", data)
		l.put(dir+"/SHA256SUMS", append(line(data, "x.img"), padding...))
	}
	o := l.origin()
	for _, dir := range []string{"a", "b", "a", "c", "a", "b"} {
		if obj, err := o.Stat(t.Context(), dir+"/x.img"); err != nil || len(obj.Digests) != 1 {
			t.Fatalf("%+v, %v", obj, err)
		}
	}
	for dir, want := range map[string]int{"a": 1, "b": 2, "c": 1} {
		if n := l.inner.read[dir+"/SHA256SUMS"]; n != want {
			t.Errorf("the list in %s was read %d times, want %d", dir, n, want)
		}
	}
}
