package centraldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
	"github.com/imgcache/imgcache-host/sdk"
)

// again applies a batch until that succeeds, as the host does.
func again(t *testing.T, d *Driver, b sdk.Batch) {
	t.Helper()
	var err error
	for range 20 {
		if err = d.Apply(t.Context(), b); err == nil {
			return
		}
		if errors.Is(err, sdk.ErrInvalid) {
			break
		}
	}
	t.Fatal(err)
}

// TestCommitIsLost: the connection, or the server, ends when a batch is
// committed, before that or after it. Sent again, the batch has counted once.
func TestCommitIsLost(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		proxy := s.Proxy(t)
		d := mustOpen(t, proxy.DSN(s.Database(t)), one)
		apply(t, d, put("x", 1))
		seq := uint64(1)
		for _, kill := range []bool{false, true} {
			for _, loss := range []dbtest.Loss{dbtest.Request, dbtest.Answer} {
				t.Run(fmt.Sprintf("kill=%v loss=%v", kill, loss), func(t *testing.T) {
					seq++
					proxy.Break(loss, func() {
						if kill {
							s.Kill()
						}
					})
					if err := d.Apply(t.Context(), touch("x", seq)); err == nil || errors.Is(err, sdk.ErrInvalid) {
						t.Errorf("Apply() = %v while the connection breaks", err)
					}
					if !proxy.Broken() {
						t.Fatal("there was no COMMIT")
					}
					if kill {
						if err := d.Apply(t.Context(), touch("x", seq)); err == nil || errors.Is(err, sdk.ErrInvalid) {
							t.Errorf("Apply() = %v without a server", err)
						}
						s.Start(t)
					}
					again(t, d, touch("x", seq))
					wantHits(t, d, map[string]uint64{"x": seq - 1})
				})
			}
		}
	})
}

// TestServerHangs: each call ends by its deadline, also one that waits for its
// COMMIT, and what was cut off has counted once when it is sent again.
func TestServerHangs(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		proxy := s.Proxy(t)
		dsn := proxy.DSN(s.Database(t))
		d := mustOpen(t, dsn, one)
		apply(t, d, put("x", 1))
		calls := map[string]func(context.Context) error{
			"Apply":     func(ctx context.Context) error { return d.Apply(ctx, touch("x", 2)) },
			"List":      func(ctx context.Context) error { return d.List(ctx, func([]sdk.Entry) error { return nil }) },
			"Nodes":     func(ctx context.Context) error { _, err := d.Nodes(ctx, "x"); return err },
			"Heartbeat": d.Heartbeat,
		}
		s.Pause()
		for name, call := range calls {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if err := call(ctx); err == nil || errors.Is(err, sdk.ErrInvalid) {
				t.Errorf("%s() = %v while the server hangs", name, err)
			}
			cancel()
		}
		s.Resume()
		again(t, d, touch("x", 2))
		wantHits(t, d, map[string]uint64{"x": 1})

		// The host's deadline is far away; that of the driver is not.
		d = mustOpen(t, dsn, sdk.Settings{Node: one.Node, Instance: one.Instance, Options: sdk.Config{"query_timeout": "1s"}})
		proxy.Break(dbtest.Silence, func() {})
		if err := d.Apply(t.Context(), touch("x", 3)); err == nil || errors.Is(err, sdk.ErrInvalid) || !proxy.Broken() {
			t.Errorf("Apply() = %v while its COMMIT is not answered", err)
		}
		again(t, d, touch("x", 3))
		wantHits(t, d, map[string]uint64{"x": 2})
	})
}

// TestTransactionsGiveWay: a transaction that was given up in favour of another
// one is tried again, and no other.
func TestTransactionsGiveWay(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		dsn := s.Database(t)
		d := mustOpen(t, dsn, one)
		for _, tt := range []struct {
			err   error
			tries int
		}{
			{&pgconn.PgError{Code: "40001"}, attempts},
			{&pgconn.PgError{Code: "40P01"}, attempts},
			{&pgconn.PgError{Code: "23505"}, 1},
			{&mysql.MySQLError{Number: 1213}, attempts},
			{&mysql.MySQLError{Number: 1205}, attempts},
			{&mysql.MySQLError{Number: 1062}, 1},
			{sdk.ErrInvalid, 1},
		} {
			var theirs *mysql.MySQLError
			if errors.As(tt.err, &theirs) != (d.tables.dialect == mysqlLike) {
				tt.tries = 1 // the other product's
			}
			n := 0
			err := d.tables.transact(t.Context(), func(*sql.Tx) error { n++; return fmt.Errorf("statement: %w", tt.err) })
			if !errors.Is(err, tt.err) || n != tt.tries {
				t.Errorf("%v: %d tries, %v, want %d tries", tt.err, n, err, tt.tries)
			}
		}
		// Two transactions that want each other's row: one is tried again, and
		// both succeed.
		x, y := d, mustOpen(t, dsn, settings("two", "2", nil))
		locked := map[*Driver]chan struct{}{x: make(chan struct{}), y: make(chan struct{})}
		var work sync.WaitGroup
		for mine, theirs := range map[*Driver]*Driver{x: y, y: x} {
			work.Go(func() {
				var once sync.Once
				err := mine.tables.transact(t.Context(), func(tx *sql.Tx) error {
					if err := mine.tables.fence(t.Context(), tx, mine.node()); err != nil {
						return err
					}
					once.Do(func() { close(locked[mine]) })
					<-locked[theirs]
					return mine.tables.fence(t.Context(), tx, theirs.node())
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
	})
}
