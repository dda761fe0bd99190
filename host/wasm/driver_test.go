package wasm

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// seen returns the time and the random numbers that the driver of
// testdata/probes has.
func seen(t *testing.T, m *Module) (at time.Time, random string) {
	t.Helper()
	err := m.Plugin().(sdk.Driver).List(t.Context(), func(entries []sdk.Entry) error {
		at, random = entries[0].LastAccessed, entries[0].Version
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return at, random
}

// TestGoDriver has its parts in one test, as TestGoGuest.
func TestGoDriver(t *testing.T) {
	code, dir := build(t, "./testdata/probes"), t.TempDir()
	open := func(t *testing.T, o Options) *Module {
		t.Helper()
		o.CacheDir = dir
		m := load(t, code, o)
		if err := m.Configure(t.Context(), sdk.Settings{StateDir: t.TempDir()}); err != nil {
			t.Fatal(err)
		}
		return m
	}
	t.Run("nothing granted", func(t *testing.T) {
		a, b := open(t, Options{}), open(t, Options{})
		at, random := seen(t, a)
		if again, same := seen(t, b); at.Year() != 2022 || again.Year() != 2022 || random != same {
			t.Errorf("two instances see the times %v and %v and the numbers %s and %s: these must be of no use", at, again, random, same)
		}
		if notes := strings.Join(a.Notes(), "\n"); !strings.Contains(notes, `grant = ["clock"]`) || !strings.Contains(notes, `grant = ["random"]`) {
			t.Errorf("Notes() = %q", notes)
		}
	})
	t.Run("granted", func(t *testing.T) {
		o := Options{Grants: []sdk.Grant{sdk.GrantClock, sdk.GrantRandom}}
		a, b := open(t, o), open(t, o)
		before := time.Now()
		at, random := seen(t, a)
		if _, other := seen(t, b); at.Before(before) || at.After(time.Now()) || random == other {
			t.Errorf("the time is %v after %v, the numbers are %s and %s", at, before, random, other)
		}
		if notes := a.Notes(); len(notes) != 0 {
			t.Errorf("Notes() = %q", notes)
		}
	})
	t.Run("store", func(t *testing.T) { testStore(t, open) })
	t.Run("no directory", func(t *testing.T) {
		m := load(t, code, Options{CacheDir: dir})
		if err := m.Configure(t.Context(), sdk.Settings{}); !errors.Is(err, sdk.ErrUnavailable) {
			t.Errorf("Configure() without a directory = %v", err)
		}
	})
}

// testStore: what a driver may do wrong with its store is an error of its call;
// after a trap another instance goes on.
func testStore(t *testing.T, open func(*testing.T, Options) *Module) {
	var log bytes.Buffer
	m := open(t, Options{State: 2 << 20, Log: slog.New(slog.NewTextHandler(&log, nil))})
	d := m.Plugin().(sdk.Driver)
	for _, c := range []struct {
		source string
		seq    uint64
		is     error
		want   string
	}{
		{"calls", 1, nil, ""},
		{"pages", 1, nil, ""},
		{"fill", 1, sdk.ErrUnavailable, "kv_write"},
		{"long key", 1, sdk.ErrInvalid, "a key of 1025 bytes"},
		{"calls", 5, nil, ""},
		{"trap", 1, sdk.ErrUnavailable, "index out of range"},
		{"calls", 1, nil, ""},
	} {
		err := d.Apply(t.Context(), sdk.Batch{Source: c.source, Seq: c.seq})
		if !errors.Is(err, c.is) || !strings.Contains(fmt.Sprint(err)+log.String(), c.want) {
			t.Errorf("%s: Apply() = %v, want %v with %q", c.source, err, c.is, c.want)
		}
	}
	if !strings.Contains(log.String(), "may store 2097152 bytes") {
		t.Errorf("that the store is full is not in the log:\n%s", log.String())
	}
}

// TestHostileDriver: a driver that lies in its calls is found out, and a list
// that does not end is ended.
func TestHostileDriver(t *testing.T) {
	m := load(t, misbehaved(t, "drawer"), Options{})
	if err := m.Configure(t.Context(), sdk.Settings{StateDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	d := m.Plugin().(sdk.Driver)
	for seq, want := range map[uint64]string{
		1: "kv_get with an address outside of the module's memory",
		2: "kv_get with an address outside of the module's memory",
		3: "kv_scan with an address outside of the module's memory",
		4: "kv_write with an address outside of the module's memory",
		5: "invalid",
		6: "not found",
	} {
		err := d.Apply(t.Context(), sdk.Batch{Source: "s", Seq: seq})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("batch %d: Apply() = %v, want %q", seq, err, want)
		}
	}
	pages := 0
	err := d.List(t.Context(), func([]sdk.Entry) error { pages++; return nil })
	if pages != 1 || !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), `"a" comes after "a"`) {
		t.Errorf("List() = %v after %d pages", err, pages)
	}
}

// TestDriverManifests: what a module cannot be is said when it is loaded.
func TestDriverManifests(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"x","kind":"driver","capabilities":["nodes"]}`:                      "a module cannot reach other nodes",
		`{"name":"x","kind":"driver","capabilities":["heartbeat"]}`:                  "a module cannot reach other nodes",
		`{"name":"x","kind":"policy","capabilities":["score"],"requests":["kv"]}`:    "",
		`{"name":"x","kind":"driver","requests":["kv","something later"]}`:           "",
		`{"name":"x","kind":"policy","capabilities":["score"],"requests":["clock"]}`: "",
	} {
		_, err := parseManifest([]byte(text))
		if want == "" && err != nil || want != "" && !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("parseManifest(%s) = %v, want %q", text, err, want)
		}
	}
}
