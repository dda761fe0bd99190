package origin_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/origin"
)

// stated returns what an origin says of an image with these fields.
func stated(t *testing.T, headers map[string]string, edit ...func(*origin.HTTPConfig)) origin.Object {
	t.Helper()
	s := newServer(t, random(1, 10))
	for field, v := range headers {
		if v != "" {
			s.headers[field] = v
		}
	}
	obj, err := s.origin(t, edit...).Stat(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

func TestVersions(t *testing.T) {
	when := "Tue, 03 Nov 2026 10:00:00 GMT"
	const stat = "stat:10-1793700000000000000"
	for _, c := range []struct{ etag, modified, want string }{
		{`"v1"`, when, `"v1"`},
		{`"v1"`, "", `"v1"`},
		{`W/"v1"`, when, stat + "-w161078e42e8fef3ba4b9c984035baa2e"},
		{`W/"v1"`, "", "weak:161078e42e8fef3ba4b9c984035baa2e"},
		{`v1`, "", "weak:3bfc269594ef649228e9a74bab00f042"},
		{`""`, "", ""},
		{`W/""`, "", ""},
		{`""`, when, stat},
		{`"a" b"`, "", "weak:b5312dfbe05eb6967cd65cf76758abe6"},
		{"", when, stat},
		{"", "yesterday", ""},
		{"", "", ""},
	} {
		if got := stated(t, map[string]string{"ETag": c.etag, "Last-Modified": c.modified}).Version; got != c.want {
			t.Errorf("ETag %s, Last-Modified %s: version %q, want %q", c.etag, c.modified, got, c.want)
		}
	}
}

// TestVersionOfWhatCounts checks that a version is made of what counts alone.
func TestVersionOfWhatCounts(t *testing.T) {
	when := "Tue, 03 Nov 2026 10:00:00 GMT"
	headers := map[string]string{"ETag": `"v1"`, "Last-Modified": when, "Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
	for _, c := range []struct {
		counts []origin.Validator
		want   string
	}{
		{nil, "md5:d41d8cd98f00b204e9800998ecf8427e"},
		{[]origin.Validator{origin.ByETag, origin.ByLastModified}, `"v1"`},
		{[]origin.Validator{origin.ByLastModified, origin.BySize}, "stat:10-1793700000000000000"},
		{[]origin.Validator{origin.BySize}, ""},
	} {
		obj := stated(t, headers, func(cfg *origin.HTTPConfig) { cfg.Terms.Validators = c.counts })
		if obj.Version != c.want || len(obj.Digests) != 1 {
			t.Errorf("%v: version %q with %d digests, want %q, and the digest is still declared", c.counts, obj.Version, len(obj.Digests), c.want)
		}
	}
}

// TestChangedTagIsAnotherVersion holds for all forms of entity tags, whatever
// else is known.
func TestChangedTagIsAnotherVersion(t *testing.T) {
	long := strings.Repeat("e", 66_000)
	for _, form := range []string{`"%"`, `W/"%"`, `%`, `'%'`, `"%`, `w/"%"`, `"% %"`, `"%` + long + `"`, `W/"%` + long + `"`, "\"%\xff\"", "%\xff", "sha256:%"} {
		for _, modified := range []string{"", "Tue, 03 Nov 2026 10:00:00 GMT"} {
			say := func(n string) origin.Object {
				return stated(t, map[string]string{"ETag": strings.ReplaceAll(form, "%", n), "Last-Modified": modified})
			}
			one, again, two := say("1"), say("1"), say("2")
			if one.Version == "" || one.Version != again.Version || one.Version == two.Version {
				t.Errorf("ETag %.20s: versions %q, %q, then %q", form, one.Version, again.Version, two.Version)
			}
			if v, why := origin.Judge(one.Validators(), again.Validators(), origin.Terms{}); v != origin.Same {
				t.Errorf("ETag %.20s: the same one is %v by %s", form, v, why)
			}
			if v, why := origin.Judge(one.Validators(), two.Validators(), origin.Terms{}); v != origin.Changed || why != "etag" {
				t.Errorf("ETag %.20s: another one is %v by %s", form, v, why)
			}
			if n := len(one.ETag); n > 1<<10 {
				t.Errorf("ETag %.20s: %d bytes of it are kept", form, n)
			}
			// What was kept of it under its version alone tells the same.
			if v, why := origin.Judge(origin.ValidatorsOf(one.Version, 10), two.Validators(), origin.Terms{}); v != origin.Changed {
				t.Errorf("ETag %.20s: by the version %q another one is %v by %s", form, one.Version, v, why)
			}
		}
	}
}

func TestValidatorsOf(t *testing.T) {
	at := time.Unix(0, 1793700000000000000)
	hash := strings.Repeat("0a", 16)
	for version, want := range map[string]origin.Validators{
		"":                                     {Size: 7},
		`"v1"`:                                 {Size: 7, ETag: `"v1"`},
		"md5:" + hash:                          {Size: 7, Digests: []origin.Digest{{Algorithm: "md5", Sum: []byte(strings.Repeat("\n", 16))}}},
		"md5:0a":                               {Size: 7},
		"stat:10-1793700000000000000":          {Size: 10, LastModified: at},
		"stat:10-1793700000000000000-f":        {Size: 10, LastModified: at},
		"stat:10-1793700000000000000-w0a":      {Size: 10, LastModified: at},
		"stat:10-1793700000000000000-x":        {Size: 10, LastModified: at},
		"stat:10-1793700000000000000-w" + hash: {Size: 10, LastModified: at, ETag: "sha256:" + hash},
		"stat:10-1793700000000000000-f" + hash: {Size: 10, LastModified: at, File: "f" + hash},
		"stat:10--5":                           {Size: 7},
		"stat:-1-5":                            {Size: 7},
		"stat:10":                              {Size: 7},
		"weak:" + hash:                         {Size: 7, ETag: "sha256:" + hash},
		"weak:v1":                              {Size: 7},
	} {
		if diff := cmp.Diff(want, origin.ValidatorsOf(version, 7)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", version, diff)
		}
	}
}

// FuzzVersion checks that a version and the validators that it was made of
// never contradict each other.
func FuzzVersion(f *testing.F) {
	f.Add(`"a"`, int64(5), int64(10), "")
	f.Add(`W/"a"`, int64(0), int64(-1), "")
	f.Add("", int64(-7), int64(0), "x")
	f.Fuzz(func(t *testing.T, tag string, seconds, size int64, file string) {
		h := http.Header{"Etag": {tag}}
		obj := origin.Describe(h, size, seconds, file)
		if obj.Version == "" {
			return
		}
		known := origin.ValidatorsOf(obj.Version, -1)
		if v, why := origin.Judge(known, obj.Validators(), origin.Terms{}); v == origin.Changed {
			t.Errorf("%q is changed by %s against its own validators %+v", obj.Version, why, obj.Validators())
		}
	})
}

// TestWeakVersionsDoNotJoin checks that no part is asked for by a validator that
// cannot tell whether it fits.
func TestWeakVersionsDoNotJoin(t *testing.T) {
	data := random(1, 1000)
	for _, tag := range []string{`W/"v1"`, "v1", `"v1`, `"` + strings.Repeat("e", 2000) + `"`} {
		s := newServer(t, data)
		s.headers["ETag"] = tag
		o := s.origin(t)
		obj := expect(t, o, origin.Request{Name: "a", Length: -1}, data)
		if origin.Joins(obj.Version) {
			t.Errorf("ETag %.20s: parts of %q may be put together", tag, obj.Version)
		}
		known := obj.Validators()
		asked := len(s.seen())
		for _, k := range []*origin.Validators{nil, &known} {
			if _, _, err := fetch(o, origin.Request{Name: "a", Offset: 10, Length: -1, Version: obj.Version, Known: k}); !errors.Is(err, origin.ErrUnavailable) {
				t.Errorf("ETag %.20s: a rest comes: %v", tag, err)
			}
		}
		if n := len(s.seen()) - asked; n != 0 {
			t.Errorf("ETag %.20s: %d questions that no answer can satisfy", tag, n)
		}
		expect(t, o, origin.Request{Name: "a", Length: -1, Version: obj.Version}, data)
		s.set(func(s *server) { s.headers["ETag"] = strings.Replace(tag, "v", "w", 1) + "2" })
		if _, _, err := fetch(o, origin.Request{Name: "a", Length: -1, Version: obj.Version}); !errors.Is(err, origin.ErrChanged) {
			t.Errorf("ETag %.20s: another whole is taken for the one asked for: %v", tag, err)
		}
		for _, r := range s.seen() {
			if r.Header.Get("If-Match")+r.Header.Get("If-Range") != "" {
				t.Errorf("ETag %.20s: it is sent in a condition: %v", tag, r.Header)
			}
		}
	}
}

// TestWeakTagGuardsARest checks that time and length join parts only where a
// weak tag agrees as well.
func TestWeakTagGuardsARest(t *testing.T) {
	data := random(1, 1000)
	s := newServer(t, data)
	s.headers["ETag"], s.headers["Last-Modified"] = `W/"1"`, modTime("1")
	o := s.origin(t)
	obj, body, err := o.Open(t.Context(), origin.Request{Name: "a", Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(body, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	body.Close()
	expect(t, o, origin.Request{Name: "a", Offset: 100, Length: -1, Version: obj.Version}, data[100:])
	s.set(func(s *server) { s.data, s.headers["ETag"] = random(2, 1000), `W/"2"` })
	if _, _, err := fetch(o, origin.Request{Name: "a", Offset: 100, Length: -1, Version: obj.Version}); !errors.Is(err, origin.ErrChanged) {
		t.Errorf("the rest of another image comes: %v", err)
	}
}
