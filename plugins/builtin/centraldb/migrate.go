package centraldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"

	"github.com/pressly/goose/v3"

	"github.com/imgcache/imgcache-host/sdk"
)

// schemaTable is where goose keeps which migrations were made.
const schemaTable = "imgcache_schema"

// migrate brings the schema up to date. Nodes that start together take turns.
// A schema of a later version is left alone, with an error.
func (t *tables) migrate(ctx context.Context) error {
	p, err := goose.NewProvider(t.dialect.goose, t.db, t.dialect.files, goose.WithTableName(schemaTable),
		goose.WithSessionLocker(turns{t.dialect}), goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(log.New(io.Discard, "", 0)))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bring the schema up to date: %w", err)
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the schema: %w", err)
	}
	sources := p.ListSources()
	if newest := sources[len(sources)-1].Version; have > newest {
		return fmt.Errorf("%w: the schema has version %d, made by a later version of this driver; this one knows %d", sdk.ErrInvalid, have, newest)
	}
	return nil
}

// turns is a lock of the database server that ends with its session.
type turns struct{ d *dialect }

// SessionLock implements goose's SessionLocker.
func (l turns) SessionLock(ctx context.Context, conn *sql.Conn) error {
	return l.run(ctx, conn, l.d.lock)
}

// SessionUnlock implements goose's SessionLocker.
func (l turns) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	return l.run(ctx, conn, l.d.unlock)
}

func (l turns) run(ctx context.Context, conn *sql.Conn, statement string) error {
	var got sql.NullString // 1 of MySQL, nothing or true of PostgreSQL
	if err := conn.QueryRowContext(ctx, statement).Scan(&got); err != nil {
		return fmt.Errorf("lock the schema: %w", err)
	}
	if got.String == "0" {
		return errors.New("lock the schema: another node has had it for a minute")
	}
	return nil
}
