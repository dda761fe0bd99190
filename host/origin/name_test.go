package origin_test

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

// paths are paths of images, their names, and what the origin is asked for
// where that is another spelling.
var paths = []struct{ sent, name, asked string }{
	{"a.img", "a.img", ""},
	{"A.IMG", "A.IMG", ""},
	{"noble/current/x.img", "noble/current/x.img", ""},
	{"a%20b", "a b", ""},
	{"gr%C3%B6%C3%9Fe.img", "größe.img", ""},
	{"gr%c3%b6%c3%9fe.img", "größe.img", "gr%C3%B6%C3%9Fe.img"},
	{"größe.img", "größe.img", "gr%C3%B6%C3%9Fe.img"},
	{"%E6%98%A0%F0%9F%90%A7", "映🐧", ""},
	{"%61%2E%69%6d%67", "a.img", "a.img"},
	{"distro%7Erc1.img", "distro~rc1.img", "distro~rc1.img"},
	{"a+b.img", "a+b.img", ""},
	{"a%2Bb.img", "a%2Bb.img", ""},
	{"a%2bb.img", "a%2Bb.img", "a%2Bb.img"},
	{"app:1.2.3@x=y,z", "app:1.2.3@x=y,z", ""},
	{"app%3A1.2.3%40x%3Dy", "app%3A1.2.3%40x%3Dy", ""},
	{"!$&'()*;", "!$&'()*;", ""},
	{"a[1]", "a[1]", ""},
	{"a%5B1%5D", "a%5B1%5D", ""},
	{"what%3F%23", "what%3F#", ""},
	{"what%3fv=1", "what%3Fv=1", "what%3Fv=1"},
	{"%22%3C%3E%5E%60%7B%7C%7D", "\"<>^`{|}", ""},
	{"100%25.img", "100%.img", ""},
	{"%2541", "%2541", ""},
	{"%25%34%31", "%2541", "%2541"},
	{"%252B", "%252B", ""},
	{"%25%2B", "%%2B", ""},
	{"%2525", "%2525", ""},
	{"a%FFb", "a%FFb", ""},
	{"a%C3b", "a%C3b", ""},
	{"%C3%28", "%C3%28", ""},
	{"...", "...", ""},
	{"a/.hidden/_b", "a/.hidden/_b", ""},
	{"incomplete", "incomplete", ""},
	{"queue", "queue", ""},
	{"rpm.db", "rpm.db", ""},
	{"-a", "-a", ""},
	{strings.Repeat("x", 1020) + ".img", strings.Repeat("x", 1020) + ".img", ""},
	{strings.Repeat("%C3%B6", 512), strings.Repeat("ö", 512), ""},
}

// TestNames checks that one origin serves every name as several do, that the
// origin is asked for what the client asked for, and that an id leads back.
func TestNames(t *testing.T) {
	var asked string
	endpoint, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { asked = strings.TrimPrefix(r.RequestURI, "/base%2F/") })
	web := at(t, endpoint+"/base%2F/", func(c *origin.HTTPConfig) { c.Name = "web" })
	here := origin.Mount{Prefix: "/images/", Origin: web}
	sets := map[string]*origin.Set{"one": newSet(t, here), "two": newSet(t, here, mount("/other/", "other"))}
	for number, s := range sets {
		ids := map[string]string{}
		for _, p := range paths {
			id, o, name, err := s.ByPath("/images/" + p.sent)
			if err != nil || name != p.name || !sdk.ValidID(id) {
				t.Errorf("%s: ByPath(%.40s) = %q, %.40q, %v, want the name %.40q", number, p.sent, id, name, err, p.name)
				continue
			}
			if other, ok := ids[id]; ok && other != name {
				t.Errorf("%s: %q and %q have the id %s", number, name, other, id)
			}
			ids[id] = name
			if o, again, err := s.ByID(id); err != nil || o != web || again != name {
				t.Errorf("%s: ByID(%s) = %.40q, %v, want %.40q", number, id, again, err, name)
			}
			if _, err := o.Stat(t.Context(), name); err != nil {
				t.Errorf("%s: %.40s: %v", number, p.sent, err)
			}
			want := p.asked
			if want == "" {
				want = p.sent
			}
			if asked != want {
				t.Errorf("%s: for %.40s the origin is asked for %.60s, want %.60s", number, p.sent, asked, want)
			}
		}
	}
}

// TestHashedIDsStay checks that an id does not depend on how many origins there
// are, where it is hashed.
func TestHashedIDsStay(t *testing.T) {
	one := newSet(t, mount("/images/", "web"))
	two := newSet(t, mount("/images/", "web"), mount("/other/", "other"))
	for _, name := range []string{"a/b", "a b", "rpm.db", strings.Repeat("x", 200)} {
		if a, b := one.ID("web", name), two.ID("web", name); a != b || a != hashed("web", name) {
			t.Errorf("%q: %s with one origin, %s with two", name, a, b)
		}
	}
	// A name that looks like a hashed id is not the image behind it.
	trap := hashed("web", "a/b")
	if id := one.ID("web", trap); id == trap {
		t.Errorf("the name %s is the id of another image", trap)
	}
	if id := one.ID("web", "other."+strings.Repeat("0a", 16)); id != "other."+strings.Repeat("0a", 16) {
		t.Errorf("a name that is a good id became %s", id)
	}
}

func TestFind(t *testing.T) {
	one := newSet(t, mount("/images/", "web"))
	two := newSet(t, mount("/m/", "web"), mount("/m/beta/", "beta"), mount("/web/", "other"))
	deep := "noble/current/x.img"
	for _, c := range []struct {
		set                *origin.Set
		text, origin, name string
	}{
		{one, deep, "web", deep},
		{one, "/images/" + deep, "web", deep},
		{one, "a.img", "web", "a.img"},
		{one, "web.a.img", "web", "web.a.img"},
		{one, "my image.raw", "web", "my image.raw"},
		{one, "my%20image.raw", "web", "my image.raw"},
		{one, "a+b", "web", "a+b"},
		{one, "a%2bb", "web", "a%2Bb"},
		{one, "größe.img", "web", "größe.img"},
		{one, "/images/gr%C3%B6%C3%9Fe.img", "web", "größe.img"},
		{one, "100%.img", "web", "100%.img"},
		{one, "what%3F", "web", "what%3F"},
		{two, "web/" + deep, "web", deep},
		{two, "web." + deep, "web", deep},
		{two, "/m/" + deep, "web", deep},
		{two, "m/" + deep, "web", deep},
		{two, "/m/beta/" + deep, "beta", deep},
		{two, "beta/" + deep, "beta", deep},
		{two, "/web/" + deep, "other", deep}, // a path is a path
		{two, "web.a.img", "web", "a.img"},
		{two, hashed("web", deep), "web", deep}, // known by now
	} {
		id, o, name, err := c.set.Find(c.text)
		if err != nil || o.Name() != c.origin || name != c.name {
			t.Errorf("Find(%q) = %q, %v, want %q of %s", c.text, name, err, c.name, c.origin)
			continue
		}
		if id != c.set.ID(c.origin, c.name) {
			t.Errorf("Find(%q) has the id %s", c.text, id)
		}
	}
	for text, want := range map[string]error{
		deep:                         origin.ErrNotFound,
		"a.img":                      origin.ErrNotFound,
		"/nowhere/a":                 origin.ErrNotFound,
		hashed("web", "never asked"): origin.ErrNotFound,
		"web/../a":                   store.ErrBadID,
		"web/a\nb":                   store.ErrBadID,
		"/m/":                        store.ErrBadID,
		"/m/%2e%2e/a":                store.ErrBadID,
		"web/a%2fb":                  store.ErrBadID,
		"web/a?v=1":                  origin.ErrQuery,
	} {
		if _, _, _, err := two.Find(text); !errors.Is(err, want) {
			t.Errorf("Find(%q) = %v, want %v", text, err, want)
		}
	}
}

// TestNameOf checks that what people are told leads back.
func TestNameOf(t *testing.T) {
	one := newSet(t, origin.Mount{Prefix: "/images/", Origin: mount("/", "web").Origin, Query: origin.QueryIdentity})
	two := newSet(t, mount("/m/", "web"), mount("/n/", "other"))
	for _, c := range []struct {
		set        *origin.Set
		path, want string
	}{
		{one, "/images/a.img", "a.img"},
		{one, "/images/noble/x%20y", "noble/x y"},
		{one, "/images/a%2bb?v=%7e", "a%2Bb?v=~"},
		{two, "/n/a.img", "other/a.img"},
		{two, "/m/gr%C3%B6/b", "web/grö/b"},
	} {
		path, query, _ := strings.Cut(c.path, "?")
		id, _, _, err := c.set.ByURL(path, query)
		name := c.set.NameOf(id)
		if err != nil || name != c.want {
			t.Errorf("%s is called %q, %v, want %q", c.path, name, err, c.want)
		}
		if again, _, _, err := c.set.Find(name); err != nil || again != id {
			t.Errorf("Find(%q) = %s, %v, want %s", name, again, err, id)
		}
	}
	if name := two.NameOf(hashed("web", "never/asked")); name != "" {
		t.Errorf("an image that nobody knows is called %q", name)
	}
}

// TestQueries checks what a query means to an origin, and that no two queries
// are one image unless the configuration wants that.
func TestQueries(t *testing.T) {
	var asked string
	endpoint, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { asked = r.RequestURI })
	web := at(t, endpoint+"/base/", func(c *origin.HTTPConfig) { c.Name = "web" })
	for _, c := range []struct {
		meaning     origin.Query
		path, query string
		name, asked string // "": refused
		err         error
	}{
		{origin.QueryRefuse, "a", "", "a", "/base/a", nil},
		{"", "a", "v=1", "", "", origin.ErrQuery},
		{origin.QueryRefuse, "a", "x", "", "", origin.ErrQuery},
		{origin.QueryIgnore, "a", "v=1", "a", "/base/a", nil},
		{origin.QueryIgnore, "../a", "v=1", "", "", store.ErrBadID},
		{origin.QueryIdentity, "a", "", "a", "/base/a", nil},
		{origin.QueryIdentity, "a", "version=1", "a?version=1", "/base/a?version=1", nil},
		{origin.QueryIdentity, "a", "version=2", "a?version=2", "/base/a?version=2", nil},
		{origin.QueryIdentity, "d/a%3Fb", "x=a+b&y=%2B/..?", "d/a%3Fb?x=a+b&y=%2B/..?", "/base/d/a%3Fb?x=a+b&y=%2B/..?", nil},
		{origin.QueryIdentity, "a", "n=%67%c3%b6", "a?n=g%C3%B6", "/base/a?n=g%C3%B6", nil},
		{origin.QueryIdentity, "a", "ö #", "a?%C3%B6%20%23", "/base/a?%C3%B6%20%23", nil},
		{origin.QueryIdentity, "a", "%zz", "", "", store.ErrBadID},
		{origin.QueryIdentity, "a", "a\nb", "", "", store.ErrBadID},
		{origin.QueryIdentity, "a", strings.Repeat("x", 1023), "", "", store.ErrBadID},
	} {
		s := newSet(t, origin.Mount{Prefix: "/images/", Origin: web, Query: c.meaning})
		id, o, name, err := s.ByURL("/images/"+c.path, c.query)
		if !errors.Is(err, c.err) || name != c.name {
			t.Errorf("%s: %s?%.20s has the name %.40q, %v, want %q, %v", c.meaning, c.path, c.query, name, err, c.name, c.err)
		}
		if err != nil {
			continue
		}
		if again, _, _, err := s.Find(c.path + "?" + c.query); err != nil || again != id {
			t.Errorf("%s: a person finds %s?%s as %s, %v, want %s", c.meaning, c.path, c.query, again, err, id)
		}
		if _, err := o.Stat(t.Context(), name); err != nil || asked != c.asked {
			t.Errorf("%s: for %s?%s the origin is asked for %s, %v, want %s", c.meaning, c.path, c.query, asked, err, c.asked)
		}
	}
}

// TestNamesOfFiles checks that an escape leads to the file that a client means.
func TestNamesOfFiles(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{"a+b", "my image", "100%", "größe", "x:y", "a?b"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(file), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	o := origin.NewDirectory(origin.DirectoryConfig{Name: "files", Path: dir})
	s := newSet(t, origin.Mount{Prefix: "/", Origin: o})
	for sent, file := range map[string]string{
		"/a+b": "a+b", "/a%2Bb": "a+b", "/my%20image": "my image", "/100%25": "100%", "/gr%C3%B6%C3%9Fe": "größe", "/x%3ay": "x:y", "/a%3fb": "a?b",
	} {
		_, _, name, err := s.ByPath(sent)
		if err != nil {
			t.Errorf("%s: %v", sent, err)
			continue
		}
		obj := expect(t, o, origin.Request{Name: name, Length: -1}, []byte(file))
		if u, err := url.Parse(obj.URL); err != nil || u.Path != filepath.Join(dir, file) {
			t.Errorf("%s is at %s, %v", sent, obj.URL, err)
		}
	}
	for _, name := range []string{"a%FF", "..%2Fa", "%2e%2e/a", "a%00", "a?b"} {
		if _, err := o.Stat(t.Context(), name); !errors.Is(err, origin.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
}

// FuzzName checks that a path and its name lead to each other, that the path
// stays the same but for what RFC 3986 calls equivalent, and that no dots and no
// control characters hide in it.
func FuzzName(f *testing.F) {
	for _, p := range paths {
		f.Add(p.sent)
	}
	for _, sent := range badPaths {
		f.Add(sent)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		name, err := origin.ParseName(sent)
		if err != nil {
			return
		}
		path := origin.EscapeName(name)
		again, err := origin.ParseName(path)
		if err != nil || again != name {
			t.Errorf("%q has the name %q, whose path %q has the name %q, %v", sent, name, path, again, err)
		}
		was, err := url.PathUnescape(sent)
		is, err2 := url.PathUnescape(path)
		if err != nil || err2 != nil || was != is {
			t.Errorf("%q is %q, its path %q is %q", sent, was, path, is)
		}
		for _, c := range "!$&'()*+,;=:@[]" {
			if strings.Count(sent, string(c)) != strings.Count(path, string(c)) {
				t.Errorf("%q and its path %q differ in %q", sent, path, c)
			}
		}
		for _, segment := range strings.Split(is, "/") {
			if segment == "" || segment == "." || segment == ".." {
				t.Errorf("%q has the segment %q", sent, segment)
			}
		}
		u := url.URL{Path: "/" + is, RawPath: "/" + path}
		if got := u.EscapedPath(); got != "/"+path {
			t.Errorf("%q is sent as %q", path, got)
		}
	})
}
