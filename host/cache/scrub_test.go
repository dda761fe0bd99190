package cache

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // Glance's digest
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// scrub runs a scrub to its end.
func (e *engine) scrub() ScrubReport {
	e.t.Helper()
	r, err := e.Scrub(e.t.Context())
	if err != nil {
		e.t.Fatalf("scrub: %v", err)
	}
	return r
}

func (r ScrubReport) String() string {
	return fmt.Sprintf("%d right, %d adopted, %d bytes, bad %v, unread %v", r.Images, r.Adopted, r.Bytes, r.Bad, r.Unread)
}

// TestScrubFindsBitRot in whatever block it is, and quarantines the image.
func TestScrubFindsBitRot(t *testing.T) {
	inCached(t, Config{Options: options.Options{VerifyReads: options.VerifyNever}}, func(t *testing.T, e *engine) {
		size := int64(len(e.origin.data))
		e.put("other", 100)
		if r := e.scrub(); r.Images != 2 || r.Adopted != 0 || r.Bytes != size+100 || len(r.Bad)+len(r.Unread) != 0 {
			t.Errorf("of two good images: %v", r)
		}
		if err := e.Delete(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // for its file to be unlinked
		for block := range int64(5) {
			e.flip(block, true)
			if r := e.scrub(); r.Images != 0 || len(r.Bad) != 1 || r.Bad[0].ID != "image" {
				t.Errorf("block %d: %v, want one bad image", block, r)
			}
			e.wantQuarantined(fmt.Sprintf("block %d", block))
			e.refetch()
		}
		e.edit(true, func(f store.File) { f.Truncate(blockSize) })
		if r := e.scrub(); len(r.Bad) != 1 {
			t.Errorf("a cut file: %v", r)
		}
		e.wantQuarantined("cut")
		if u := e.Usage(); u.Quarantined != 6 || u.Scrub != nil {
			t.Errorf("usage counts %d, and a scrub %+v", u.Quarantined, u.Scrub)
		}
	})
}

// TestScrubAdopts compares what another program stored with what there is to
// compare it with, and guards it from then on.
func TestScrubAdopts(t *testing.T) {
	data := someImage()
	sum, sum5 := fmt.Sprintf("sha256:%x", sha256.Sum256(data)), fmt.Sprintf("md5:%x", md5.Sum(data)) //nolint:gosec // see the import
	other := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("other")))
	for what, tt := range map[string]struct {
		record  string // version of the driver's record
		origin  func(o *fakeOrigin)
		version string // afterwards; "-": it is bad
	}{
		"nothing is known":              {"", func(*fakeOrigin) {}, ""},
		"the origin is away":            {"", func(o *fakeOrigin) { o.down = true }, ""},
		"the origin declares it":        {"", func(o *fakeOrigin) { o.digest = true }, sum},
		"the origin declares another":   {"", func(o *fakeOrigin) { o.digest = true; o.data = data[1:] }, "-"},
		"its version is its digest":     {sum, func(*fakeOrigin) {}, sum},
		"its version is its MD5":        {sum5, func(*fakeOrigin) {}, sum5},
		"its version is another digest": {other, func(*fakeOrigin) {}, "-"},
		"its version is a tag":          {`"1"`, func(*fakeOrigin) {}, `"1"`},
		"a tag, and it is declared":     {`"1"`, func(o *fakeOrigin) { o.digest = true }, sum},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			plantBytes(t, dir, "image", data)
			driver := &sdktest.Memory{}
			if tt.record != "" {
				if err := driver.Apply(t.Context(), sdk.Batch{Source: "s", Seq: 1, Ops: []sdk.Op{sdk.Put(sdk.Entry{ID: "image", Version: tt.record, Size: int64(len(data))})}}); err != nil {
					t.Fatal(err)
				}
			}
			inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}, Driver: driver}, func(t *testing.T, e *engine) {
				e.origin.data = data
				tt.origin(e.origin)
				<-e.recorder.Merged
				if info, _ := e.Image("image"); info.Verified || !info.LastChecked.IsZero() {
					t.Fatalf("before: %+v", info)
				}
				r := e.scrub()
				if tt.version == "-" {
					if len(r.Bad) != 1 || r.Images != 0 {
						t.Errorf("%v, want one bad image", r)
					}
					return
				}
				if r.Adopted != 1 || r.Images != 1 || len(r.Bad) != 0 {
					t.Errorf("%v, want one adopted image", r)
				}
				info, _ := e.Image("image")
				if !info.Verified || info.Version != tt.version || info.SHA256 != sum[7:] || info.LastChecked.IsZero() {
					t.Errorf("afterwards: %+v, want it verified, of version %q", info, tt.version)
				}
				if r := e.scrub(); r.Adopted != 0 || r.Images != 1 {
					t.Errorf("again: %v", r)
				}
				e.origin.mu.Lock()
				e.origin.down, e.origin.digest, e.origin.data, e.origin.version = false, strings.HasPrefix(tt.version, "sha256:"), data, tt.version
				e.origin.mu.Unlock()
				e.flip(2, true)
				got, err := e.downloadPart(0, -1)
				if tt.version == "" {
					if err == nil || !bytes.HasPrefix(data, got) {
						t.Errorf("a bad block without a version: %d bytes, right %v, %v", len(got), bytes.HasPrefix(data, got), err)
					}
				} else if err != nil || !bytes.Equal(got, data) {
					t.Errorf("a bad block: %d bytes, right %v: %v", len(got), bytes.Equal(got, data), err)
				}
			})
		})
	}
}

// plantBytes puts a file into the cache as another program does.
func plantBytes(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	at := before(time.Hour)
	if err := errors.Join(os.WriteFile(path, data, 0o640), os.Chtimes(path, at, at)); err != nil {
		t.Fatal(err)
	}
}

// TestScrubAsksAgain: what could not be compared because the origin was away
// is compared by a later scrub.
func TestScrubAsksAgain(t *testing.T) {
	dir := t.TempDir()
	plantBytes(t, dir, "image", someImage())
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = append(someImage(), 1)
		e.origin.down = true
		if r := e.scrub(); r.Adopted != 1 {
			t.Errorf("while the origin is away: %v", r)
		}
		e.origin.down, e.origin.digest = false, true
		if r := e.scrub(); len(r.Bad) != 1 {
			t.Errorf("once it is back: %v, want the image bad", r)
		}
	})
}

// TestScrubLeavesYoungFiles alone: they may still be copied in.
func TestScrubLeavesYoungFiles(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		plantBytes(t, e.dir, "image", []byte("half"))
		if err := os.Chtimes(filepath.Join(e.dir, "image"), time.Time{}, time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if r, err := e.Verify(t.Context(), []string{"image"}, func(ScrubProgress) {}); err != nil || len(r.Unread) != 1 || r.Adopted != 0 {
			t.Errorf("%v, %v, want it unread", r, err)
		}
		time.Sleep(time.Minute)
		if r := e.scrub(); r.Adopted != 1 {
			t.Errorf("a minute later: %v", r)
		}
	})
}

// TestScrubOfCopiedDirectory takes the versions over, though inodes and times
// are others.
func TestScrubOfCopiedDirectory(t *testing.T) {
	dir := t.TempDir()
	inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}}, func(t *testing.T, e *engine) {
		e.origin.data = someImage()
		e.refetch()
		e.shut()
		path := filepath.Join(dir, "image")
		if err := os.Rename(path, path+".old"); err != nil { // so that the inode is another
			t.Fatal(err)
		}
		plantBytes(t, dir, "image", e.origin.data)
		if err := os.Remove(path + ".old"); err != nil {
			t.Fatal(err)
		}
		e.open()
		if info, _ := e.Image("image"); info.Verified {
			t.Fatalf("before: %+v", info)
		}
		if r := e.scrub(); r.Adopted != 1 {
			t.Errorf("%v, want one image taken over", r)
		}
		if info, _ := e.Image("image"); !info.Verified || info.Version != `"1"` || info.URL == "" && e.origin.object().URL != "" {
			t.Errorf("afterwards: %+v", info)
		}
	})
}

// TestScrubRate keeps within the bound, tells how far it is, stops at once, and
// goes on with what it did not come to. Only one runs at a time.
func TestScrubRate(t *testing.T) {
	const images = 6
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Scrub: options.Scrub{Bandwidth: blockSize}}}, func(t *testing.T, e *engine) {
		for i := range images {
			e.put(fmt.Sprint(i), 2*blockSize)
			e.markChecked(fmt.Sprint(i), time.Unix(int64(1000-i), 0)) // the last one is due first
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		ended := make(chan error, 1)
		var report ScrubReport
		begun := time.Now()
		go func() {
			var err error
			report, err = e.Scrub(ctx)
			ended <- err
		}()
		time.Sleep(5500 * time.Millisecond)
		synctest.Wait()
		p := e.Usage().Scrub
		if p == nil || p.ID != "3" || p.Images != 3 || p.Total != images || p.Bytes != 6*blockSize || p.TotalBytes != 2*images*blockSize || !p.Started.Equal(begun) {
			t.Errorf("after 5.5 s the progress is %+v", p)
		}
		if _, err := e.Scrub(t.Context()); !errors.Is(err, ErrConflict) {
			t.Errorf("a second scrub: %v, want ErrConflict", err)
		}
		why := errors.New("enough")
		before := time.Now()
		cancel(why)
		if err := <-ended; !errors.Is(err, why) || time.Since(before) != 0 || report.Images != 3 {
			t.Errorf("stopped after %v with %v, %v", time.Since(before), report, err)
		}
		if e.Usage().Scrub != nil {
			t.Error("it still shows as running")
		}
		var order []string
		begun = time.Now()
		if _, err := e.Verify(t.Context(), nil, func(p ScrubProgress) {
			if len(order) == 0 || order[len(order)-1] != p.ID {
				order = append(order, p.ID)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(order, " "); !strings.HasPrefix(got, "2 1 0") || len(order) != images {
			t.Errorf("the next one reads in the order %s, want what was not reached first", got)
		}
		if took := time.Since(begun); took < (2*images-1)*time.Second-time.Second || took > 2*images*time.Second {
			t.Errorf("12 blocks took %v at a block a second", took)
		}
	})
}

// markChecked sets the time of an image's last check.
func (e *engine) markChecked(id string, at time.Time) {
	e.t.Helper()
	tables, err := filepath.Glob(filepath.Join(e.dir, ".imgcache", "blocks", id+"~*"))
	if err != nil || len(tables) != 1 {
		e.t.Fatal(tables, err)
	}
	if err := os.Chtimes(tables[0], at, at); err != nil {
		e.t.Fatal(err)
	}
}

// TestScrubMakesWay: an image may be evicted while it is read, and its space
// is free at once.
func TestScrubMakesWay(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Scrub: options.Scrub{Bandwidth: blockSize}}}, func(t *testing.T, e *engine) {
		e.put("a", 10*blockSize)
		e.put("b", 10)
		e.markChecked("a", time.Unix(1, 0))
		type result struct {
			ScrubReport
			error
		}
		ended := make(chan result, 1)
		go func() {
			r, err := e.Scrub(t.Context())
			ended <- result{r, err}
		}()
		time.Sleep(3 * time.Second)
		if u := e.Usage(); u.Scrub == nil || u.Scrub.ID != "a" {
			t.Fatalf("the scrub is at %+v", u.Scrub)
		}
		if r := e.prune(10); r.Files != 1 {
			t.Errorf("pruned %+v, want the image that is being checked", r)
		}
		time.Sleep(2 * time.Second)
		if u := e.Usage(); u.Bytes != 10 {
			t.Errorf("%d bytes are used, want those of b", u.Bytes)
		}
		if r := <-ended; r.error != nil || r.Images != 1 || len(r.Bad)+len(r.Unread) != 0 {
			t.Errorf("%v, %v; want b alone, and no complaint", r.ScrubReport, r.error)
		}
	})
}

// TestScrubEndsWithTheCache.
func TestScrubEndsWithTheCache(t *testing.T) {
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, Scrub: options.Scrub{Bandwidth: 1 << 10}}}, func(t *testing.T, e *engine) {
		e.put("a", 100*blockSize)
		ended := make(chan error, 1)
		go func() {
			_, err := e.Scrub(t.Context())
			ended <- err
		}()
		time.Sleep(time.Minute)
		e.stop(errStopped)
		if err := <-ended; !errors.Is(err, errStopped) {
			t.Errorf("it ended with %v", err)
		}
	})
}

func TestVerifyNamed(t *testing.T) {
	inCached(t, Config{}, func(t *testing.T, e *engine) {
		e.put("b", 10)
		if r, err := e.Verify(t.Context(), []string{"b"}, func(ScrubProgress) {}); err != nil || r.Images != 1 || r.Bytes != 10 {
			t.Errorf("%v, %v", r, err)
		}
		for id, want := range map[string]error{"absent": ErrNotFound, "../b": ErrBadID} {
			if _, err := e.Verify(t.Context(), []string{"b", id}, func(ScrubProgress) {}); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", id, err, want)
			}
		}
	})
}

// TestScrubCannotRead says so, and blames no image.
func TestScrubCannotRead(t *testing.T) {
	inCached(t, Config{}, func(t *testing.T, e *engine) {
		e.fsys.crashed.Store(true)
		r := e.scrub()
		e.fsys.crashed.Store(false)
		if len(r.Unread) != 1 || len(r.Bad) != 0 {
			t.Errorf("%v, want one unread", r)
		}
		e.wantIDs("image")
	})
}
