// Package sqlite is the default metadata driver: records in one SQLite file,
// beside the images.
//
//	driver "sqlite" "local" {
//	  config {
//	    path         = "/var/lib/imgcache/records.db" # default: records.db in the cache directory's .imgcache
//	    busy_timeout = "5s"                           # how long to wait for another process that uses the file
//	    glance_db    = "cache.db"                     # the database of Glance's driver, whose records are taken over
//	    format       = "own"                          # "glance" to work on that database instead
//	  }
//	}
//
// Two hosts may share the file on one machine. It must not lie on a network
// file system, where the write-ahead log of SQLite does not work.
//
// In the format "glance" records are rows of Glance's own table, so that
// Glance can go on with them. It has no place for the version of an image, nor
// for the number of a batch: that is remembered while the driver runs, and a
// batch whose acknowledgement was lost when it ended may count twice.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Manifest describes the driver.
var Manifest = sdk.Manifest{
	Name:    "sqlite",
	Version: "1.0.0",
	Kind:    sdk.KindDriver,
	Options: []sdk.Option{
		{Name: "path", Type: sdk.TypeString, Access: sdk.AccessWrite, Description: "absolute path of the database; default: records.db in .imgcache of the cache directory, or glance_db with the format glance"},
		{Name: "busy_timeout", Type: sdk.TypeDuration, Default: "5s", Description: "how long to wait for another process that uses the database"},
		{Name: "glance_db", Type: sdk.TypeString, Default: "cache.db", Access: sdk.AccessWrite, Description: "database of Glance's driver sqlite, in the cache directory unless absolute; a new database takes over its records"},
		{Name: "format", Type: sdk.TypeString, Default: "own", Description: "own, or glance to keep records in Glance's own table"},
	},
}

// Driver implements [sdk.Driver].
type Driver struct {
	log    *slog.Logger
	now    func() time.Time
	path   string // "" until Configure
	ours   bool   // nobody else has business at path: what is there and is no database of ours is in the way
	busy   time.Duration
	format *format

	mu sync.Mutex
	db *database // nil: to be opened
}

var (
	_ sdk.Driver     = (*Driver)(nil)
	_ sdk.Configurer = (*Driver)(nil)
)

// New returns a driver that opens its database when it is configured.
func New(log *slog.Logger) *Driver { return &Driver{log: log, now: time.Now} }

// Configure implements [sdk.Configurer]. A damaged database is set aside and
// a new one begun: the files are the truth, so statistics are all that is
// lost. One that is made for the first time begins with Glance's records.
func (d *Driver) Configure(ctx context.Context, s sdk.Settings) error {
	glance := s.Options.Text("glance_db")
	if glance == "" {
		glance = "cache.db"
	}
	if !filepath.IsAbs(glance) {
		glance = filepath.Join(s.CacheDir, glance)
	}
	path := s.Options.Text("path")
	var first func(context.Context) []sdk.Entry
	switch name := s.Options.Text("format"); {
	case name == "glance":
		d.format = glanceFormat
		if path == "" {
			path = glance
		}
	case name == "own" || name == "":
		d.format = ownFormat
		if d.ours = path == ""; d.ours {
			path = filepath.Join(s.CacheDir, ".imgcache", "records.db")
		}
		first = func(ctx context.Context) []sdk.Entry { return d.adopted(ctx, glance) }
	default:
		return fmt.Errorf("%w: option format is %q; expected own or glance", sdk.ErrInvalid, name)
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%w: option path is %q; expected an absolute path", sdk.ErrInvalid, path)
	}
	d.path, d.busy = path, s.Options.Duration("busy_timeout")
	if s.Options.Text("busy_timeout") == "" {
		d.busy = 5 * time.Second
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.answer(d.open(ctx, first))
}

// Close closes the database. A driver that is killed instead loses nothing.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closeLocked()
}

func (d *Driver) closeLocked() error {
	if d.db == nil {
		return nil
	}
	db := d.db
	d.db = nil
	return db.close()
}

// List implements [sdk.Driver]. The one statement that it runs sees one state
// of the database, and holds up no batch.
func (d *Driver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	var stopped error
	err := d.do(ctx, func(db *database) error {
		var err error
		stopped, err = db.listAll(ctx, yield)
		return err
	})
	if stopped != nil {
		return stopped
	}
	if err != nil {
		return d.answer(fmt.Errorf("list records: %w", err))
	}
	return nil
}

// Apply implements [sdk.Driver]: the effect of a batch and its number are one
// transaction.
func (d *Driver) Apply(ctx context.Context, b sdk.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	return d.answer(d.do(ctx, func(db *database) error { return db.apply(ctx, b, d.now()) }))
}

// do calls f with the database, which is opened anew when its file has been
// deleted or replaced: the records are empty then, the next batch is a gap,
// and the host brings them again. So it is after a database was found to be
// damaged.
func (d *Driver) do(ctx context.Context, f func(*database) error) error {
	d.mu.Lock()
	db, err := d.current(ctx)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	err = damage(f(db))
	if errors.Is(err, errDamaged) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.db == db && !db.replaced() {
			err = d.setAside(err)
		}
	}
	return err
}

func (d *Driver) current(ctx context.Context) (*database, error) {
	if d.path == "" {
		return nil, errors.New("the driver was not configured")
	}
	if d.db != nil && d.db.replaced() {
		d.log.Error("the database was deleted or replaced; the host sends the records again", "database", d.path)
		if err := d.closeLocked(); err != nil {
			d.log.Warn("close the former database", "error", err)
		}
	}
	if d.db == nil {
		if err := d.open(ctx, nil); err != nil {
			return nil, err
		}
	}
	return d.db, nil
}

// open opens the database. What first returns is put into one that is new. A file
// of another program is set aside where it is in the way, and refused where
// somebody has named it.
func (d *Driver) open(ctx context.Context, first func(context.Context) []sdk.Entry) error {
	db, err := openDatabase(ctx, d.path, d.ours, d.busy, d.format, first)
	if errors.Is(err, errForeign) && d.ours {
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	if errors.Is(err, errDamaged) && d.format == ownFormat {
		if err := d.setAside(err); !errors.Is(err, errDamaged) {
			return err
		}
		db, err = openDatabase(ctx, d.path, d.ours, d.busy, d.format, nil)
	}
	d.db = db
	return err
}

// setAside closes a damaged database and puts it where it is in nobody's way,
// unless it is not ours to rename. It returns why, or what went wrong.
func (d *Driver) setAside(why error) error {
	if err := d.closeLocked(); err != nil {
		d.log.Debug("close the damaged database", "error", err)
	}
	if d.format != ownFormat {
		return why
	}
	aside, err := setAside(d.path, d.now())
	if err != nil {
		return fmt.Errorf("move the damaged database aside: %w", err)
	}
	d.log.Error("the records are damaged and start again from zero; images are not affected", "database", d.path, "kept as", aside, "error", why)
	return why
}

// answer gives an error of the store its meaning for the host.
func (d *Driver) answer(err error) error {
	if err == nil || errors.Is(err, sdk.ErrInvalid) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: database %s: %w", sdk.ErrUnavailable, d.path, err)
}
