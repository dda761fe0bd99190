package origin_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/origin"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
)

func mount(prefix, name string) origin.Mount {
	return origin.Mount{Prefix: prefix, Origin: origin.NewDirectory(origin.DirectoryConfig{Name: name, Path: "/nowhere"})}
}

func newSet(t *testing.T, mounts ...origin.Mount) *origin.Set {
	t.Helper()
	s, err := origin.New(mounts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hashed(label, name string) string {
	sum := sha256.Sum256([]byte(name))
	return label + "." + hex.EncodeToString(sum[:16])
}

// A set that was told a name finds it as if the path had been asked for.
func TestLearn(t *testing.T) {
	s, err := origin.New(mount("/x/", "x"), mount("/y/", "y"))
	if err != nil {
		t.Fatal(err)
	}
	id := hashed("x", "dir/a")
	s.Learn(id, "dir/b")
	s.Learn(id, "")
	if _, _, err := s.ByID(id); !errors.Is(err, origin.ErrNotFound) {
		t.Errorf("it believes anything: %v", err)
	}
	s.Learn(id, "dir/a")
	if o, name, err := s.ByID(id); err != nil || o.Name() != "x" || name != "dir/a" {
		t.Errorf("ByID(%s) = %s, %v", id, name, err)
	}
}

func TestSetRefuses(t *testing.T) {
	for what, mounts := range map[string][]origin.Mount{
		"nothing":         {},
		"no slash":        {mount("/images", "a")},
		"same prefix":     {mount("/x/", "a"), mount("/x/", "b")},
		"same name":       {mount("/x/", "a"), mount("/y/", "a")},
		"name with a dot": {mount("/x/", "a.b"), mount("/y/", "a")},
		"name too long":   {mount("/x/", strings.Repeat("a", 96)), mount("/y/", "a")},
		"name no id":      {mount("/x/", "a b"), mount("/y/", "a")},
	} {
		if _, err := origin.New(mounts...); err == nil {
			t.Errorf("%s: New succeeded", what)
		}
	}
}

func TestOneOrigin(t *testing.T) {
	s := newSet(t, mount("/images/", "any"))
	for _, id := range []string{"a", "6f1e1c1e-0c5e-4f0a-9d3f-0d2f3a3b9c11", "debian-12.qcow2", strings.Repeat("a", 128)} {
		got, o, name, err := s.ByPath("/images/" + id)
		if err != nil || got != id || name != id || o.Name() != "any" {
			t.Errorf("ByPath(%s) = %s, %s, %v", id, got, name, err)
		}
		if o, name, err = s.ByID(id); err != nil || name != id || o == nil {
			t.Errorf("ByID(%s) = %s, %v", id, name, err)
		}
	}
	if id, _, _, err := s.ByPath("/images/%61%2Eimg"); id != "a.img" || err != nil {
		t.Errorf("an escaped id is %s, %v", id, err)
	}
}

var badPaths = []string{
	"", ".", "..", "a/..", "../a", "a//b", "/a", "a/", "..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00", "%00", "a%0a", "a%5cb", "a%2fb", "%", "%zz",
	strings.Repeat("a", 4096), strings.Repeat("a/", 2000) + "a",
}

func TestBadPaths(t *testing.T) {
	one := newSet(t, mount("/images/", "a"))
	two := newSet(t, mount("/images/", "a"), mount("/other/", "b"))
	for _, rest := range badPaths {
		for _, s := range []*origin.Set{one, two} {
			if _, _, _, err := s.ByPath("/images/" + rest); !errors.Is(err, store.ErrBadID) {
				t.Errorf("ByPath(%.40q) = %v, want ErrBadID", rest, err)
			}
		}
	}
	for _, path := range []string{"", "/", "/images", "/imagesa", "images/a", "/v1/images/a"} {
		if _, _, _, err := two.ByPath(path); !errors.Is(err, origin.ErrNotFound) {
			t.Errorf("ByPath(%q) = %v, want ErrNotFound", path, err)
		}
	}
	for _, id := range []string{"", "a/b", "..", "incomplete", strings.Repeat("a", 129)} {
		for _, s := range []*origin.Set{one, two} {
			if _, _, err := s.ByID(id); !errors.Is(err, store.ErrBadID) {
				t.Errorf("ByID(%.40q) = %v, want ErrBadID", id, err)
			}
		}
	}
}

func TestSeveralOrigins(t *testing.T) {
	s := newSet(t, mount("/images/", "glance"), mount("/mirror/", "deb"), mount("/mirror/beta/", "beta"))
	digits := strings.Repeat("0a", 16)
	long := strings.Repeat("n", 125)
	for _, c := range []struct{ path, id, origin, name string }{
		{"/images/a", "glance.a", "glance", "a"},
		{"/images/incomplete", "glance.incomplete", "glance", "incomplete"},
		{"/mirror/12.iso", "deb.12.iso", "deb", "12.iso"},
		{"/mirror/beta/12.iso", "beta.12.iso", "beta", "12.iso"},
		{"/mirror/12/a.iso", hashed("deb", "12/a.iso"), "deb", "12/a.iso"},
		{"/mirror/12/%61.iso", hashed("deb", "12/a.iso"), "deb", "12/a.iso"},
		{"/mirror/a%20b", hashed("deb", "a b"), "deb", "a b"},
		{"/mirror/" + long, hashed("deb", long), "deb", long},
		{"/mirror/" + digits, hashed("deb", digits), "deb", digits}, // not the id of another path
	} {
		id, o, name, err := s.ByPath(c.path)
		if err != nil || id != c.id || o.Name() != c.origin || name != c.name {
			t.Errorf("ByPath(%s) = %s, %s, %v, want %s, %s", c.path, id, name, err, c.id, c.name)
			continue
		}
		if !sdk.ValidID(id) {
			t.Errorf("%s is no id", id)
		}
		if o, name, err = s.ByID(id); err != nil || o.Name() != c.origin || name != c.name {
			t.Errorf("ByID(%s) = %s, %v, want %s", id, name, err, c.name)
		}
	}
	for _, id := range []string{"a", "other.a", "glance", "glance.", hashed("deb", "never asked for")} {
		if _, _, err := s.ByID(id); !errors.Is(err, origin.ErrNotFound) {
			t.Errorf("ByID(%s) = %v, want ErrNotFound", id, err)
		}
	}
}

// What clients ask for takes a bounded amount of memory, and the newest names
// are not forgotten.
func TestSetForgets(t *testing.T) {
	s := newSet(t, mount("/x/", "x"), mount("/y/", "y"))
	known := func(i int) bool {
		_, _, err := s.ByID(hashed("x", fmt.Sprintf("dir/%d", i)))
		return err == nil
	}
	const n = 50_000
	for i := range n {
		if _, _, _, err := s.ByPath(fmt.Sprintf("/x/dir/%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := n - 10_000; i < n; i++ {
		if !known(i) {
			t.Fatalf("name %d of %d is forgotten", i, n)
		}
	}
	if known(0) {
		t.Error("the oldest name is still known")
	}
}
