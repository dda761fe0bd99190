package pins

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/lines"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// pinsIn opens the pins of a directory, as a start does.
func pinsIn(t *testing.T, dir string, fsys store.FS, configured ...Pin) (p *Pins, log *bytes.Buffer) {
	t.Helper()
	s, err := store.Open(store.Config{Dir: dir, FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	log = &bytes.Buffer{}
	q := New(s.FS(), s.PrivateDir()+"/pins", slog.New(slog.NewTextHandler(log, nil)), time.Now, configured)
	q.Load()
	return q, log
}

func ids(p *Pins) string {
	var list []string
	for _, pin := range p.All(time.Now()) {
		list = append(list, pin.ID)
	}
	return strings.Join(list, " ")
}

func add(id string) func(map[string]Pin) {
	return func(list map[string]Pin) { list[id] = Pin{ID: id, From: FromRequest} }
}

// TestPinsOutliveCrashes breaks off each step of a change: what was
// acknowledged holds afterwards, and what was not holds wholly or not at all.
func TestPinsOutliveCrashes(t *testing.T) {
	for step := 1; ; step++ {
		dir := t.TempDir()
		fsys := storetest.New(t, dir)
		p, _ := pinsIn(t, dir, fsys)
		if err := errors.Join(p.Change(add("a")), p.Change(add("b"))); err != nil {
			t.Fatal(err)
		}
		fsys.Inject(storetest.CrashAt(step))
		err := p.Change(add("c"))
		if calls := len(fsys.Calls()); err == nil && step <= calls {
			t.Errorf("step %d failed, and the pin was acknowledged", step)
		}
		if err != nil && ids(p) != "a b" {
			t.Errorf("after a failure at step %d %s hold", step, ids(p))
		}
		if err := fsys.LosePower(0); err != nil {
			t.Fatal(err)
		}
		again, log := pinsIn(t, dir, nil)
		if got := ids(again); got != "a b c" && (err == nil || got != "a b") || log.Len() > 0 {
			t.Errorf("after a crash at step %d %s hold; the log says %s", step, got, log)
		}
		if err == nil {
			return
		}
	}
}

// TestDamagedPins cuts the file anywhere and flips each of its bytes: what can
// be read holds, what the configuration pins holds, and the file is set aside.
func TestDamagedPins(t *testing.T) {
	dir := t.TempDir()
	fsys, err := store.OpenFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := pinsIn(t, dir, fsys)
	if err := errors.Join(p.Change(add("a")), p.Change(add("b")), p.Change(add("c"))); err != nil {
		t.Fatal(err)
	}
	good, err := lines.ReadFile(fsys, "test", p.path)
	if err != nil {
		t.Fatal(err)
	}
	all, whole := parsePins(good)
	if len(all) != 3 || !whole {
		t.Fatalf("%d pins are read of the whole file, whole: %v", len(all), whole)
	}
	for n := range len(good) - 1 { // the newline at the end does not matter
		list, whole := parsePins(good[:n])
		if whole || len(list) > 3 {
			t.Errorf("cut after %d bytes the file has %d pins, whole: %v", n, len(list), whole)
		}
		flipped := bytes.Clone(good)
		flipped[n] ^= 4
		list, whole = parsePins(flipped)
		if whole || len(list) < 1 {
			t.Errorf("with byte %d flipped the file has %d pins, whole: %v", n, len(list), whole)
		}
		for id, pin := range list {
			if pin != all[id] {
				t.Errorf("with byte %d flipped the pin of %s is %+v", n, id, pin)
			}
		}
	}
}

// TestDamagedPinsAreSetAside starts on a damaged file, twice.
func TestDamagedPinsAreSetAside(t *testing.T) {
	dir := t.TempDir()
	fsys := storetest.New(t, dir)
	p, _ := pinsIn(t, dir, fsys)
	if err := errors.Join(p.Change(add("a")), p.Change(add("b"))); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.OpenFile("test", p.path, 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(info.Size() - 3); err != nil {
		t.Fatal(err)
	}
	f.Close()
	fsys.Kill()
	p, log := pinsIn(t, dir, nil, Pin{ID: "gold"})
	if ids(p) != "a gold" || !strings.Contains(log.String(), ".imgcache/pins.damaged") {
		t.Errorf("%s hold; the log says %s", ids(p), log)
	}
	if _, err := p.fs.Lstat("test", ".imgcache/pins.damaged"); err != nil {
		t.Error(err)
	}
}
