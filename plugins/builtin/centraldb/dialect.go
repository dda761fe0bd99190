package centraldb

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"

	"github.com/imgcache/imgcache-host/sdk"
)

// The statements that both products understand, with a question mark for each
// value and NOW for the time of the database in microseconds.
const (
	listImages = `SELECT image_id, version, size, hits, last_accessed, last_modified FROM imgcache_images WHERE node_id = ?`

	lockNode    = `SELECT epoch FROM imgcache_nodes WHERE node_id = ? FOR UPDATE`
	getSeq      = `SELECT seq FROM imgcache_logs WHERE node_id = ? AND source = ?`
	addSeq      = `INSERT INTO imgcache_logs (seq, used, node_id, source) VALUES (?, NOW, ?, ?)`
	setSeq      = `UPDATE imgcache_logs SET seq = ?, used = NOW WHERE node_id = ? AND source = ?`
	dropSources = `DELETE FROM imgcache_logs WHERE node_id = ? AND used < NOW - ?`

	findNode   = `SELECT node_id, instance, epoch, NOW - seen FROM imgcache_nodes WHERE name = ? FOR UPDATE`
	addNode    = `INSERT INTO imgcache_nodes (name, instance, epoch, url, seen) VALUES (?, ?, 1, ?, NOW)`
	takeNode   = `UPDATE imgcache_nodes SET instance = ?, epoch = epoch + 1, url = ?, seen = NOW WHERE node_id = ?`
	dropImages = `DELETE FROM imgcache_images WHERE node_id = ?`
	dropLogs   = `DELETE FROM imgcache_logs WHERE node_id = ?`

	beatNode    = `UPDATE imgcache_nodes SET seen = NOW WHERE node_id = ? AND epoch = ?`
	epochOfNode = `SELECT epoch FROM imgcache_nodes WHERE node_id = ?`
	expireNodes = `DELETE FROM imgcache_nodes WHERE seen < NOW - ? AND node_id <> ?`
	holders     = `SELECT n.name, n.url, n.seen FROM imgcache_images i JOIN imgcache_nodes n ON n.node_id = i.node_id
		WHERE i.image_id = ? AND n.seen >= NOW - ? ORDER BY n.seen DESC`
)

// dialect is what differs between the products.
type dialect struct {
	name  string
	goose goose.Dialect
	files fs.FS // migrations

	now          string               // microseconds, as an integer
	bind         func(string) string  // turns question marks into what the product wants
	some         string               // the rows of some images of a node
	remove       string               // the same, to remove them
	ids          func([]string) []any // the arguments of both, after the node
	upsert       func(ctx context.Context, t *tables, tx *sql.Tx, node int64, entries []sdk.Entry) error
	lock, unlock string // of the schema, for a session
	again        func(error) bool
}

//go:embed migrations
var migrations embed.FS

func mustSub(dir string) fs.FS {
	sub, err := fs.Sub(migrations, "migrations/"+dir)
	if err != nil {
		panic(err) // the name is wrong
	}
	return sub
}

// chunk is how many rows one statement reads or writes: some 200 KiB, and
// 4 MiB with the longest versions, which every server takes by default.
const chunk = 1000

// postgres sends columns as arrays, so that there is one statement whatever
// the number of rows.
var postgres = &dialect{
	name: "PostgreSQL", goose: goose.DialectPostgres, files: mustSub("postgres"),
	now:  "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint",
	bind: numbered,
	some: `SELECT image_id, version, size, hits, last_accessed, last_modified FROM imgcache_images
		WHERE node_id = ? AND image_id = ANY(?)`,
	remove: `DELETE FROM imgcache_images WHERE node_id = ? AND image_id = ANY(?)`,
	ids:    func(ids []string) []any { return []any{ids} },
	upsert: upsertPostgres,
	lock:   `SELECT pg_advisory_lock(7308895166418314095)`, // "imgcache" in ASCII, more or less: a number that nobody else has
	unlock: `SELECT pg_advisory_unlock(7308895166418314095)`,
	again: func(err error) bool {
		var e *pgconn.PgError
		return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01") // serialization failure, deadlock
	},
}

const upsertColumns = `INSERT INTO imgcache_images (node_id, image_id, version, size, hits, last_accessed, last_modified) `

const upsertArrays = upsertColumns + `SELECT ?::bigint, * FROM unnest(?::text[], ?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[])
	ON CONFLICT (node_id, image_id) DO UPDATE SET version = excluded.version, size = excluded.size, hits = excluded.hits,
		last_accessed = excluded.last_accessed, last_modified = excluded.last_modified`

func upsertPostgres(ctx context.Context, t *tables, tx *sql.Tx, node int64, entries []sdk.Entry) error {
	var ids, versions []string
	var sizes, hits, accessed, modified []int64
	for _, e := range entries {
		ids, versions = append(ids, e.ID), append(versions, e.Version)
		sizes, hits = append(sizes, e.Size), append(hits, int64(e.Hits))
		accessed, modified = append(accessed, microseconds(e.LastAccessed)), append(modified, microseconds(e.LastModified))
	}
	return t.exec(ctx, tx, upsertArrays, node, ids, versions, sizes, hits, accessed, modified)
}

// mysqlLike has no arrays: a statement has a place for each row.
var mysqlLike = &dialect{
	name: "MySQL", goose: goose.DialectMySQL, files: mustSub("mysql"),
	now:  "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
	bind: func(s string) string { return s },
	some: `SELECT image_id, version, size, hits, last_accessed, last_modified FROM imgcache_images
		WHERE node_id = ? AND image_id IN (LIST)`,
	remove: `DELETE FROM imgcache_images WHERE node_id = ? AND image_id IN (LIST)`,
	ids: func(ids []string) []any {
		args := make([]any, len(ids))
		for i, id := range ids {
			args[i] = id
		}
		return args
	},
	upsert: upsertMySQL,
	lock:   `SELECT GET_LOCK('imgcache_schema', 60)`,
	unlock: `SELECT RELEASE_LOCK('imgcache_schema')`,
	again: func(err error) bool {
		var e *mysql.MySQLError
		return errors.As(err, &e) && (e.Number == 1213 || e.Number == 1205 || e.Number == 1020) // deadlock, lock wait, changed since it was read
	},
}

const upsertValues = upsertColumns + `VALUES ROWS
	ON DUPLICATE KEY UPDATE version = VALUES(version), size = VALUES(size), hits = VALUES(hits),
		last_accessed = VALUES(last_accessed), last_modified = VALUES(last_modified)`

func upsertMySQL(ctx context.Context, t *tables, tx *sql.Tx, node int64, entries []sdk.Entry) error {
	var args []any
	for _, e := range entries {
		args = append(args, node, e.ID, e.Version, e.Size, int64(e.Hits), microseconds(e.LastAccessed), microseconds(e.LastModified))
	}
	rows := strings.Repeat(", (?, ?, ?, ?, ?, ?, ?)", len(entries))[2:]
	return t.exec(ctx, tx, strings.Replace(upsertValues, "ROWS", rows, 1), args...)
}

// numbered turns question marks into $1, $2, ….
func numbered(s string) string {
	var b strings.Builder
	n := 0
	for part := range strings.SplitSeq(s, "?") {
		if n > 0 {
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	return b.String()
}

// text makes a statement one of the product, for so many ids.
func (d *dialect) text(statement string, ids int) string {
	statement = strings.ReplaceAll(statement, "NOW", d.now)
	if ids > 0 {
		statement = strings.Replace(statement, "LIST", strings.Repeat(", ?", ids)[2:], 1)
	}
	return d.bind(statement)
}
