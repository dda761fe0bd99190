package centraldb

import (
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
	lockNode    = `SELECT epoch FROM imgcache_nodes WHERE node_id = ? FOR UPDATE`
	getSeq      = `SELECT seq FROM imgcache_logs WHERE node_id = ? AND source = ?`
	addSeq      = `INSERT INTO imgcache_logs (seq, used, node_id, source) VALUES (?, NOW, ?, ?)`
	setSeq      = `UPDATE imgcache_logs SET seq = ?, used = NOW WHERE node_id = ? AND source = ?`
	dropSources = `DELETE FROM imgcache_logs WHERE node_id = ? AND used < NOW - ?`

	findNode = `SELECT node_id, instance, epoch, NOW - seen, coalesce(glance_id, 0) FROM imgcache_nodes WHERE name = ? FOR UPDATE`
	addNode  = `INSERT INTO imgcache_nodes (name, instance, epoch, url, seen) VALUES (?, ?, 1, ?, NOW)`
	takeNode = `UPDATE imgcache_nodes SET instance = ?, epoch = epoch + 1, url = ?, seen = NOW WHERE node_id = ?`
	dropLogs = `DELETE FROM imgcache_logs WHERE node_id = ?`

	beatNode    = `UPDATE imgcache_nodes SET seen = NOW WHERE node_id = ? AND epoch = ?`
	epochOfNode = `SELECT epoch FROM imgcache_nodes WHERE node_id = ?`
	staleNodes  = `SELECT node_id, coalesce(glance_id, 0) FROM imgcache_nodes WHERE seen < NOW - ? AND node_id <> ? FOR UPDATE`
	dropNode    = `DELETE FROM imgcache_nodes WHERE node_id = ?` // with its records
)

// dialect is what differs between the products.
type dialect struct {
	name  string
	goose goose.Dialect
	files fs.FS // migrations

	own, glance  *layout
	now          string                                  // microseconds, as an integer
	bind         func(string) string                     // turns question marks into what the product wants
	ids          func([]string) []any                    // the arguments for LIST
	records      func(*layout, int64, []sdk.Entry) []any // those of a layout's write
	lock, unlock string                                  // of the schema, for a session
	again        func(error) bool                        // another transaction was in the way
	denied       func(error) bool                        // the user lacks a right
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
	own:  ownInPostgres, glance: glanceInPostgres,
	ids:     func(ids []string) []any { return []any{ids} },
	records: (*layout).inColumns,
	lock:    `SELECT pg_advisory_lock(7308895166418314095)`, // "imgcache" in ASCII, more or less: a number that nobody else has
	unlock:  `SELECT pg_advisory_unlock(7308895166418314095)`,
	again: func(err error) bool {
		var e *pgconn.PgError
		return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01") // serialization failure, deadlock
	},
	denied: func(err error) bool {
		var e *pgconn.PgError
		return errors.As(err, &e) && e.Code == "42501"
	},
}

// mysqlLike has no arrays: a statement has a place for each row.
var mysqlLike = &dialect{
	name: "MySQL", goose: goose.DialectMySQL, files: mustSub("mysql"),
	now:  "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
	bind: func(s string) string { return s },
	own:  ownInMySQL, glance: glanceInMySQL,
	ids: func(ids []string) []any {
		args := make([]any, len(ids))
		for i, id := range ids {
			args[i] = id
		}
		return args
	},
	records: (*layout).inRows,
	lock:    `SELECT GET_LOCK('imgcache_schema', 60)`,
	unlock:  `SELECT RELEASE_LOCK('imgcache_schema')`,
	again: func(err error) bool {
		var e *mysql.MySQLError
		return errors.As(err, &e) && (e.Number == 1213 || e.Number == 1205 || e.Number == 1020) // deadlock, lock wait, changed since it was read
	},
	denied: func(err error) bool {
		var e *mysql.MySQLError
		return errors.As(err, &e) && (e.Number == 1142 || e.Number == 1044) // for a table, a database
	},
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

// text makes a statement one of the product. LIST becomes so many places, and
// ROWS so many rows.
func (d *dialect) text(statement, row string, n int) string {
	statement = strings.ReplaceAll(statement, "NOW", d.now)
	if n > 0 {
		statement = strings.Replace(statement, "LIST", strings.Repeat(", ?", n)[2:], 1)
		statement = strings.Replace(statement, "ROWS", strings.Repeat(", "+row, n)[2:], 1)
	}
	return d.bind(statement)
}
