package cache

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/store"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// TestDiskBadAtStart starts the cache while no file of its directory can be
// opened: images are passed through. Once the disk works, what an earlier run
// stored is back: images, pins, hits and the history.
func TestDiskBadAtStart(t *testing.T) {
	records := &sdktest.Memory{}
	inEngine(t, Config{Options: options.Options{MaxSize: 4 << 20, Limit: options.LimitHard}, Driver: records}, func(t *testing.T, e *engine) {
		e.origin.data = []byte(strings.Repeat("bytes of the image ", 100_000))
		want, _ := e.download("a")
		e.read("a")
		e.pin("a", 0)
		e.pin("b", time.Hour)
		e.shut()

		e.fsys.crashed.Store(true)
		cfg := e.config
		cfg.Store = store.New(store.Config{Dir: e.dir, FS: e.fsys})
		cfg.Origins, cfg.Log = e.origin, slog.New(slog.NewTextHandler(e.log, nil))
		var err error
		if e.Cache, err = New(complete(cfg)); err != nil {
			t.Fatal(err)
		}
		e.Start()
		for range 2 {
			got, outcome, err := e.get("a")
			if err != nil || got != want || outcome.Hit {
				t.Errorf("download with a bad disk: %d bytes, %+v, %v", len(got), outcome, err)
			}
		}
		u := e.Usage()
		if !strings.Contains(u.Disk, "the machine is gone") || u.Records != "loading" {
			t.Errorf("usage with a bad disk: %+v", u)
		}
		if _, err := e.DeleteAll(t.Context()); err == nil {
			t.Error("all images of a directory that is not open were deleted")
		}

		e.fsys.crashed.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got, outcome := e.download("a"); got != want || !outcome.Hit {
			t.Errorf("download with a good disk: %d bytes, %+v", len(got), outcome)
		}
		info, err := e.Image("a")
		if err != nil || info.Hits != 2 || !slices.Equal(e.pinnedIDs(), []string{"a", "b"}) {
			t.Errorf("the image is %+v, %v; pinned are %v", info, err, e.pinnedIDs())
		}
		if story := e.story("a"); !strings.Contains(story, Cached) {
			t.Errorf("the history is %s", story)
		}
		if u := e.Usage(); u.Disk != "ok" || u.Records != "ready" || u.Unsent > 1 {
			t.Errorf("usage with a good disk: %+v", u)
		}
	})
}
