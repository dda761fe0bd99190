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

// applicationID marks a file as ours, so that the driver never writes into
// another program's database: "imgc".
const applicationID = 0x696d6763

// errDamaged is a file that SQLite cannot read as a database.
var errDamaged = errors.New("database is damaged")

// errForeign is what is no database of this driver, and not a damaged one either.
// It wraps sdk.ErrInvalid: trying again does not help.
var errForeign = fmt.Errorf("%w: not a database of this driver", sdk.ErrInvalid)

// checkFiles refuses what is no file where the database and its companions are.
// The database itself may be a link, unless nobody has made one on purpose.
func checkFiles(path string, links bool) error {
	if links {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		} else {
			return nil // it is made, or opening it tells what is wrong
		}
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Lstat(path + suffix)
		if err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("%w: %s is a %s; expected a file, or none: move it away", errForeign, path+suffix, kindOf(info.Mode()))
		}
	}
	return nil
}

// kindOf names what is not a regular file.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "FIFO"
	}
	return "special file"
}

// database is an open database. There is one writing connection, because
// SQLite has one writer at a time; listings run beside it.
type database struct {
	path            string
	file            fs.FileInfo // what path was when it was opened
	busy            time.Duration
	format          *format
	writer, readers *sql.DB

	put, touch, remove, getSeq, putSeq *sql.Stmt
}

// maxReaders is how many listings run at once; the host runs one.
const maxReaders = 4

// openDatabase opens the database and makes it if need be. What first returns
// is put into one that is new, in the transaction that makes it. Where the place
// is ours no link is followed.
func openDatabase(ctx context.Context, path string, ours bool, busy time.Duration, f *format, first func(context.Context) []sdk.Entry) (*database, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	if err := checkFiles(path, !ours); err != nil {
		return nil, err
	}
	// SQLite would make the file, and those beside it take its mode, readable
	// for everybody.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	var db *database
	err = patiently(ctx, busy, func() error {
		db = &database{path: path, file: info, busy: busy, format: f}
		err := db.prepare(ctx, first)
		if err != nil {
			_ = db.close()
		}
		return err
	})
	if err != nil {
		return nil, damage(err)
	}
	return db, nil
}

// replaced reports whether the file that is open has lost its name.
func (db *database) replaced() bool {
	now, err := os.Stat(db.path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, db.file)
}

// busyStep is how long SQLite itself waits for another process. Between such
// steps the context is looked at, which it cannot do.
const busyStep = 100 * time.Millisecond

// patiently repeats what fails because another process uses the database, for
// as long as busy.
func patiently(ctx context.Context, busy time.Duration, try func() error) error {
	for start := time.Now(); ; {
		err := try()
		if code(err) != sqlite3.ErrBusy || time.Since(start) >= busy {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// code returns that of an error of SQLite, 0 of others.
func code(err error) sqlite3.ErrNo {
	var e sqlite3.Error
	errors.As(err, &e)
	return e.Code
}

// connect returns connections with the options that all of them have.
//
// Synchronous NORMAL: a commit is in the log of the database when it returns,
// and so outlives the process, as the contract asks. It may be lost with the
// power, as a whole; the host then finds a gap in the sequence and
// reconciles. FULL would cost a flush of the disk each second for statistics.
func (db *database) connect(lock string, most int) (*sql.DB, error) {
	options := url.Values{
		"_busy_timeout": {strconv.FormatInt(min(db.busy, busyStep).Milliseconds(), 10)},
		"_synchronous":  {"NORMAL"},
		"_cache_size":   {"-16384"}, // KiB: most of the pages of 100 000 records
		"_txlock":       {lock},
	}
	name := url.URL{Scheme: "file", Path: db.path, RawQuery: options.Encode()}
	pool, err := sql.Open("sqlite3", name.String())
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(most)
	pool.SetMaxIdleConns(most) // a connection is kept with what its session has made
	return pool, nil
}

func (db *database) prepare(ctx context.Context, first func(context.Context) []sdk.Entry) (err error) {
	if db.writer, err = db.connect("immediate", 1); err != nil {
		return err
	}
	if err := db.check(ctx); err != nil {
		return err
	}
	if err := db.migrate(ctx, first); err != nil {
		return err
	}
	if db.readers, err = db.connect("deferred", maxReaders); err != nil {
		return err
	}
	for _, s := range []struct {
		stmt **sql.Stmt
		on   *sql.DB
		text string
	}{
		{&db.put, db.writer, db.format.put},
		{&db.touch, db.writer, db.format.touch},
		{&db.remove, db.writer, db.format.remove},
		{&db.getSeq, db.writer, "SELECT seq FROM sources WHERE source = ?"},
		{&db.putSeq, db.writer, "INSERT OR REPLACE INTO sources (source, seq, used) VALUES (?, ?, ?)"},
	} {
		if *s.stmt, err = s.on.PrepareContext(ctx, s.text); err != nil {
			return fmt.Errorf("prepare %q: %w", s.text, err)
		}
	}
	return nil
}

// check reads every page once, without comparing indexes to their tables:
// some 20 ms for 100 000 records.
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
	if c := code(err); c == sqlite3.ErrCorrupt || c == sqlite3.ErrNotADB {
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
