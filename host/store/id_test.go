package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
	"github.com/imgcache/imgcache-host/sdk"
)

var badIDs = map[string]string{
	"empty":            "",
	"dot":              ".",
	"dots":             "..",
	"hidden":           ".imgcache",
	"leading dash":     "-a",
	"leading underbar": "_a",
	"slash":            "a/b",
	"up":               "../../etc/passwd",
	"absolute":         "/etc/passwd",
	"escaped slash":    "..%2f..%2fetc%2fpasswd",
	"backslash":        `a\b`,
	"NUL":              "a\x00b",
	"newline":          "a\nb",
	"space":            "a b",
	"tilde":            "a~0123456789abcdef",
	"not ASCII":        "imäge",
	"not UTF-8":        "a\xff",
	"129 characters":   strings.Repeat("a", 129),
	"4096 characters":  strings.Repeat("a", 4096),
	"incomplete":       "incomplete",
	"invalid":          "invalid",
	"queue":            "queue",
	"SQLite":           "cache.db",
	"SQLite journal":   "cache.db-journal",
	"SQLite log":       "cache.db-wal",
	"SQLite index":     "cache.db-shm",
	"another SQLite":   "records-of-1.db",
	"its journal":      "records-of-1.db-journal",
	"Glance lock":      "image_cache_db_init",
	"Glance migration": "sqlite_centralized_migrate",
	"Glance prefetch":  "glance-cache",
	"Glance clean":     "glance-cache-clean",
	"Glance prune":     "glance-cache-prune",
	"Glance probe":     "checkme",
}

func TestValidID(t *testing.T) {
	for name, id := range badIDs {
		if sdk.ValidID(id) {
			t.Errorf("%s: %q is valid", name, id)
		}
	}
	for _, id := range []string{
		"1", "99", "xxx", "a.b_c-d", "A", "0.img", "cache.db2", "cache-db", "glance-cache-2", "Queue", strings.Repeat("a", 128),
		"6f1e1c1e-0c5e-4f0a-9d3f-0d2f3a3b9c11", "origin.0123456789abcdef0123456789abcdef",
	} {
		if !sdk.ValidID(id) {
			t.Errorf("%q is not valid", id)
		}
	}
}

// Every method that takes an id refuses a bad one before it touches a file.
func TestBadIDTouchesNoFile(t *testing.T) {
	fsys := storetest.New(t, t.TempDir())
	s, err := store.Open(store.Config{Dir: "test", FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	methods := map[string]func(id string) error{
		"Stat":       func(id string) error { _, err := s.Stat(id); return err },
		"OpenImage":  func(id string) error { _, err := s.OpenImage(id); return err },
		"Stage":      func(id string) error { _, err := s.Stage(id); return err },
		"Trash":      func(id string) error { _, err := s.Trash(id); return err },
		"Quarantine": func(id string) error { return s.Quarantine(store.Info{ID: id}) },
		"Enqueue":    func(id string) error { _, _, err := s.Enqueue(id, ""); return err },
		"Dequeue":    s.Dequeue,
	}
	fsys.Inject(nil)
	for name, id := range badIDs {
		for method, call := range methods {
			if err := call(id); !errors.Is(err, store.ErrBadID) {
				t.Errorf("%s(%s) = %v, want ErrBadID", method, name, err)
			}
		}
		if s.Queued(id) || s.HasForeign(id) {
			t.Errorf("%s: there is something of this id", name)
		}
	}
	for _, c := range fsys.Calls() {
		t.Errorf("%s touched %q", c.Op, c.Name)
	}
}

// Names in incomplete/ and invalid/ need not be ids, but lead nowhere else.
func TestRemovePartialStaysInside(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a", random(1, 10), store.Meta{})
	for _, name := range []string{"", ".", "..", "../a", "/a", "x/../../a", "./../a"} {
		if err := s.RemoveIncomplete(name); !errors.Is(err, store.ErrBadID) {
			t.Errorf("RemoveIncomplete(%q) = %v, want ErrBadID", name, err)
		}
		if err := s.RemoveInvalid(name); !errors.Is(err, store.ErrBadID) {
			t.Errorf("RemoveInvalid(%q) = %v, want ErrBadID", name, err)
		}
	}
	expect(t, s, "a", random(1, 10))
}
