package cache

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/journal"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/cache/records"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// lateDriver is away until it is up.
type lateDriver struct {
	sdktest.Memory
	up atomic.Bool
}

func (d *lateDriver) Apply(ctx context.Context, b sdk.Batch) error {
	if !d.up.Load() {
		return sdk.ErrUnavailable
	}
	return d.Memory.Apply(ctx, b)
}

func (d *lateDriver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	if !d.up.Load() {
		return sdk.ErrUnavailable
	}
	return d.Memory.List(ctx, yield)
}

// TestRecordWithoutVersion: such a record, as it is taken over from another
// program, is of the image of its size, whether the version of that becomes
// known before the record or after it, and is lost when a new one replaces it.
func TestRecordWithoutVersion(t *testing.T) {
	data := someImage()
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	for what, tt := range map[string]struct {
		size        int
		scrub, late bool
		hits        uint64
		version     string
	}{
		"version stays unknown":       {len(data), false, false, 7, ""},
		"version after the record":    {len(data), true, false, 7, sum},
		"version before the record":   {len(data), true, true, 7, sum},
		"another size":                {1, false, false, 0, ""},
		"another size, then verified": {1, true, false, 0, sum},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			plantBytes(t, dir, "image", data)
			used := before(time.Minute)
			driver := &lateDriver{}
			driver.up.Store(!tt.late)
			record := sdk.Entry{ID: "image", Size: int64(tt.size), Hits: 7, LastAccessed: used}
			if err := driver.Memory.Apply(t.Context(), sdk.Batch{Source: "s", Seq: 1, Ops: []sdk.Op{sdk.Put(record)}}); err != nil {
				t.Fatal(err)
			}
			inEngineAt(t, dir, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}, Driver: driver}, func(t *testing.T, e *engine) {
				e.origin.data, e.origin.digest = data, true
				if !tt.late {
					<-e.recorder.Merged
				}
				if tt.scrub {
					if r := e.scrub(); r.Adopted != 1 {
						t.Fatalf("scrub: %v", r)
					}
				}
				driver.up.Store(true)
				<-e.recorder.Merged
				time.Sleep(time.Minute)
				info, _ := e.Image("image")
				if info.Hits != tt.hits || info.Version != tt.version || tt.hits > 0 != info.LastAccessed.Equal(used) {
					t.Errorf("%+v, want %d hits of version %q", info, tt.hits, tt.version)
				}
				got := driver.Entries()
				if len(got) != 1 || got[0].Hits != tt.hits || got[0].Version != tt.version || got[0].Size != int64(len(data)) {
					t.Errorf("the driver has %+v", got)
				}
			})
		})
	}
}

// failingDriver fails at once, or takes as long as it may.
type failingDriver struct{ slow bool }

func (d failingDriver) List(ctx context.Context, _ func([]sdk.Entry) error) error { return d.fail(ctx) }

func (d failingDriver) Apply(ctx context.Context, _ sdk.Batch) error { return d.fail(ctx) }

func (d failingDriver) fail(ctx context.Context) error {
	if d.slow {
		<-ctx.Done()
	}
	return sdk.ErrUnavailable
}

// TestFlushInterval sends hits as often as is configured, and what comes or goes
// at once.
func TestFlushInterval(t *testing.T) {
	for every, most := range map[time.Duration]int{0: 90, time.Second: 90, 30 * time.Second: 5} {
		driver := sdktest.NewFlaky(&sdktest.Memory{}, func(int) sdktest.Fault { return sdktest.NoFault })
		inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard, FlushInterval: every}, Driver: driver}, func(t *testing.T, e *engine) {
			e.put("a", 10)
			time.Sleep(2 * time.Second)
			before := driver.Calls()
			for range 60 {
				e.read("a")
				time.Sleep(time.Second)
			}
			if n := driver.Calls() - before; n < 2 || n > most {
				t.Errorf("every %v: %d calls in a minute, want 2 to %d", every, n, most)
			}
			before = driver.Calls()
			e.put("b", 10)
			time.Sleep(time.Millisecond)
			if driver.Calls() == before {
				t.Errorf("every %v: a new image waits", every)
			}
		})
	}
}

// TestLogIsWrittenMeanwhile: whatever the driver does, what a kill of the host
// can cost is a second.
func TestLogIsWrittenMeanwhile(t *testing.T) {
	for _, slow := range []bool{false, true} {
		inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}, Driver: failingDriver{slow}}, func(t *testing.T, e *engine) {
			e.put("a", 10)
			time.Sleep(45 * time.Second) // the pauses are long by now, and so are the calls
			for hits := range uint64(20) {
				e.read("a")
				time.Sleep(records.FlushEvery)
				log := journal.New(e.store.FS(), e.store.PrivateDir()+"/records.log", "")
				if err := log.Load(); err != nil {
					t.Fatal(err)
				}
				got := log.Unacknowledged("a").Hits
				if batch := log.OnItsWay(); batch != nil {
					for _, op := range batch.Ops {
						got += op.Entry.Hits
					}
				}
				if got != hits+1 {
					t.Errorf("slow %v: after %d hits the log on disk has %d", slow, hits+1, got)
				}
			}
		})
	}
}
