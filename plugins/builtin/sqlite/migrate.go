package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/imgcache/imgcache-host/sdk"
)

// migrate brings a new or older database to this version, which is how many
// of the migrations of its format it has seen; they are never changed, only
// added to. Another process may do so at the same time. A database that is
// current is only read, so that one may start while another writes.
func (db *database) migrate(ctx context.Context, first func(context.Context) []sdk.Entry) error {
	version, err := db.version(ctx, db.writer)
	if err != nil {
		return err
	}
	if _, err := db.writer.ExecContext(ctx, "PRAGMA journal_mode = "+db.format.journal); err != nil {
		return fmt.Errorf("set the mode of the journal: %w", err)
	}
	if db.format.migrations == nil {
		_, err := db.writer.ExecContext(ctx, db.format.session)
		return err
	}
	if version == len(db.format.migrations) {
		return nil
	}
	var entries []sdk.Entry
	if version == 0 && first != nil {
		entries = first(ctx)
	}
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin migration: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // without effect after Commit
	before := version
	if version, err = db.version(ctx, tx); err != nil {
		return err
	}
	for i, m := range db.format.migrations[version:] {
		if _, err := tx.ExecContext(ctx, m); err != nil {
			return fmt.Errorf("migrate to version %d: %w", version+i+1, err)
		}
	}
	if version == before { // else another process was faster, and has put them
		for _, e := range entries {
			if _, err := tx.ExecContext(ctx, db.format.put, parameters(e)...); err != nil {
				return fmt.Errorf("put record: %w", err)
			}
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d; PRAGMA application_id = %d", len(db.format.migrations), applicationID)); err != nil {
		return fmt.Errorf("write version: %w", err)
	}
	return tx.Commit()
}

// querier is a connection or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// version returns that of a database, and an error wrapping sdk.ErrInvalid
// when its file is not of this format.
func (db *database) version(ctx context.Context, q querier) (int, error) {
	var version, application, tables int
	row := q.QueryRowContext(ctx, `SELECT v.user_version, a.application_id, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_user_version v, pragma_application_id a`)
	if err := row.Scan(&version, &application, &tables); err != nil {
		return 0, fmt.Errorf("read version: %w", err)
	}
	own, latest := db.format.migrations != nil, len(db.format.migrations)
	switch {
	case own && application != applicationID && (application != 0 || tables > 0):
		return 0, fmt.Errorf("%w: %s belongs to another program: set path to another file, or move this one away", errForeign, db.path)
	case !own && application == applicationID:
		return 0, fmt.Errorf("%w: %s is not Glance's, but a database of this driver: set path to Glance's", sdk.ErrInvalid, db.path)
	case own && version > latest:
		return 0, fmt.Errorf("%w: %s has version %d; this driver supports up to version %d: use the newer driver, or move the file away", sdk.ErrInvalid, db.path, version, latest)
	}
	return version, nil
}
