package centraldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/imgcache/imgcache-host/sdk"
)

// tables are the records of all nodes in a database.
type tables struct {
	dialect  *dialect
	layout   *layout
	db       *sql.DB
	volatile *volatileLog // not nil: there are no tables of ours
}

// connLife is how long a connection is used: after a failover the pool has
// found the new server within it.
const connLife = 5 * time.Minute

func openTables(c config) (*tables, error) {
	t := &tables{dialect: postgres}
	if c.postgres != nil {
		t.db = stdlib.OpenDB(*c.postgres)
	} else {
		connector, err := mysql.NewConnector(c.mysql)
		if err != nil {
			return nil, fmt.Errorf("%w: option dsn: %w", sdk.ErrInvalid, err)
		}
		t.dialect, t.db = mysqlLike, sql.OpenDB(connector)
	}
	t.layout = t.dialect.own
	if c.glance {
		t.layout = t.dialect.glance
	}
	t.db.SetMaxOpenConns(c.connections)
	t.db.SetMaxIdleConns(c.connections)
	t.db.SetConnMaxLifetime(connLife)
	return t, nil
}

func (t *tables) close() error { return t.db.Close() }

func (t *tables) query(ctx context.Context, statement string, args ...any) (*sql.Rows, error) {
	return t.db.QueryContext(ctx, t.dialect.text(statement, "", 0), args...)
}

func (t *tables) exec(ctx context.Context, tx *sql.Tx, statement string, args ...any) error {
	_, err := tx.ExecContext(ctx, t.dialect.text(statement, "", 0), args...)
	return err
}

func (t *tables) row(ctx context.Context, tx *sql.Tx, statement string, args ...any) *sql.Row {
	return tx.QueryRowContext(ctx, t.dialect.text(statement, "", 0), args...)
}

// attempts is how often a transaction is tried that others are in the way of.
const attempts = 5

// transact runs f in a transaction, and again when the database gave it up in
// favour of another one.
func (t *tables) transact(ctx context.Context, f func(*sql.Tx) error) error {
	for n := 1; ; n++ {
		err := t.transactOnce(ctx, f)
		if err == nil || n == attempts || !t.dialect.again(err) {
			return err
		}
		select {
		case <-time.After(rand.N(time.Duration(n) * 20 * time.Millisecond)):
		case <-ctx.Done():
			return err
		}
	}
}

// transactOnce reads what was committed: the rows of a node change under the
// lock of the node alone, and anything stricter would lock gaps between nodes
// in MySQL.
func (t *tables) transactOnce(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := t.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // without effect after Commit
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// sourceLife is how long the number of a source is kept after its last batch,
// in microseconds: a month. A host that was away for longer finds its source
// unknown, and reconciles.
const sourceLife = int64(30 * 24 * time.Hour / time.Microsecond)

// apply carries a batch out: its effect and its number are one transaction,
// which holds the row of the node.
func (t *tables) apply(ctx context.Context, me node, b sdk.Batch) error {
	if t.volatile != nil {
		return t.volatile.apply(b, func() error {
			return t.transact(ctx, func(tx *sql.Tx) error { return t.carryOut(ctx, tx, me.rows, b.Ops) })
		})
	}
	return t.transact(ctx, func(tx *sql.Tx) error { return t.applyIn(ctx, tx, me, b) })
}

func (t *tables) applyIn(ctx context.Context, tx *sql.Tx, me node, b sdk.Batch) error {
	if err := t.fence(ctx, tx, me); err != nil {
		return err
	}
	var last int64
	err := t.row(ctx, tx, getSeq, me.id, b.Source).Scan(&last)
	known := err == nil
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("read sequence: %w", err)
	}
	if fresh, err := b.Admit(uint64(last)); !fresh {
		return err
	}
	if err := t.carryOut(ctx, tx, me.rows, b.Ops); err != nil {
		return err
	}
	if known {
		err = t.exec(ctx, tx, setSeq, int64(b.Seq), me.id, b.Source)
	} else if err = t.exec(ctx, tx, addSeq, int64(b.Seq), me.id, b.Source); err == nil {
		err = t.exec(ctx, tx, dropSources, me.id, sourceLife)
	}
	if err != nil {
		return fmt.Errorf("write sequence: %w", err)
	}
	return nil
}

// carryOut leaves the meaning of the operations to the sdk: it reads the
// records that they are about, and writes what is left of these. Ids for which
// there is no place are left out.
func (t *tables) carryOut(ctx context.Context, tx *sql.Tx, node int64, ops []sdk.Op) error {
	about := map[string]bool{}
	for _, op := range ops {
		if t.layout.fits(op.Entry.ID) {
			about[op.Entry.ID] = true
		}
	}
	ids := slices.Sorted(maps.Keys(about)) // in one order, so that transactions wait for each other in turn
	before, err := t.read(ctx, tx, node, ids)
	if err != nil {
		return fmt.Errorf("read records: %w", err)
	}
	after := maps.Clone(before)
	for _, op := range ops {
		old, exists := after[op.Entry.ID]
		if e, keep := op.Apply(old, exists); keep {
			after[op.Entry.ID] = e
		} else {
			delete(after, op.Entry.ID)
		}
	}
	var write []sdk.Entry
	var remove []string
	for _, id := range ids {
		old, existed := before[id]
		e, exists := after[id]
		switch {
		case existed && !exists:
			remove = append(remove, id)
		case exists && (!existed || e != old):
			write = append(write, e)
		}
	}
	for part := range slices.Chunk(remove, chunk) {
		args := append([]any{node}, t.dialect.ids(part)...)
		if _, err := tx.ExecContext(ctx, t.dialect.text(t.layout.remove, "", len(part)), args...); err != nil {
			return fmt.Errorf("remove records: %w", err)
		}
	}
	for part := range slices.Chunk(write, chunk) {
		statement := t.dialect.text(t.layout.write, t.layout.row, len(part))
		if _, err := tx.ExecContext(ctx, statement, t.dialect.records(t.layout, node, part)...); err != nil {
			return fmt.Errorf("write records: %w", err)
		}
	}
	return nil
}

// read returns the records of some images.
func (t *tables) read(ctx context.Context, tx *sql.Tx, node int64, ids []string) (map[string]sdk.Entry, error) {
	found := map[string]sdk.Entry{}
	for part := range slices.Chunk(ids, chunk) {
		args := append([]any{node}, t.dialect.ids(part)...)
		rows, err := tx.QueryContext(ctx, t.dialect.text(t.layout.some, "", len(part)), args...)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			e, err := scanEntry(rows)
			if err != nil {
				rows.Close()
				return nil, err
			}
			found[e.ID] = e
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// scanEntry reads a record in the order of the columns.
func scanEntry(rows *sql.Rows) (e sdk.Entry, err error) {
	var hits, accessed, modified int64
	err = rows.Scan(&e.ID, &e.Size, &hits, &accessed, &modified, &e.Version)
	e.Hits, e.LastAccessed, e.LastModified = uint64(hits), fromMicroseconds(accessed), fromMicroseconds(modified)
	return e, err
}
