package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/host/cache/internal/drivertest"
	"github.com/imgcache/imgcache-host/host/cache/options"
	"github.com/imgcache/imgcache-host/host/cache/records"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

// seedRecords gives a driver records of an earlier life.
func seedRecords(t *testing.T, d sdk.Driver, entries ...sdk.Entry) {
	t.Helper()
	b := sdk.Batch{Source: "earlier", Seq: 1}
	for _, e := range entries {
		b.Ops = append(b.Ops, sdk.Put(e))
	}
	if err := d.Apply(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// TestMigrate moves records to a driver that has older ones, some of them with
// more hits, and goes on with it. A restart with the one before misses nothing.
func TestMigrate(t *testing.T) {
	var a, b sdktest.Memory
	inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}, Driver: &a, DriverName: "driver.a"}, func(t *testing.T, e *engine) {
		for i, id := range []string{"one", "two", "three"} {
			e.put(id, 10+i)
			for range i + 1 {
				e.read(id)
			}
		}
		one, _ := e.Image("one")
		seedRecords(t, &b, sdk.Entry{ID: "one", Version: one.Version, Size: 10, Hits: 100, LastAccessed: time.Now().Add(time.Hour)},
			sdk.Entry{ID: "gone", Size: 5, Hits: 7}, sdk.Entry{ID: "two", Version: "another", Size: 99, Hits: 50})

		to := records.Target{Name: "driver.b", Driver: &b, DryRun: true}
		tell := func(records.Progress) {}
		want := records.Report{From: "driver.a", To: "driver.b", Configured: "driver.a", Records: 3, Hits: 6, Replaced: 2, Removed: 1, DryRun: true}
		if got, err := e.Migrate(t.Context(), to, tell); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("dry run: %+v, %v; want %+v", got, err, want)
		}
		drivertest.WantHits(t, "b", &b, map[string]uint64{"one": 100, "two": 50, "gone": 7})
		to.DryRun, want.DryRun, want.Verified, want.Moved = false, false, 3, true
		if got, err := e.Migrate(t.Context(), to, tell); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("migration: %+v, %v; want %+v", got, err, want)
		}
		drivertest.WantHits(t, "b", &b, map[string]uint64{"one": 1, "two": 2, "three": 3})
		if _, err := e.Migrate(t.Context(), to, tell); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("to the driver in use: %v, want ErrInvalid", err)
		}

		before := a.Entries()
		e.read("one")
		e.put("four", 4)
		if err := e.Delete(t.Context(), "three"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		after := map[string]uint64{"one": 2, "two": 2, "four": 0}
		drivertest.WantHits(t, "b", &b, after)
		if !slices.Equal(a.Entries(), before) {
			t.Error("the driver that was left was called")
		}
		if e.RecordsWith() != "driver.b" || e.Migration() != nil {
			t.Errorf("%s keeps the records, and on its way is %v", e.RecordsWith(), e.Migration())
		}

		e.shut()
		e.open() // with the first driver
		time.Sleep(5 * time.Second)
		drivertest.WantHits(t, "a", &a, after)
		if text := e.log.String(); strings.Count(text, "the configuration still names the one before") != 1 {
			t.Errorf("no warning that the configuration still names the driver before:\n%s", text)
		}
		e.shut()
		e.config.Driver, e.config.DriverName = &b, "driver.b"
		e.open()
		time.Sleep(5 * time.Second)
		drivertest.WantHits(t, "b", &b, after)
		if text := e.log.String(); !strings.Contains(text, "driver migrate --from driver.a --to driver.b") {
			t.Errorf("no warning that another driver kept the records:\n%s", text)
		}
	})
}

// TestMigrateGivesUp moves records to a driver that does not take them, or
// gives back others. The one before goes on, and nothing is lost.
func TestMigrateGivesUp(t *testing.T) {
	for name, to := range map[string]sdk.Driver{
		"away": failingDriver{}, "slow": failingDriver{slow: true}, "lying": &lyingDriver{}, "refusing": refusingDriver{},
	} {
		t.Run(name, func(t *testing.T) {
			var a sdktest.Memory
			inEngine(t, Config{Options: options.Options{MaxSize: 1 << 30, Limit: options.LimitHard}, Driver: &a, DriverName: "driver.a"}, func(t *testing.T, e *engine) {
				e.put("one", 10)
				e.read("one")
				ended := make(chan error)
				var last records.Progress
				go func() {
					_, err := e.Migrate(t.Context(), records.Target{Name: "driver.b", Driver: to}, func(p records.Progress) { last = p })
					ended <- err
				}()
				time.Sleep(100 * time.Millisecond)
				e.read("one")
				if err := <-ended; err == nil {
					t.Error("the migration succeeded")
				} else if name == "lying" && !errors.Is(err, records.ErrDifferent) {
					t.Errorf("the error is %v, want ErrDifferent", err)
				}
				if name == "away" && (last.Error == "" || last.To != "driver.b") {
					t.Errorf("the last progress is %+v", last)
				}
				e.read("one")
				time.Sleep(time.Minute)
				drivertest.WantHits(t, "a", &a, map[string]uint64{"one": 3})
				if _, err := e.store.FS().Lstat("test", ".imgcache/records-b.log"); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the record log of the other driver: %v", err)
				}
			})
		})
	}
}

// lyingDriver takes everything and has one hit more of each image.
type lyingDriver struct{ sdktest.Memory }

func (d *lyingDriver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	return d.Memory.List(ctx, func(entries []sdk.Entry) error {
		for i := range entries {
			entries[i].Hits++
		}
		return yield(entries)
	})
}

// refusingDriver has no place for any batch.
type refusingDriver struct{}

func (refusingDriver) List(context.Context, func([]sdk.Entry) error) error { return nil }
func (refusingDriver) Apply(context.Context, sdk.Batch) error              { return sdk.ErrInvalid }
