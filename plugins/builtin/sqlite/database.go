package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/imgcache/imgcache-host/sdk"
)

// migrations lead from one version of the schema to the next. The version of
// a database, its user_version, is how many it has seen; they are never
// changed, only added to.
var migrations = []string{
	// Times are Unix nanoseconds, 0 when not known. Hits are unsigned, kept
	// in the 64 bits of a signed number.
	`CREATE TABLE images (
		id            TEXT PRIMARY KEY NOT NULL,
		version       TEXT NOT NULL,
		size          INTEGER NOT NULL,
		hits          INTEGER NOT NULL,
		last_accessed INTEGER NOT NULL,
		last_modified INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE TABLE sources (
		source TEXT PRIMARY KEY NOT NULL,
		seq    INTEGER NOT NULL,
		used   INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;`,
}

// applicationID marks a file as ours, so that the driver never writes into
// another program's database: "imgc".
const applicationID = 0x696d6763

// errDamaged is a file that SQLite cannot read as a database.
var errDamaged = errors.New("database is damaged")

// database is an open database. There is one writing connection, because
// SQLite has one writer at a time; listings run beside it.
type database struct {
	writer, readers                        *sql.DB
	get, put, remove, getSeq, putSeq, list *sql.Stmt
}

// maxReaders is how many listings run at once; the host runs one.
const maxReaders = 4

func openDatabase(ctx context.Context, path string, busy time.Duration) (*database, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	// SQLite would make the file, and those beside it take its mode, readable
	// for everybody.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	db := &database{}
	if db.writer, err = connect(path, busy, "immediate", 1); err != nil {
		return nil, err
	}
	if err = db.prepare(ctx, path, busy); err != nil {
		_ = db.close()
		return nil, damage(err)
	}
	return db, nil
}

// connect returns connections with the options that all of them have.
//
// Synchronous NORMAL: a commit is in the log of the database when it returns,
// and so outlives the process, as the contract asks. It may be lost with the
// power, as a whole; the host then finds a gap in the sequence and
// reconciles. FULL would cost a flush of the disk each second for statistics.
func connect(path string, busy time.Duration, lock string, most int) (*sql.DB, error) {
	options := url.Values{
		"_busy_timeout": {strconv.FormatInt(busy.Milliseconds(), 10)},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"NORMAL"},
		"_txlock":       {lock},
	}
	name := url.URL{Scheme: "file", Path: path, RawQuery: options.Encode()}
	db, err := sql.Open("sqlite3", name.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(most)
	return db, nil
}

func (db *database) prepare(ctx context.Context, path string, busy time.Duration) error {
	if err := db.check(ctx); err != nil {
		return err
	}
	if err := db.migrate(ctx); err != nil {
		return err
	}
	var err error
	if db.readers, err = connect(path, busy, "deferred", maxReaders); err != nil {
		return err
	}
	const columns = "id, version, size, hits, last_accessed, last_modified"
	for _, s := range []struct {
		stmt **sql.Stmt
		on   *sql.DB
		text string
	}{
		{&db.get, db.writer, "SELECT " + columns + " FROM images WHERE id = ?"},
		{&db.put, db.writer, "INSERT OR REPLACE INTO images (" + columns + ") VALUES (?, ?, ?, ?, ?, ?)"},
		{&db.remove, db.writer, "DELETE FROM images WHERE id = ?"},
		{&db.getSeq, db.writer, "SELECT seq FROM sources WHERE source = ?"},
		{&db.putSeq, db.writer, "INSERT OR REPLACE INTO sources (source, seq, used) VALUES (?, ?, ?)"},
		{&db.list, db.readers, "SELECT " + columns + " FROM images"},
	} {
		if *s.stmt, err = s.on.PrepareContext(ctx, s.text); err != nil {
			return fmt.Errorf("prepare %q: %w", s.text, err)
		}
	}
	return nil
}

// check reads every page once, without comparing indexes to their tables:
// some 25 ms for 100 000 records.
func (db *database) check(ctx context.Context) error {
	var verdict string
	if err := db.writer.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", errDamaged, verdict)
	}
	return nil
}

// migrate brings a new or older database to this version. Another process may
// do so at the same time.
func (db *database) migrate(ctx context.Context) error {
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin migration: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	var version, application, tables int
	row := tx.QueryRowContext(ctx, `SELECT v.user_version, a.application_id, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_user_version v, pragma_application_id a`)
	if err := row.Scan(&version, &application, &tables); err != nil {
		return fmt.Errorf("read version: %w", err)
	}
	switch {
	case application != applicationID && (application != 0 || tables > 0):
		return fmt.Errorf("%w: the file belongs to another program", sdk.ErrInvalid)
	case version > len(migrations):
		return fmt.Errorf("%w: the file has version %d, this driver knows %d", sdk.ErrInvalid, version, len(migrations))
	case version == len(migrations):
		return nil
	}
	for i, m := range migrations[version:] {
		if _, err := tx.ExecContext(ctx, m); err != nil {
			return fmt.Errorf("migrate to version %d: %w", version+i+1, err)
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d; PRAGMA application_id = %d", len(migrations), applicationID)); err != nil {
		return fmt.Errorf("write version: %w", err)
	}
	return tx.Commit()
}

func (db *database) close() error {
	var errs []error
	for _, c := range []*sql.DB{db.readers, db.writer} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// damage turns what SQLite says of a file that it cannot read into
// errDamaged.
func damage(err error) error {
	var e sqlite3.Error
	if errors.As(err, &e) && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB) {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}

// setAside renames a database and what belongs to it, so that somebody may
// look at it, and returns its new name.
func setAside(path string, now time.Time) (string, error) {
	aside := path + ".damaged-" + now.UTC().Format("20060102T150405.000000000")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return aside, err
		}
	}
	return aside, nil
}
