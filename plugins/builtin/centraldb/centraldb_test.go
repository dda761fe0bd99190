package centraldb

import (
	"io"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
	"github.com/imgcache/imgcache-host/sdk"
	"github.com/imgcache/imgcache-host/sdk/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(dbtest.M{M: m}) }

// open returns a driver of a node.
func open(t *testing.T, dsn string, s sdk.Settings) (*Driver, error) {
	t.Helper()
	d := New(slog.New(slog.NewTextHandler(io.Discard, nil)))
	if s.Options == nil {
		s.Options = sdk.Config{}
	}
	s.Options["dsn"] = dsn
	err := d.Configure(t.Context(), s)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, err
}

func mustOpen(t *testing.T, dsn string, s sdk.Settings) *Driver {
	t.Helper()
	d, err := open(t, dsn, s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var one = sdk.Settings{Node: "one", Instance: "0123456789abcdef", URL: "http://one.example"}

func TestConformance(t *testing.T) {
	sdktest.Manifest(t, Manifest)
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		sdktest.Driver(t, func(t *testing.T) sdktest.Subject {
			return sdktest.Subject{Driver: mustOpen(t, s.Database(t), one)}
		})
		sdktest.Durable(t, func(t *testing.T) func() sdktest.Subject {
			dsn := s.Database(t)
			return func() sdktest.Subject { return sdktest.Subject{Driver: mustOpen(t, dsn, one)} }
		})
	})
}
