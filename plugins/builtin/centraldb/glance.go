package centraldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/imgcache/imgcache-host/sdk"
)

// Glance's driver centralized_db keeps its records in two tables: node_reference
// has a row for each URL of a node, cached_images one for each image of such a
// node. They are Glance's: this driver changes rows, and no table. There is no
// place in them for versions, for ids other than of 36 characters, for times
// finer than a second in MySQL, and for more hits than 32 bits hold; all that
// stays with the host.
//
// Nodes of Glance have no heartbeat, so they always live. A node of ours is in
// imgcache_nodes too, with the number that it has in node_reference.
const (
	glanceDrop    = `DELETE FROM cached_images WHERE node_reference_id = ?`
	glanceHolders = `SELECT coalesce(n.name, r.node_reference_url), r.node_reference_url, coalesce(n.seen, 0)
		FROM cached_images i JOIN node_reference r ON r.node_reference_id = i.node_reference_id
		LEFT JOIN imgcache_nodes n ON n.glance_id = r.node_reference_id
		WHERE i.image_id = ? AND (n.node_id IS NULL OR n.seen >= NOW - ?) ORDER BY coalesce(n.seen, 0) DESC`
	// where imgcache_nodes could not be made
	glanceOnlyHolders = `SELECT r.node_reference_url, r.node_reference_url, 0
		FROM cached_images i JOIN node_reference r ON r.node_reference_id = i.node_reference_id
		WHERE i.image_id = ?`

	findReference   = `SELECT node_reference_id FROM node_reference WHERE node_reference_url = ? FOR UPDATE`
	addReference    = `INSERT INTO node_reference (node_reference_url) VALUES (?)`
	renameReference = `UPDATE node_reference SET node_reference_url = ? WHERE node_reference_id = ?`
	dropReference   = `DELETE FROM node_reference WHERE node_reference_id = ?`

	sharesReference = `SELECT name FROM imgcache_nodes WHERE glance_id = ? AND node_id <> ? AND seen >= NOW - ?`
	leaveReference  = `UPDATE imgcache_nodes SET glance_id = NULL WHERE glance_id = ? AND node_id <> ?`
	takeReference   = `UPDATE imgcache_nodes SET glance_id = ? WHERE node_id = ?`
)

const glanceRecordsInPostgres = `SELECT image_id, size, hits, (extract(epoch FROM last_accessed) * 1000000)::bigint,
	(extract(epoch FROM last_modified) * 1000000)::bigint, '' FROM cached_images WHERE node_reference_id = ?`

// The checksum is of the image that was there: it goes when that does.
var glanceInPostgres = &layout{
	list: glanceRecordsInPostgres, some: glanceRecordsInPostgres + ` AND image_id = ANY(?)`,
	remove: glanceDrop + ` AND image_id = ANY(?)`, drop: glanceDrop,
	write: `INSERT INTO cached_images AS old (node_reference_id, image_id, size, hits, last_accessed, last_modified)
		SELECT ?::bigint, e.id, e.size, e.hits, timestamp 'epoch' + e.accessed * interval '1 microsecond', timestamp 'epoch' + e.modified * interval '1 microsecond'
		FROM unnest(?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[]) AS e (id, size, hits, accessed, modified)
		ON CONFLICT (image_id, node_reference_id) DO UPDATE SET
			checksum = CASE WHEN old.size = excluded.size AND old.last_modified = excluded.last_modified THEN old.checksum END,
			size = excluded.size, hits = excluded.hits, last_accessed = excluded.last_accessed, last_modified = excluded.last_modified`,
	holders: glanceHolders, maxHits: math.MaxInt32, fits: glanceID,
}

const glanceRecordsInMySQL = `SELECT image_id, size, hits, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', last_accessed),
	TIMESTAMPDIFF(MICROSECOND, '1970-01-01', last_modified), '' FROM cached_images WHERE node_reference_id = ?`

var glanceInMySQL = &layout{
	list: glanceRecordsInMySQL, some: glanceRecordsInMySQL + ` AND image_id IN (LIST)`,
	remove: glanceDrop + ` AND image_id IN (LIST)`, drop: glanceDrop,
	write: `INSERT INTO cached_images (node_reference_id, image_id, size, hits, last_accessed, last_modified) VALUES ROWS
		ON DUPLICATE KEY UPDATE
			checksum = IF(size = VALUES(size) AND last_modified = VALUES(last_modified), checksum, NULL),
			size = VALUES(size), hits = VALUES(hits), last_accessed = VALUES(last_accessed), last_modified = VALUES(last_modified)`,
	row:     `(?, ?, ?, ?, '1970-01-01' + INTERVAL ? DIV 1000000 SECOND, '1970-01-01' + INTERVAL ? DIV 1000000 SECOND)`,
	holders: glanceHolders, maxHits: math.MaxInt32, fits: glanceID,
}

// glanceID reports whether an id has a place of its own in Glance's tables.
// MySQL compares without regard to case there; the ids of Glance have small
// letters.
func glanceID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return len(id) <= 36
}

// maxReference is the length of the longest URL in node_reference.
const maxReference = 255

// refer gives a node its row in Glance's tables, which it may have had before
// under another URL. Where the URL is Glance's own, its records are taken over.
func (t *tables) refer(ctx context.Context, tx *sql.Tx, me node, c config) (int64, error) {
	var id int64
	err := t.row(ctx, tx, findReference, c.url).Scan(&id)
	switch {
	case errors.Is(err, sql.ErrNoRows) && me.rows > 0:
		return me.rows, t.exec(ctx, tx, renameReference, c.url, me.rows)
	case errors.Is(err, sql.ErrNoRows):
		if err := t.exec(ctx, tx, addReference, c.url); err != nil {
			return 0, err
		}
		err = t.row(ctx, tx, findReference, c.url).Scan(&id)
	}
	if err != nil || t.volatile != nil || id == me.rows {
		return id, err
	}
	var other string
	err = t.row(ctx, tx, sharesReference, id, me.id, c.staleAfter.Microseconds()).Scan(&other)
	if err == nil {
		return 0, fmt.Errorf("%w: node %q has the URL %s too; each node needs a URL of its own", sdk.ErrUnavailable, other, c.url)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	if err := t.exec(ctx, tx, leaveReference, id, me.id); err != nil {
		return 0, err
	}
	if me.rows > 0 {
		if err := t.unrefer(ctx, tx, me.rows); err != nil {
			return 0, err
		}
	}
	return id, t.exec(ctx, tx, takeReference, id, me.id)
}

// unrefer removes what Glance's tables have of a node.
func (t *tables) unrefer(ctx context.Context, tx *sql.Tx, rows int64) error {
	if err := t.exec(ctx, tx, glanceDrop, rows); err != nil {
		return err
	}
	return t.exec(ctx, tx, dropReference, rows)
}

// volatileLog knows the place in the record log only until the process ends,
// for a database in which it has no table. A batch whose answer was lost is
// sent again then, and counts twice.
type volatileLog struct {
	mu   sync.Mutex
	last map[string]uint64
}

func newVolatileLog() *volatileLog { return &volatileLog{last: map[string]uint64{}} }

func (l *volatileLog) apply(b sdk.Batch, carryOut func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fresh, err := b.Admit(l.last[b.Source]); !fresh {
		return err
	}
	if err := carryOut(); err != nil {
		return err
	}
	l.last[b.Source] = b.Seq
	return nil
}
