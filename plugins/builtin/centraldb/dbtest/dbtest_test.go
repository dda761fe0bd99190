package dbtest_test

import (
	"testing"

	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
)

func TestServers(t *testing.T) {
	for _, start := range []func(testing.TB) *dbtest.Server{dbtest.PostgreSQL, dbtest.MariaDB} {
		s := start(t)
		t.Run(s.Name(), func(t *testing.T) {
			db := s.Open(t, s.Database(t))
			for range 2 {
				var n int
				if err := db.QueryRowContext(t.Context(), "SELECT 42").Scan(&n); err != nil || n != 42 {
					t.Errorf("got %d, %v", n, err)
				}
				s.Kill()
				if err := db.QueryRowContext(t.Context(), "SELECT 42").Scan(&n); err == nil {
					t.Error("a killed server answers")
				}
				s.Start(t)
			}
		})
	}
}
