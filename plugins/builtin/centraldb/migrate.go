package centraldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/imgcache/imgcache-host/sdk"
)

// schemaTable is where goose keeps which migrations were made.
const schemaTable = "imgcache_schema"

// migrate brings the schema up to date. Nodes that start together take turns.
// A schema of a later version is left alone, with an error.
func (t *tables) migrate(ctx context.Context) error {
	// Goose looks for its own table before it takes a lock of its own, and in
	// MySQL would find it half made.
	conn, err := t.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	if err := t.turn(ctx, conn, t.dialect.lock); err != nil {
		return err
	}
	err = t.up(ctx)
	if t.turn(ctx, conn, t.dialect.unlock) != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // the lock ends with the connection
	}
	return err
}

// turn runs a statement on the lock, which is one of the server's that ends
// with its session.
func (t *tables) turn(ctx context.Context, conn *sql.Conn, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	var got sql.NullString // 1 of MySQL, nothing or true of PostgreSQL
	if err := conn.QueryRowContext(ctx, statement).Scan(&got); err != nil {
		return fmt.Errorf("lock the schema: %w", err)
	}
	if got.String == "0" {
		return fmt.Errorf("lock the schema: another node has held the lock for %v", lockPatience)
	}
	return nil
}

// lockPatience is how long a node waits for others that migrate.
const lockPatience = time.Minute

func (t *tables) up(ctx context.Context) error {
	p, err := goose.NewProvider(t.dialect.goose, t.db, t.dialect.files, goose.WithTableName(schemaTable),
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(log.New(io.Discard, "", 0)))
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
		return fmt.Errorf("%w: the schema has version %d, from a newer version of this driver; this one supports version %d", sdk.ErrInvalid, have, newest)
	}
	return nil
}
