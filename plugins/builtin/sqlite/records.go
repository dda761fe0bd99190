package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// listBatch is how many entries go to yield at once; a message of so many is
// some 200 KiB.
const listBatch = 1000

// listAll gives all records to yield, whose error it returns as stopped.
//
// Rows are read below package sql, whose Scan would take a quarter of the time
// of a listing to find out again and again what type a column has.
func (db *database) listAll(ctx context.Context, yield func([]sdk.Entry) error) (stopped, err error) {
	conn, err := db.readers.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	err = conn.Raw(func(c any) error {
		var rows driver.Rows
		err := patiently(ctx, db.busy, func() (err error) {
			rows, err = c.(driver.QueryerContext).QueryContext(ctx, db.format.list, nil)
			return err
		})
		if err != nil {
			return err
		}
		defer rows.Close()
		stopped, err = yieldRows(rows, yield)
		return err
	})
	return stopped, err
}

func yieldRows(rows driver.Rows, yield func([]sdk.Entry) error) (stopped, err error) {
	batch := make([]sdk.Entry, 0, listBatch)
	row := make([]driver.Value, 6)
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF) && len(batch) == 0:
			return nil, nil
		case errors.Is(err, io.EOF):
			return yield(batch), nil
		case err != nil:
			return nil, err
		}
		e, err := entryOf(row)
		if err != nil {
			return nil, err
		}
		if batch = append(batch, e); len(batch) == listBatch {
			if err := yield(batch); err != nil {
				return err, nil
			}
			batch = batch[:0]
		}
	}
}

// apply carries out a batch and keeps its number, in one transaction.
func (db *database) apply(ctx context.Context, b sdk.Batch, now time.Time) error {
	return patiently(ctx, db.busy, func() error {
		// Each statement takes microseconds and is not worth the goroutine
		// with which a context could stop it.
		still := context.WithoutCancel(ctx)
		tx, err := db.writer.BeginTx(still, nil)
		if err != nil {
			return fmt.Errorf("begin batch: %w", err)
		}
		defer func() { _ = tx.Rollback() }() // without effect after Commit
		last, err := db.lastSeq(still, tx, b.Source)
		if err != nil {
			return fmt.Errorf("read sequence: %w", err)
		}
		if fresh, err := b.Admit(last); !fresh {
			return err
		}
		if err := db.applyOps(ctx, tx, b.Ops); err != nil {
			return err
		}
		if err := db.keepSeq(still, tx, b, now); err != nil {
			return fmt.Errorf("write sequence: %w", err)
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("commit batch: %w", err)
		}
		return nil
	})
}

func (db *database) applyOps(ctx context.Context, tx *sql.Tx, ops []sdk.Op) error {
	still := context.WithoutCancel(ctx)
	put, touch, remove := tx.StmtContext(still, db.put), tx.StmtContext(still, db.touch), tx.StmtContext(still, db.remove)
	for i, op := range ops {
		err := ctx.Err()
		switch e := op.Entry; {
		case err != nil:
		case op.Kind == sdk.OpPut:
			_, err = put.ExecContext(still, parameters(e)...)
		case op.Kind == sdk.OpTouch:
			_, err = touch.ExecContext(still, e.ID, int64(e.Hits), nanos(e.LastAccessed))
		case op.Kind == sdk.OpDelete:
			_, err = remove.ExecContext(still, e.ID)
		}
		if err != nil {
			return fmt.Errorf("operation %d, %s of %s: %w", i, op.Kind, op.Entry.ID, err)
		}
	}
	return nil
}

// lastSeq returns the number of the last batch of a source, 0 when it is
// unknown.
func (db *database) lastSeq(ctx context.Context, tx *sql.Tx, source string) (uint64, error) {
	var seq int64
	err := tx.StmtContext(ctx, db.getSeq).QueryRowContext(ctx, source).Scan(&seq)
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

func (db *database) keepSeq(ctx context.Context, tx *sql.Tx, b sdk.Batch, now time.Time) error {
	if _, err := tx.StmtContext(ctx, db.putSeq).ExecContext(ctx, b.Source, int64(b.Seq), now.UnixNano()); err != nil {
		return err
	}
	if b.Seq > 1 {
		return nil
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM sources WHERE used < ?", now.Add(-sourceLife).UnixNano())
	return err
}

// parameters are those of a put.
func parameters(e sdk.Entry) []any {
	return []any{e.ID, e.Version, e.Size, int64(e.Hits), nanos(e.LastAccessed), nanos(e.LastModified)}
}

// entryOf returns the record in a row.
func entryOf(row []driver.Value) (sdk.Entry, error) {
	id, ok1 := row[0].(string)
	version, ok2 := row[1].(string)
	size, ok3 := row[2].(int64)
	hits, ok4 := row[3].(int64)
	accessed, ok5 := row[4].(int64)
	modified, ok6 := row[5].(int64)
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) {
		return sdk.Entry{}, fmt.Errorf("%w: a record has the values %v", errDamaged, row)
	}
	return sdk.Entry{
		ID: id, Version: version, Size: size, Hits: uint64(hits),
		LastAccessed: fromNanos(accessed), LastModified: fromNanos(modified),
	}, nil
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
