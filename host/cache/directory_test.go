package cache

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// clear removes what matches patterns in the cache directory, as an operator does
// with rm -rf.
func (e *engine) clear(patterns ...string) {
	e.t.Helper()
	for _, pattern := range patterns {
		list, err := filepath.Glob(filepath.Join(e.dir, pattern))
		if err != nil {
			e.t.Fatal(err)
		}
		for _, path := range list {
			// The service may be making anew what was just removed.
			if err := os.RemoveAll(path); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
				e.t.Fatal(err)
			}
		}
	}
}

// settle lets the service look at its directory.
func settle() {
	time.Sleep(2 * diskPause)
	synctest.Wait()
}

// wantCounted checks that the counts are those of the files.
func (e *engine) wantCounted(when string, images int) {
	e.t.Helper()
	u, sum := e.Usage(), imageBytes(e.t, e.dir)
	if u.Bytes != sum || u.Images != images || u.Reserved != 0 || u.Disk != "ok" {
		e.t.Errorf("%s: %+v, want %d bytes of %d images, and a good disk", when, u, sum, images)
	}
}

// recorded are the ids of which a driver has records.
func recorded(m *sdktest.Memory) (ids []string) {
	for _, e := range m.Entries() {
		ids = append(ids, e.ID)
	}
	slices.Sort(ids)
	return ids
}

// TestDirectoryEmptied takes parts of the directory away under a service with
// images, pins, records, an interrupted transfer and an invalid file. It goes on by
// itself, with right counts, and so does the next start.
func TestDirectoryEmptied(t *testing.T) {
	for name, tt := range map[string]struct {
		gone []string
		left int // images
	}{
		"what is visible":       {[]string{"[^.]*"}, 0},
		"everything":            {[]string{"[^.]*", ".imgcache"}, 0},
		"all but the images":    {[]string{"queue", "incomplete", "invalid", ".imgcache"}, 2},
		"our own files":         {[]string{".imgcache"}, 2},
		"our files, not theirs": {[]string{".imgcache/*"}, 2},
		"an image and a list":   {[]string{"a", "queue"}, 1},
		"partial ones":          {[]string{"incomplete"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			records := &sdktest.Memory{}
			cfg := Config{Options: options.Options{MaxSize: 100 << 20, Limit: options.LimitHard}, Driver: records, DriverName: "driver.memory"}
			inEngine(t, cfg, func(t *testing.T, e *engine) {
				e.origin.data = bigContent(1)
				e.download("a")
				e.download("b")
				e.pin("b", 0)
				e.interrupt("partial")
				if err := os.WriteFile(filepath.Join(e.dir, "invalid", "bad"), make([]byte, 5000), 0o640); err != nil {
					t.Fatal(err)
				}
				settle()

				e.clear(tt.gone...)
				settle()
				e.wantCounted("afterwards", tt.left)
				if got := recorded(records); len(got) != tt.left {
					t.Errorf("the driver knows %v, want %d images", got, tt.left)
				}
				if vanished := e.index.Get("a") == nil; vanished && e.story("a") != "cached, vanished" {
					t.Errorf("the history of a is %s", e.story("a"))
				}
				for _, id := range []string{"new", "a", "b", "partial"} {
					if got, _ := e.download(id); got != string(e.origin.data) {
						t.Errorf("%s: %d bytes", id, len(got))
					}
					synctest.Wait()
					if _, out := e.download(id); !out.Hit {
						t.Errorf("%s is not cached: %+v", id, out)
					}
				}
				if _, err := e.Queue("queued"); err != nil {
					t.Error(err)
				}
				settle()
				e.wantCounted("when all is cached again", 5)

				for range 2 { // as a kill would, and then in order
					e.shut()
					e.open()
				}
				settle()
				e.wantCounted("after a restart", 5)
				if pins := e.pinnedIDs(); !slices.Equal(pins, []string{"b"}) {
					t.Errorf("after a restart %v are pinned", pins)
				}
				if story := e.story("new"); story != "cached" {
					t.Errorf("after a restart the history of new is %s", story)
				}
				if got := recorded(records); len(got) != 5 {
					t.Errorf("after a restart the driver knows %v", got)
				}
				if strings.Contains(e.log.String(), "another driver kept the records") {
					t.Error("after a restart it is not known who kept the records")
				}
			})
		})
	}
}

// TestEmptiedDuringFill takes the directory away amid transfers: their clients get
// every byte, the disk is not called bad, and the next request is stored.
func TestEmptiedDuringFill(t *testing.T) {
	for name, gone := range map[string][]string{
		"everything":   {"[^.]*", ".imgcache"},
		"the file":     {"incomplete/*"},
		"private only": {".imgcache"},
	} {
		t.Run(name, func(t *testing.T) {
			inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
				e.origin.data = bigContent(3)
				first, second := e.begun("1", "a", true), e.begun("2", "a", true)
				ended := make(chan struct{})
				go func() { defer close(ended); e.finish(first) }()
				time.Sleep(time.Second) // amid it
				if e.Usage().Reserved == 0 {
					t.Fatal("the transfer has ended")
				}
				e.clear(gone...)
				<-ended
				e.finish(second)
				if strings.Contains(e.log.String(), "the cache directory fails") {
					t.Errorf("the disk is called bad:\n%s", e.log)
				}
				e.wantWhole("a")
				synctest.Wait()
				if _, out := e.download("a"); !out.Hit {
					t.Errorf("the next request was not stored: %+v; the history is %s", out, e.story("a"))
				}
				settle()
				e.wantCounted("afterwards", 1)
			})
		})
	}
}

// TestEmptiedWhileRead: who reads an image that loses its file reads on, and its
// bytes return when the last of them has gone.
func TestEmptiedWhileRead(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(4)
		e.download("a")
		size := int64(len(e.origin.data))
		k, err := e.Open(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		e.clear("[^.]*")
		settle()
		if u := e.Usage(); u.Images != 0 || u.Bytes != size {
			t.Errorf("while it is read: %+v, want its %d bytes and no image", u, size)
		}
		e.finish(k)
		e.wantCounted("when it was read", 0)
	})
}

// TestRoomReturns: a full cache that was emptied has room at once, without anybody
// to evict.
func TestRoomReturns(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 14 << 20, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(5)
		e.download("a")
		e.download("b")
		e.clear("[^.]*", ".imgcache")
		for _, id := range []string{"c", "d", "c"} { // before anybody has looked
			e.download(id)
			synctest.Wait()
		}
		settle()
		e.wantCounted("afterwards", 2)
		e.wantIDs("c", "d")
	})
}

// TestReadOnlyIsNamed: a file system that cannot be written is named though nobody
// asks for an image, cached ones are served, and storing comes back by itself.
func TestReadOnlyIsNamed(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(6)
		e.download("a")
		e.fsys.readOnly.Store(true)
		settle()
		if u := e.Usage(); !strings.Contains(u.Disk, "read-only file system") {
			t.Errorf("the disk is %q", u.Disk)
		}
		if _, out := e.download("a"); !out.Hit {
			t.Errorf("a cached image: %+v", out)
		}
		if got, out := e.download("b"); got != string(e.origin.data) || out.Hit || out.Stored {
			t.Errorf("another one: %d bytes, %+v", len(got), out)
		}
		e.fsys.readOnly.Store(false)
		settle()
		e.wantCounted("when it can be written again", 1)
		e.download("b")
		synctest.Wait()
		if _, out := e.download("b"); !out.Hit {
			t.Errorf("it is not stored: %+v", out)
		}
		for _, said := range []string{"the cache directory fails", "the cache directory works again"} {
			if n := strings.Count(e.log.String(), said); n != 1 {
				t.Errorf("the log says %d times that %s", n, said)
			}
		}
	})
}

// TestLinkIsNamed: what took the place of a directory is named, and images are
// stored when it has gone.
func TestLinkIsNamed(t *testing.T) {
	for _, name := range []string{"incomplete", "queue", ".imgcache/blocks"} {
		inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
			e.origin.data = bigContent(7)
			target, err := t.TempDir(), error(syscall.EEXIST)
			for errors.Is(err, syscall.EEXIST) { // the service may be faster
				e.clear(name)
				err = syscall.Symlink(target, filepath.Join(e.dir, name))
			}
			if err != nil {
				t.Fatal(err)
			}
			settle()
			if u := e.Usage(); !strings.Contains(u.Disk, name+" is a symbolic link") {
				t.Errorf("%s: the disk is %q", name, u.Disk)
			}
			e.wantWhole("a")
			e.clear(name)
			settle()
			e.wantWhole("a")
			synctest.Wait()
			if _, out := e.download("a"); !out.Hit {
				t.Errorf("%s: it is not stored: %+v", name, out)
			}
			e.wantCounted(name, 1)
		})
	}
}

// onItsOwn opens the cache on the real file system, through which it can find
// another directory.
func (e *engine) onItsOwn() {
	e.t.Helper()
	cfg := e.config
	cfg.Store = store.New(store.Config{Dir: e.dir, Logger: slog.New(slog.DiscardHandler)})
	cfg.Origins, cfg.Log = e.origin, slog.New(slog.NewTextHandler(e.log, nil))
	var err error
	if e.Cache, err = New(complete(cfg)); err != nil {
		e.t.Fatal(err)
	}
	e.Start()
	<-e.scanned
}

// TestDirectoryReplaced puts another directory in the place of the one that is
// used: none, an empty one, one with images, and back again. The service goes on
// with what is there, knows its images, and keeps pins and records right.
func TestDirectoryReplaced(t *testing.T) {
	records := &sdktest.Memory{}
	cfg := Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}, Driver: records, DriverName: "driver.memory"}
	inEngineAt(t, filepath.Join(t.TempDir(), "cache"), cfg, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(8)
		e.shut()
		e.onItsOwn()
		e.download("a")
		e.pin("a", 0)
		e.interrupt("partial")
		settle()
		first := e.dir + ".first"
		step := func(what string, change func() error, want ...string) {
			t.Helper()
			if err := change(); err != nil {
				t.Fatal(err)
			}
			settle()
			e.wantIDs(want...)
			e.wantCounted(what, len(want))
			if got := recorded(records); !slices.Equal(got, want) {
				t.Errorf("%s: the driver knows %v, want %v", what, got, want)
			}
			if pins := e.pinnedIDs(); !slices.Equal(pins, []string{"a"}) {
				t.Errorf("%s: %v are pinned", what, pins)
			}
			data, err := os.ReadFile(filepath.Join(e.dir, ".imgcache", "pins"))
			if err != nil || !bytes.Contains(data, []byte(`"a"`)) {
				t.Errorf("%s: the file of pins holds %q, %v", what, data, err)
			}
		}
		step("renamed away", func() error { return os.Rename(e.dir, first) })
		e.download("c")
		step("a new image", func() error { return nil }, "c")
		step("back again", func() error {
			if err := os.RemoveAll(e.dir); err != nil {
				return err
			}
			return os.Rename(first, e.dir)
		}, "a")
		if u := e.Fills(); len(u) != 1 || u[0].ID != "partial" {
			t.Errorf("back again the interrupted fills are %+v", u)
		}
		if _, out := e.download("a"); !out.Hit || out.Detail == "unverified" {
			t.Errorf("back again: %+v", out)
		}
		e.wantWhole("partial")
		step("the partial one", func() error { return nil }, "a", "partial")
		step("removed", func() error { return os.RemoveAll(e.dir) })
		e.download("d")
		step("an image after that", func() error { return nil }, "d")
	})
}

// TestNothingToOpen: while the path leads to no directory images are passed
// through, and none is thought absent.
func TestNothingToOpen(t *testing.T) {
	inEngineAt(t, filepath.Join(t.TempDir(), "cache"), Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = bigContent(9)
		e.shut()
		e.onItsOwn()
		e.download("a")
		if err := os.Rename(e.dir, e.dir+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("nowhere", e.dir); err != nil {
			t.Fatal(err)
		}
		settle()
		if u := e.Usage(); !strings.Contains(u.Disk, "symbolic link to nowhere") {
			t.Errorf("the disk is %q", u.Disk)
		}
		e.wantWhole("a")
		if err := os.Remove(e.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(e.dir+".away", e.dir); err != nil {
			t.Fatal(err)
		}
		settle()
		if _, out := e.download("a"); !out.Hit {
			t.Errorf("back again: %+v", out)
		}
		e.wantCounted("back again", 1)
	})
}

// TestAllocated: usage tells how many bytes of the disk images take, beside their
// sizes, as they come and go.
func TestAllocated(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		want := func(when string, ids ...string) {
			t.Helper()
			var sum, sizes int64
			for _, id := range ids {
				fi, err := os.Stat(filepath.Join(e.dir, id))
				if err != nil {
					t.Fatal(err)
				}
				sum, sizes = sum+fi.Sys().(*syscall.Stat_t).Blocks*512, sizes+fi.Size()
			}
			if u := e.Usage(); u.Allocated != sum || u.Bytes != sizes {
				t.Errorf("%s: %d bytes, of the disk %d; want %d and %d", when, u.Bytes, u.Allocated, sizes, sum)
			}
		}
		e.origin.data = append(bytes.Repeat([]byte("data"), 1000), make([]byte, 20<<20)...)
		e.download("sparse")
		want("one sparse image", "sparse")
		if u := e.Usage(); u.Allocated > 1<<20 || u.Bytes < 20<<20 {
			t.Errorf("a sparse image: %d bytes, of the disk %d", u.Bytes, u.Allocated)
		}
		e.origin.data = bigContent(1)
		e.download("dense")
		want("two images", "sparse", "dense")
		e.shut()
		e.open()
		want("after a restart", "sparse", "dense")
		if r := e.scrub(); len(r.Bad)+len(r.Unread) != 0 || r.Images != 2 {
			t.Errorf("a scrub finds %+v", r)
		}
		want("after a scrub", "sparse", "dense")
		if err := e.Delete(t.Context(), "dense"); err != nil {
			t.Fatal(err)
		}
		settle()
		want("after a delete", "sparse")
		e.clear("[^.]*")
		settle()
		want("when all is gone")
	})
}
