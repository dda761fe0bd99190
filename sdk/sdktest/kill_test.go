package sdktest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// TestKilledInBatch kills each driver while it is somewhere in a batch, which is
// sent again to the next process, as the host does: every hit counts once.
func TestKilledInBatch(t *testing.T) {
	t.Parallel()
	kills := 3
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		kills = 50
	}
	for _, s := range shipped {
		t.Run(s.store, func(t *testing.T) {
			t.Parallel()
			path, dir := driverBinary(t, s.driver), cacheDir(t)
			var options sdk.Config
			if s.server != nil {
				options = sdk.Config{"dsn": s.server(t).Database(t)}
			}
			killInBatch(t, kills, func() process { return startDriver(t, s.driver, path, dir, options) })
		})
	}
}

func killInBatch(t *testing.T, kills int, start func() process) {
	const images = 1000
	p := start()
	defer func() { p.stop() }()
	var puts, touches []sdk.Op
	for i := range images {
		id := fmt.Sprint("image-", i)
		p.Create(id)
		puts, touches = append(puts, sdk.Put(sdk.Entry{ID: id, Size: 1})), append(touches, sdk.Touch(id, 1, time.Time{}))
	}
	seq := uint64(0)
	next := func(ops []sdk.Op) sdk.Batch {
		seq++
		return sdk.Batch{Source: "0123456789abcdef0123456789abcdef", Seq: seq, Ops: ops}
	}
	must := func(b sdk.Batch) {
		if err := p.Driver.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	must(next(puts))
	cut := 0
	for range kills {
		began := time.Now()
		must(next(touches))
		took := time.Since(began)

		pid, b := p.pid, next(touches)
		timer := time.AfterFunc(rand.N(took), func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
		if err := p.Driver.Apply(t.Context(), b); err != nil {
			cut++
		}
		timer.Stop()
		p.stop()
		p = start()
		must(b)
		must(b)
		wantHits(t, p.Driver, images, seq-1)
	}
	t.Logf("%d of %d batches were cut short", cut, kills)
}

// wantHits fails unless each of so many images has so many hits.
func wantHits(t *testing.T, d sdk.Driver, images int, hits uint64) {
	t.Helper()
	seen := 0
	err := d.List(t.Context(), func(entries []sdk.Entry) error {
		for _, e := range entries {
			if seen++; e.Hits != hits {
				return fmt.Errorf("%s has %d hits, want %d", e.ID, e.Hits, hits)
			}
		}
		return nil
	})
	if err != nil || seen != images {
		t.Fatalf("List() = %v, %d entries, want %d", err, seen, images)
	}
}
