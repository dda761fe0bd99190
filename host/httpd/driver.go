package httpd

import (
	"context"
	"fmt"
	"net/http"

	"github.com/imgcache/imgcache-host/host/cache/records"
	"github.com/imgcache/imgcache-host/sdk"
)

// MigrateOptions says from which driver to which the records shall move, as the
// configuration refers to them.
type MigrateOptions struct {
	From   string `json:"from,omitempty"` // empty: the one that keeps them
	To     string `json:"to"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// DriverStatus says who keeps the records.
type DriverStatus struct {
	Driver     string            `json:"driver"`
	Configured string            `json:"configured"`          // the one with which a restart goes on
	Migration  *records.Progress `json:"migration,omitempty"` // of the records to another driver; nil: they do not move
}

// Drivers is what the native API does with the drivers of the service.
type Drivers interface {
	DriverStatus() DriverStatus
	// Migrate moves the records to another driver. It calls tell now and then.
	Migrate(ctx context.Context, o MigrateOptions, tell func(records.Progress)) (records.Report, error)
}

// noDrivers are the drivers of a service that knows none.
type noDrivers struct{}

func (noDrivers) DriverStatus() DriverStatus { return DriverStatus{} }

func (noDrivers) Migrate(context.Context, MigrateOptions, func(records.Progress)) (records.Report, error) {
	return records.Report{}, sdk.ErrUnsupported
}

// driverAPI are the handlers of the drivers.
type driverAPI struct {
	answerer
	drivers Drivers
}

func (a driverAPI) show(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, a.drivers.DriverStatus())
}

// migrate moves the records to another driver.
func (a driverAPI) migrate(w http.ResponseWriter, r *http.Request) {
	var o MigrateOptions
	err := decode(w, r, &o)
	if err == nil && o.To == "" {
		err = fmt.Errorf("%w: to is missing: the driver that shall have the records", errBadRequest)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	stream(a.answerer, w, r, func(ctx context.Context, tell func(records.Progress)) (records.Report, error) {
		return a.drivers.Migrate(ctx, o, tell)
	})
}
