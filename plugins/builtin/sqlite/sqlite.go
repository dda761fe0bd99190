// Package sqlite is the default metadata driver: records in one SQLite file
// of its own, beside the images.
//
//	driver "sqlite" "local" {
//	  config {
//	    path         = "/var/lib/imgcache/records.db" # default: records.db in the cache directory's .imgcache
//	    busy_timeout = "5s"                           # how long to wait for another process that uses the file
//	  }
//	}
//
// Two hosts may share the file on one machine. It must not lie on a network
// file system, where the write-ahead log of SQLite does not work.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Manifest describes the driver.
var Manifest = sdk.Manifest{
	Name:    "sqlite",
	Version: "1.0.0",
	Kind:    sdk.KindDriver,
	Options: []sdk.Option{
		{Name: "path", Type: sdk.TypeString, Description: "absolute path of the database; default: records.db in .imgcache of the cache directory"},
		{Name: "busy_timeout", Type: sdk.TypeDuration, Default: "5s", Description: "how long to wait for another process that uses the database"},
	},
}

// Driver implements [sdk.Driver].
type Driver struct {
	log *slog.Logger
	now func() time.Time
	db  *database // nil until Configure
}

var (
	_ sdk.Driver     = (*Driver)(nil)
	_ sdk.Configurer = (*Driver)(nil)
)

// New returns a driver that opens its database when it is configured.
func New(log *slog.Logger) *Driver { return &Driver{log: log, now: time.Now} }

// Configure implements [sdk.Configurer]. A damaged database is set aside and
// a new one begun: the files are the truth, so statistics are all that is
// lost.
func (d *Driver) Configure(ctx context.Context, s sdk.Settings) error {
	path := s.Options.Text("path")
	if path == "" {
		path = filepath.Join(s.CacheDir, ".imgcache", "records.db")
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%w: option path is %q, want an absolute path", sdk.ErrInvalid, path)
	}
	busy := s.Options.Duration("busy_timeout")
	if s.Options.Text("busy_timeout") == "" {
		busy = 5 * time.Second
	}
	db, err := openDatabase(ctx, path, busy)
	if errors.Is(err, errDamaged) {
		aside, rename := setAside(path, d.now())
		d.log.Error("the records are damaged and begin anew; images are not affected", "database", path, "kept as", aside, "error", err)
		if rename != nil {
			return fmt.Errorf("set the damaged database aside: %w", rename)
		}
		db, err = openDatabase(ctx, path, busy)
	}
	if err != nil {
		return fmt.Errorf("open database %s: %w", path, err)
	}
	d.db = db
	return nil
}

// Close closes the database. A driver that is killed instead loses nothing.
func (d *Driver) Close() error {
	if d.db == nil {
		return nil
	}
	return d.db.close()
}

var errNotConfigured = fmt.Errorf("%w: the driver was not configured", sdk.ErrUnavailable)

// listBatch is how many entries go to yield at once; a message of so many is
// some 200 KiB.
const listBatch = 1000

// List implements [sdk.Driver]. The one statement that it runs sees one state
// of the database, and holds up no batch.
func (d *Driver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	if d.db == nil {
		return errNotConfigured
	}
	rows, err := d.db.list.QueryContext(ctx)
	if err != nil {
		return fmt.Errorf("list records: %w", err)
	}
	defer rows.Close()
	batch := make([]sdk.Entry, 0, listBatch)
	for rows.Next() {
		e, err := scan(rows.Scan)
		if err != nil {
			return fmt.Errorf("read record: %w", err)
		}
		if batch = append(batch, e); len(batch) == listBatch {
			if err := yield(batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("list records: %w", err)
	}
	if len(batch) > 0 {
		return yield(batch)
	}
	return nil
}

// Apply implements [sdk.Driver]: the effect of a batch and its number are one
// transaction.
func (d *Driver) Apply(ctx context.Context, b sdk.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	if d.db == nil {
		return errNotConfigured
	}
	tx, err := d.db.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin batch: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // without effect after Commit
	last, err := d.lastSeq(ctx, tx, b.Source)
	if err != nil {
		return fmt.Errorf("read sequence: %w", err)
	}
	if fresh, err := b.Admit(last); !fresh {
		return err
	}
	for i, op := range b.Ops {
		if err := d.apply(ctx, tx, op); err != nil {
			return fmt.Errorf("operation %d, %s of %s: %w", i, op.Kind, op.Entry.ID, err)
		}
	}
	if err := d.keepSeq(ctx, tx, b); err != nil {
		return fmt.Errorf("write sequence: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit batch: %w", err)
	}
	return nil
}

// apply leaves the meaning of the operation to the sdk.
func (d *Driver) apply(ctx context.Context, tx *sql.Tx, op sdk.Op) error {
	old, err := scan(tx.StmtContext(ctx, d.db.get).QueryRowContext(ctx, op.Entry.ID).Scan)
	exists := err == nil
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	e, keep := op.Apply(old, exists)
	switch {
	case keep:
		_, err = tx.StmtContext(ctx, d.db.put).ExecContext(ctx,
			e.ID, e.Version, e.Size, int64(e.Hits), nanos(e.LastAccessed), nanos(e.LastModified))
	case exists:
		_, err = tx.StmtContext(ctx, d.db.remove).ExecContext(ctx, op.Entry.ID)
	default:
		err = nil
	}
	return err
}

// lastSeq returns the number of the last batch of a source, 0 when it is
// unknown.
func (d *Driver) lastSeq(ctx context.Context, tx *sql.Tx, source string) (uint64, error) {
	var seq int64
	err := tx.StmtContext(ctx, d.db.getSeq).QueryRowContext(ctx, source).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return uint64(seq), err
}

// sourceLife is how long the number of a source is kept after its last batch.
// A host goes on with its source for years, and leaves one behind only when
// it has to reconcile. One that was away for longer finds its source unknown,
// reconciles, and loses no more than the hits that it had not sent.
const sourceLife = 30 * 24 * time.Hour

func (d *Driver) keepSeq(ctx context.Context, tx *sql.Tx, b sdk.Batch) error {
	now := d.now()
	if _, err := tx.StmtContext(ctx, d.db.putSeq).ExecContext(ctx, b.Source, int64(b.Seq), now.UnixNano()); err != nil {
		return err
	}
	if b.Seq > 1 {
		return nil
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM sources WHERE used < ?", now.Add(-sourceLife).UnixNano())
	return err
}

// scan reads a record in the order of the columns.
func scan(scan func(...any) error) (e sdk.Entry, err error) {
	var hits, accessed, modified int64
	err = scan(&e.ID, &e.Version, &e.Size, &hits, &accessed, &modified)
	e.Hits, e.LastAccessed, e.LastModified = uint64(hits), fromNanos(accessed), fromNanos(modified)
	return e, err
}

// nanos returns Unix nanoseconds, and 0 for a time that is not known.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
