package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/imgcache/imgcache-host/pluginproto/abi"
	"github.com/imgcache/imgcache-host/sdk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustOpen(t testing.TB, path string, quota int64) *Store {
	t.Helper()
	s, aside, err := Open(t.Context(), path, quota)
	if err != nil || aside != "" {
		t.Fatalf("Open() = %q, %v", aside, err)
	}
	return s
}

func file(t testing.TB) string { return filepath.Join(t.TempDir(), "kv") }

func put(key, value string) []byte {
	return abi.AppendPair(nil, abi.Pair{Key: []byte(key), Value: []byte(value)})
}

func del(key string) []byte {
	return abi.AppendPair(nil, abi.Pair{Key: []byte(key), Delete: true})
}

func write(t testing.TB, s *Store, changes ...[]byte) {
	t.Helper()
	if err := s.Write(slices.Concat(changes...)); err != nil {
		t.Fatal(err)
	}
}

// content returns what a scan yields, as key=value.
func content(t testing.TB, s *Store, prefix, after string) string {
	t.Helper()
	var list []string
	err := s.Scan([]byte(prefix), []byte(after), func(p abi.Pair) bool {
		list = append(list, fmt.Sprintf("%s=%s", p.Key, p.Value))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

func TestScan(t *testing.T) {
	s := mustOpen(t, file(t), 0)
	defer s.Close()
	write(t, s, put("b", "2"), put("a", "1"), put("b/x", "3"), put("b/y", ""), put("b0", "5"), put("\xff", "6"))
	for _, c := range []struct{ prefix, after, want string }{
		{"", "", "a=1 b=2 b/x=3 b/y= b0=5 \xff=6"},
		{"", "b", "b/x=3 b/y= b0=5 \xff=6"},
		{"", "b/a", "b/x=3 b/y= b0=5 \xff=6"},
		{"b/", "", "b/x=3 b/y="},
		{"b/", "b/x", "b/y="},
		{"b/", "b/y", ""},
		{"b/", "a", "b/x=3 b/y="},
		{"b/", "c", ""},
		{"\xff", "", "\xff=6"},
		{"zz", "", ""},
	} {
		if got := content(t, s, c.prefix, c.after); got != c.want {
			t.Errorf("Scan(%q after %q) yields %q, want %q", c.prefix, c.after, got, c.want)
		}
	}
}

// TestModel carries out random changes beside a map, with restarts: content,
// and what is counted against the quota, agree.
func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		path := filepath.Join(t.TempDir(), "kv")
		_ = os.Remove(path)
		const quota = 2000
		s := mustOpen(t, path, quota)
		defer func() { s.Close() }()
		model := map[string]string{}
		key := rapid.StringMatching(`[a-c]{1,3}`)
		for range rapid.IntRange(1, 30).Draw(r, "batches") {
			var changes []byte
			next := maps.Clone(model)
			for range rapid.IntRange(0, 6).Draw(r, "changes") {
				k := key.Draw(r, "key")
				if rapid.Bool().Draw(r, "delete") {
					changes = append(changes, del(k)...)
					delete(next, k)
					continue
				}
				v := strings.Repeat("v", rapid.IntRange(0, 300).Draw(r, "size"))
				changes = append(changes, put(k, v)...)
				next[k] = v
			}
			var sum uint64
			for k, v := range next {
				sum += cost([]byte(k), []byte(v))
			}
			err := s.Write(changes)
			switch {
			case sum > quota && !errors.Is(err, sdk.ErrUnavailable):
				r.Fatalf("Write() over the quota = %v", err)
			case sum <= quota && err != nil:
				r.Fatal(err)
			case err == nil:
				model = next
			}
			if rapid.IntRange(0, 9).Draw(r, "restart") == 0 {
				if err := s.Close(); err != nil {
					r.Fatal(err)
				}
				s = mustOpen(t, path, quota)
			}
			var want []string
			for _, k := range slices.Sorted(maps.Keys(model)) {
				want = append(want, k+"="+model[k])
			}
			if got := content(t, s, "", ""); got != strings.Join(want, " ") {
				r.Fatalf("the store has %q, want %q", got, want)
			}
		}
	})
}

func TestWriteIsRefused(t *testing.T) {
	s := mustOpen(t, file(t), 0)
	defer s.Close()
	write(t, s, put("kept", "1"))
	long := binary.LittleEndian.AppendUint32(nil, 1<<31)
	for name, changes := range map[string][]byte{
		"empty key":         put("", "x"),
		"long key":          put(strings.Repeat("k", abi.MaxKey+1), "x"),
		"long value":        put("k", strings.Repeat("v", abi.MaxValue+1)),
		"cut":               put("key", "value")[:10],
		"lengths that lie":  append(long, put("k", "v")...),
		"after a good one":  append(put("kept", "2"), 1),
		"delete of nothing": append(put("kept", "2"), del("")...),
	} {
		if err := s.Write(changes); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("%s: Write() = %v, want %v", name, err, sdk.ErrInvalid)
		}
	}
	if got := content(t, s, "", ""); got != "kept=1" {
		t.Errorf("the store has %q, want what was there", got)
	}
	if err := s.Get([]byte("absent"), func([]byte) {}); !errors.Is(err, sdk.ErrNotFound) {
		t.Errorf("Get(absent) = %v", err)
	}
}

// TestQuota fills a store to its last byte: what is there can still be replaced
// and removed.
func TestQuota(t *testing.T) {
	path := file(t)
	s := mustOpen(t, path, 100)
	write(t, s, put("k", strings.Repeat("v", 100-overhead-1)))
	if err := s.Write(put("l", "")); !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), "may store 100 bytes") {
		t.Errorf("Write() over the quota = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path, 50) // lower than what is there
	defer s.Close()
	if err := s.Write(put("k", strings.Repeat("v", 60))); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("Write() over a lower quota = %v", err)
	}
	write(t, s, del("k"), put("l", "v"))
	if got := content(t, s, "", ""); got != "l=v" {
		t.Errorf("the store has %q", got)
	}
}

// TestDamage damages the file in several ways: the store begins anew, and the
// file is kept.
func TestDamage(t *testing.T) {
	for name, harm := range map[string]func([]byte) []byte{
		"no store":         func([]byte) []byte { return bytes.Repeat([]byte("not a store. "), 1000) },
		"tiny":             func([]byte) []byte { return []byte("x") },
		"broken metas":     func(b []byte) []byte { clear(b[:8192]); return b },
		"cut in the pages": func(b []byte) []byte { return b[:3*4096] },
		"cut in the end":   func(b []byte) []byte { return b[:len(b)/2] },
		"overwritten":      func(b []byte) []byte { copy(b[2*4096:], bytes.Repeat([]byte{0xab}, len(b))); return b },
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t)
			s := mustOpen(t, path, 0)
			for i := range 500 {
				write(t, s, put(fmt.Sprintf("%0100d", i), "value"))
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b = harm(b)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			s, aside, err := Open(t.Context(), path, 0)
			if err != nil || aside == "" {
				t.Fatalf("Open() = %q, %v", aside, err)
			}
			defer s.Close()
			if got := content(t, s, "", ""); got != "" {
				t.Errorf("the store has %q, want nothing", got)
			}
			write(t, s, put("new", "1"))
			if kept, err := os.ReadFile(aside); err != nil || !bytes.Equal(kept, b) {
				t.Errorf("the damaged file was changed: %v", err)
			}
		})
	}
}

// TestInTheWay has something in the place of the file that is none. It is moved
// away; what a link leads to is left alone.
func TestInTheWay(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, place := range map[string]func(path string) error{
		"directory":       func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o700) },
		"link to a file":  func(path string) error { return os.Symlink(outside, path) },
		"link to nothing": func(path string) error { return os.Symlink(outside+"-not", path) },
		"FIFO":            func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		path := file(t)
		if err := place(path); err != nil {
			t.Fatal(err)
		}
		s, aside, err := Open(t.Context(), path, 0)
		if err != nil || aside == "" {
			t.Errorf("%s: Open() = %q, %v", name, aside, err)
			continue
		}
		write(t, s, put("new", "1"))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: then there is %v, %v", name, info, err)
		}
		if _, err := os.Lstat(aside); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "precious" {
		t.Errorf("the file outside is %q, %v", text, err)
	}
	if _, err := os.Lstat(outside + "-not"); err == nil {
		t.Error("the target of the link was made")
	}
}

// TestCannotOpen tells what is no damage: nothing is moved.
func TestCannotOpen(t *testing.T) {
	path := file(t)
	if _, _, err := Open(t.Context(), filepath.Join(path, "none", "kv"), 0); !errors.Is(err, os.ErrNotExist) || !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("Open() below a directory that is not there = %v", err)
	}
}
