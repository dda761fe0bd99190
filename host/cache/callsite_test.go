package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/host/store/storetest"
)

// errnos are what a disk that fails says.
var errnos = []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EDQUOT, syscall.EMFILE}

// TestEveryCallFails lives a day of a cache once, and so learns every call
// that is made of its disk; then it lives the day again for each of them, with
// that call failing the first time, or every time. Whatever fails: each
// client gets the whole image, and nothing else is ever an image.
func TestEveryCallFails(t *testing.T) {
	sites := map[string]int{}
	var lesson day
	lesson.live(t, "no fault", nil)
	for _, c := range lesson.calls {
		sites[c.Op]++
	}
	if len(sites) < 50 {
		t.Errorf("the day makes only %d different calls", len(sites))
	}
	runs := 0
	for i, op := range slices.Sorted(maps.Keys(sites)) {
		for j, errno := range errnos {
			if os.Getenv("IMGCACHE_TEST_ALL") == "" && j != i%len(errnos) {
				continue
			}
			nths := []int{1, 0}
			if sites[op] > 1 {
				nths = append(nths, sites[op]) // the last one
			}
			for _, nth := range nths {
				name := fmt.Sprintf("%s %d %s", op, nth, errno)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					var d day
					d.live(t, name, storetest.On(op, nth, errno))
				})
				runs++
			}
		}
	}
	t.Logf("%d call sites, %d runs", len(sites), runs)
}

// day is one run.
type day struct {
	t      *testing.T
	name   string
	dir    string
	fsys   *storetest.FS
	origin *fakeOrigin
	store  *store.Store
	*Cache // nil: the directory could not be opened
	calls  []storetest.Call

	flipped string // an image of which a bit was changed
}

// live runs the day with a fault, and another morning without.
func (d *day) live(t *testing.T, name string, fault storetest.Fault) {
	t.Helper()
	stuck := time.AfterFunc(time.Minute, func() { panic(name + ": it spins or hangs") })
	defer stuck.Stop()
	d.name = name
	d.dir = storetest.MemoryDir(t)
	d.fsys = storetest.New(t, d.dir)
	synctest.Test(t, func(t *testing.T) {
		d.t = t
		d.origin = &fakeOrigin{rng: newRand(1), size: true, version: `"1"`, data: bytes.Repeat([]byte("content "), blockSize/8+100)}
		d.fsys.Inject(fault)
		d.run()
		d.calls = d.fsys.Calls()
		d.fsys.Inject(nil)
		d.after()
	})
	if left := d.fsys.LeftOpen(); len(left) > 0 {
		t.Errorf("%s: files are left open: %q", name, left)
	}
	d.fsys.Kill()
}

func (d *day) run() {
	d.wake()
	d.morning()
	d.sleep()
	d.wake()
	d.afternoon()
	d.sleep()
}

// wake opens the directory, if it can be opened.
func (d *day) wake() {
	s, err := store.Open(store.Config{Dir: d.dir, FS: d.fsys, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		d.want(err)
		return
	}
	c, err := New(complete(Config{Options: options.Options{MaxSize: 5 << 20, Limit: options.LimitHard, Prune: options.Prune{MinFree: 1}, Fill: options.Fill{KeepFilling: true, Retries: 2}}, Store: s, Origins: d.origin}))
	if err != nil {
		d.want(err)
		_ = s.Close()
		return
	}
	d.store, d.Cache = s, c
	c.Start()
}

// want wants an error to be the injected one.
func (d *day) want(err error) {
	d.t.Helper()
	for _, errno := range errnos {
		if errors.Is(err, errno) {
			return
		}
	}
	d.t.Errorf("%s: %v", d.name, err)
}

func (d *day) sleep() {
	if d.Cache == nil {
		return
	}
	if err := d.Close(); err != nil {
		d.want(err)
	}
	if err := d.store.Close(); err != nil {
		d.want(err)
	}
	d.Cache = nil
}

// clients download an image at the same time, whole and in part.
func (d *day) clients(id string) {
	d.t.Helper()
	if d.Cache == nil {
		return
	}
	var all sync.WaitGroup
	for n := range 3 {
		all.Go(func() {
			k, err := d.Open(context.Background(), id)
			if err != nil {
				d.t.Errorf("%s: open %s: %v", d.name, id, err)
				return
			}
			defer k.Close()
			off, length := int64(0), int64(-1)
			if n == 2 {
				off, length = blockSize-100, 300
			}
			got := comparer{want: d.origin.data[off:]}
			if length >= 0 {
				got.want = got.want[:length]
			}
			_, err = k.CopyTo(context.Background(), &got, off, length)
			if err != nil || !got.right() {
				d.t.Errorf("%s: %s: %d bytes from %d, right: %v, %v", d.name, id, got.n, off, got.right(), err)
			}
		})
	}
	all.Wait()
	time.Sleep(time.Second)
}

// comparer is a client that compares what it gets and keeps none of it: under
// the race detector, fresh memory is what a download costs most.
type comparer struct {
	want  []byte
	n     int // bytes that came
	wrong bool
}

func (c *comparer) Write(p []byte) (int, error) {
	c.wrong = c.wrong || !bytes.HasPrefix(c.want[min(c.n, len(c.want)):], p)
	c.n += len(p)
	return len(p), nil
}

// right reports whether what came is what should come, to its end.
func (c *comparer) right() bool { return !c.wrong && c.n == len(c.want) }

// try does what may fail because of the fault, and harms nobody then.
func (d *day) try(do func() error) {
	if d.Cache != nil {
		_ = do()
	}
}

func (d *day) morning() {
	d.clients("a")
	d.clients("a")
	d.clients("b")
	d.try(func() error { _, err := d.Queue("queued"); return err })
	time.Sleep(20 * time.Second)
	d.clients("c") // which needs room
	d.try(d.write)
	d.try(func() error { _, err := d.Pin("c", time.Time{}); return err })
	size := int64(3 << 20)
	d.try(func() error { _, err := d.Prune(context.Background(), PruneOptions{MaxSize: &size}); return err })
	d.try(func() error { _, err := d.Scrub(context.Background()); return err })
	d.clients("c")
	// One that is interrupted by the night.
	d.try(func() error {
		k, err := d.Open(context.Background(), "late")
		if err != nil {
			return err
		}
		go func() {
			time.Sleep(time.Millisecond)
			_ = k.Close()
		}()
		time.Sleep(800 * time.Millisecond)
		return nil
	})
}

func (d *day) write() error {
	w, err := d.BeginWrite(context.Background(), WriteOptions{ID: "written"})
	if err != nil {
		return err
	}
	if _, err := d.WriteData(context.Background(), w.Write, 0, bytes.NewReader(d.origin.data)); err != nil {
		return errors.Join(err, d.AbortWrite(context.Background(), w.Write))
	}
	_, err = d.CommitWrite(context.Background(), w.Write)
	return err
}

func (d *day) afternoon() {
	d.clients("late")
	d.flip("c")
	d.clients("c")
	d.clients("c")
	d.try(func() error { return d.Delete(context.Background(), "c") })
	d.try(func() error { _, err := d.Clean(context.Background(), nil); return err })
	d.try(func() error { return d.Unpin("c") })
	d.try(func() error { _, err := d.UnqueueAll(); return err })
	d.clients("d")
	time.Sleep(time.Minute)
}

// flip changes a bit of an image on disk, behind everybody's back.
func (d *day) flip(id string) {
	if d.Cache == nil {
		return // nobody would look at it today
	}
	d.flipped = id
	name := filepath.Join(d.dir, id)
	before, err := os.Stat(name)
	if err != nil {
		return // it could not be stored
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{0xff}, blockSize+3)
	if err = errors.Join(err, f.Close(), os.Chtimes(name, time.Time{}, before.ModTime())); err != nil {
		d.t.Fatal(err)
	}
}

// after opens the directory without faults: what is an image is whole, what
// is counted is there, and everything can be cached again.
func (d *day) after() {
	d.t.Helper()
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() || e.Name() == d.flipped {
			continue
		}
		data, err := os.ReadFile(filepath.Join(d.dir, e.Name()))
		if err != nil || !bytes.Equal(data, d.origin.data) {
			d.t.Errorf("%s: the image %s has %d bytes, right: %v, %v", d.name, e.Name(), len(data), bytes.Equal(data, d.origin.data), err)
		}
	}
	d.wake()
	if d.Cache == nil {
		d.t.Errorf("%s: the directory cannot be opened any more", d.name)
		return
	}
	time.Sleep(time.Minute)
	d.clients("late")
	d.clients("c")
	k, err := d.Open(context.Background(), "late")
	if err != nil {
		d.t.Errorf("%s: %v", d.name, err)
	} else {
		if !k.Outcome().Hit {
			d.t.Errorf("%s: nothing can be cached any more: %+v", d.name, d.Usage())
		}
		_ = k.Close()
	}
	time.Sleep(time.Minute)
	sum := imageBytes(d.t, d.dir)
	if total, pending := d.pool.State(); total != sum || pending != 0 {
		d.t.Errorf("%s: %d bytes are charged (%d of them leaving), the files have %d", d.name, total, pending, sum)
	}
	if n := d.pool.Reservations(); n != 0 {
		d.t.Errorf("%s: %d reservations were not ended", d.name, n)
	}
	d.sleep()
}

// imageBytes is the size of all image bytes in a cache directory.
func imageBytes(t *testing.T, dir string) (sum int64) {
	t.Helper()
	for _, part := range []string{".", "incomplete", "invalid", ".imgcache/trash"} {
		entries, err := os.ReadDir(filepath.Join(dir, part))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
				sum += info.Size()
			}
		}
	}
	return sum
}
