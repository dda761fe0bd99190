package pins

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
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

// set pins images, one after the other.
func set(p *Pins, ids ...string) error {
	var errs []error
	for _, id := range ids {
		errs = append(errs, p.Set(Pin{ID: id, From: FromRequest}))
	}
	return errors.Join(errs...)
}

// TestPinsOutliveCrashes breaks off each step of a change, of one that is added to
// the file and of one for which it is written anew: what was acknowledged holds
// afterwards, and what was not holds wholly or not at all.
func TestPinsOutliveCrashes(t *testing.T) {
	change := map[string]struct {
		f     func(*Pins) error
		after string
	}{
		"set":    {func(p *Pins) error { return set(p, "c") }, "a b c"},
		"remove": {func(p *Pins) error { return p.Remove("a") }, "b"},
	}
	for name, c := range change {
		for _, appended := range []int{-1, 1} {
			for step := 1; ; step++ {
				dir := storetest.MemoryDir(t)
				fsys := storetest.New(t, dir)
				p, _ := pinsIn(t, dir, fsys)
				if err := set(p, "a", "b"); err != nil {
					t.Fatal(err)
				}
				p.appended = appended
				fsys.Inject(storetest.CrashAt(step))
				err := c.f(p)
				if calls := len(fsys.Calls()); err == nil && step <= calls {
					t.Errorf("%s: step %d failed, and the change was acknowledged", name, step)
				}
				if err != nil && ids(p) != "a b" {
					t.Errorf("%s: after a failure at step %d %s hold", name, step, ids(p))
				}
				if err := fsys.LosePower(0); err != nil {
					t.Fatal(err)
				}
				again, log := pinsIn(t, dir, nil)
				if got := ids(again); got != c.after && (err == nil || got != "a b") || log.Len() > 0 {
					t.Errorf("%s: after a crash at step %d %s hold; the log says %s", name, step, got, log)
				}
				if err == nil {
					break
				}
			}
		}
	}
}

// TestPinsMendTheirFile fails each step once: a change that cannot be added to the
// file comes into one that is written anew.
func TestPinsMendTheirFile(t *testing.T) {
	for step := 1; ; step++ {
		dir := storetest.MemoryDir(t)
		fsys := storetest.New(t, dir)
		p, _ := pinsIn(t, dir, fsys)
		if err := set(p, "a", "b"); err != nil {
			t.Fatal(err)
		}
		fsys.Inject(storetest.At(step, syscall.EIO))
		if err := set(p, "c"); err != nil {
			t.Errorf("a failure at step %d: %v", step, err)
		}
		calls := len(fsys.Calls())
		if err := set(p, "d"); err != nil {
			t.Error(err)
		}
		fsys.Kill()
		if again, log := pinsIn(t, dir, nil); ids(again) != "a b c d" || log.Len() > 0 {
			t.Errorf("after a failure at step %d %s hold; the log says %s", step, ids(again), log)
		}
		if step > calls {
			return
		}
	}
}

// TestPinsCostWhatAPinCosts counts: a pin is a line, however many there are, and
// those that come at once share it.
func TestPinsCostWhatAPinCosts(t *testing.T) {
	const n = 1000
	dir := storetest.MemoryDir(t)
	fsys := storetest.New(t, dir)
	p, _ := pinsIn(t, dir, fsys)
	fsys.Inject(nil)
	for i := range n {
		if err := set(p, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	anew := func() (n int) {
		for _, c := range fsys.Calls() {
			if c.Op == "pins.rewrite" {
				n++
			}
		}
		return n
	}
	// Anew at the first, at 100, and whenever there are twice as many.
	if calls, times := len(fsys.Calls()), anew(); times > 6 || calls > 4*n+5*times {
		t.Errorf("%d pins cost %d calls, and the file was written anew %d times", n, calls, times)
	}
	fsys.Inject(nil)
	p.changing.Lock()
	var work sync.WaitGroup
	for i := range n {
		work.Go(func() {
			if err := p.Remove(fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	for waiting := 0; waiting < n; {
		p.mu.Lock()
		if p.next != nil {
			waiting = len(p.next.changes)
		}
		p.mu.Unlock()
		runtime.Gosched()
	}
	p.changing.Unlock()
	work.Wait()
	if calls := len(fsys.Calls()); calls > 10 {
		t.Errorf("%d changes at once cost %d calls", n, calls)
	}
	fsys.Kill()
	if again, log := pinsIn(t, dir, nil); ids(again) != "" || log.Len() > 0 {
		t.Errorf("%s hold; the log says %s", ids(again), log)
	}
}

// TestDamagedPins cuts the file anywhere and flips each of its bytes: what can
// be read holds, and that it is not all is noticed, unless whole changes are
// missing at the end.
func TestDamagedPins(t *testing.T) {
	dir := storetest.MemoryDir(t)
	fsys, err := store.OpenFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := pinsIn(t, dir, fsys)
	if err := errors.Join(set(p, "a", "b"), p.save(p.requested), set(p, "c"), p.Remove("b")); err != nil {
		t.Fatal(err)
	}
	good, err := lines.ReadFile(fsys, "test", p.path)
	if err != nil {
		t.Fatal(err)
	}
	all, whole := parsePins(good)
	if len(all) != 2 || !whole || bytes.Count(good, []byte("\n")) != 5 {
		t.Fatalf("%d pins are read of the whole file, whole: %v\n%s", len(all), whole, good)
	}
	before := map[string]Pin{"a": all["a"], "b": {ID: "b", From: FromRequest}, "c": all["c"]}
	base := bytes.Index(good, []byte(`"c"`)) // in the first change
	base = bytes.LastIndexByte(good[:base], '\n')
	for n := range len(good) - 1 { // the newline at the end does not matter
		list, whole := parsePins(good[:n])
		atEnd := n >= base && (good[n] == '\n' || good[n-1] == '\n')
		if whole != atEnd || len(list) > 3 {
			t.Errorf("cut after %d bytes the file has %d pins, whole: %v", n, len(list), whole)
		}
		flipped := bytes.Clone(good)
		flipped[n] ^= 4
		list, whole = parsePins(flipped)
		if whole || len(list) < 1 {
			t.Errorf("with byte %d flipped the file has %d pins, whole: %v", n, len(list), whole)
		}
		for id, pin := range list {
			if pin != before[id] {
				t.Errorf("with byte %d flipped the pin of %s is %+v", n, id, pin)
			}
		}
	}
}

// TestPinsInTheWay has something in the place of the file, or of the one that is to
// replace it. It is renamed, or replaced, the log says what is lost, and pins are
// kept again.
func TestPinsInTheWay(t *testing.T) {
	for name, place := range map[string]func(path string) error{
		"directory":       func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o700) },
		"link to nothing": func(path string) error { return os.Symlink("nothing", path) },
		"FIFO":            func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		for _, suffix := range []string{"", ".new"} {
			dir := t.TempDir()
			var fsys *storetest.FS
			restart := func() (*Pins, *bytes.Buffer) {
				if fsys != nil {
					fsys.Kill()
				}
				fsys = storetest.New(t, dir)
				return pinsIn(t, dir, fsys)
			}
			p, _ := restart()
			if err := place(filepath.Join(dir, p.path+suffix)); err != nil {
				t.Fatal(err)
			}
			p, log := restart()
			if said := strings.Contains(log.String(), "pins is damaged"); said != (suffix == "") {
				t.Errorf("%s%s: the log says %s", name, suffix, log)
			}
			if err := set(p, "a"); err != nil {
				t.Errorf("%s%s: %v", name, suffix, err)
			}
			if p, _ = restart(); ids(p) != "a" {
				t.Errorf("%s%s: then %s hold", name, suffix, ids(p))
			}
		}
	}
}

// TestDamagedPinsAreSetAside starts on a damaged file, twice.
func TestDamagedPinsAreSetAside(t *testing.T) {
	dir := t.TempDir()
	fsys := storetest.New(t, dir)
	p, _ := pinsIn(t, dir, fsys)
	if err := set(p, "a", "b"); err != nil {
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
