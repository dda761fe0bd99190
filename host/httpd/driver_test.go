package httpd

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/imgcache/imgcache-host/host/cache"
	"github.com/imgcache/imgcache-host/host/cache/records"
)

// fakeDrivers moves records to driver.b, and nowhere else.
type fakeDrivers struct{ asked MigrateOptions }

func (d *fakeDrivers) DriverStatus() DriverStatus {
	return DriverStatus{Driver: "driver.a", Configured: "driver.a", Migration: &records.Progress{To: "driver.b", Phase: "sending", Total: 2, Started: modified}}
}

func (d *fakeDrivers) Migrate(_ context.Context, o MigrateOptions, tell func(records.Progress)) (records.Report, error) {
	d.asked = o
	if o.To != "driver.b" {
		return records.Report{}, fmt.Errorf("%w: the records are elsewhere", cache.ErrConflict)
	}
	tell(records.Progress{Phase: "listing", Total: 2, Started: modified})
	return records.Report{From: "driver.a", To: "driver.b", Records: 2, Moved: true}, nil
}

// TestDriver says who keeps the records, and has them moved.
func TestDriver(t *testing.T) {
	d := &fakeDrivers{}
	h := newService(newEngine(), func(c *Config) { c.Drivers = d }).Handler(everything)
	if w := call(h, "GET", "/v1/driver", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"phase":"sending"`) {
		t.Errorf("GET: %d %s", w.Code, w.Body)
	}
	w := call(h, "POST", "/v1/driver/migrate", `{"from": "driver.a", "to": "driver.b", "dry_run": true}`)
	lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
	if w.Code != 200 || len(lines) != 2 || !strings.Contains(lines[0], `"phase":"listing"`) || !strings.Contains(lines[1], `"moved":true`) {
		t.Errorf("POST: %d %s", w.Code, w.Body)
	}
	if diff := cmp.Diff(MigrateOptions{From: "driver.a", To: "driver.b", DryRun: true}, d.asked); diff != "" {
		t.Error(diff)
	}
	for body, want := range map[string]int{
		`{}`:                   http.StatusBadRequest,
		`{"too": "driver.b"}`:  http.StatusBadRequest,
		`{"to": "driver.any"}`: http.StatusConflict,
	} {
		if w := call(h, "POST", "/v1/driver/migrate", body); w.Code != want {
			t.Errorf("%s: %d %s, want %d", body, w.Code, w.Body, want)
		}
	}
	if w := call(newService(newEngine()).Handler(everything), "POST", "/v1/driver/migrate", `{"to": "driver.b"}`); w.Code != http.StatusNotImplemented {
		t.Errorf("without drivers: %d %s", w.Code, w.Body)
	}
}
