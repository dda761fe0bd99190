// Package xattr is a metadata driver that keeps each record in an extended
// attribute of the image's own file, where it moves with the file and needs no
// database.
//
//	driver "xattr" "local" {
//	  config {
//	    format = "own" # or "glance": what Glance's driver xattr keeps, and nothing else
//	  }
//	}
//
// The record of an image is user.imgcache.record of its file, written at once;
// user.hits beside it is what Glance counts in. The place in the record log is
// user.imgcache.sources of .imgcache. A file without a record of ours that has
// user.hits is Glance's, and its record is adopted: hits from there, times from
// the file.
//
// There is no transaction over files. Each record has the batch that touched it
// last, and a batch that was cut short is repeated by the host: what it has
// done it does not do again.
package xattr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// The values of the option format.
const (
	formatOwn    = "own"
	formatGlance = "glance"
)

// Manifest describes the driver.
var Manifest = sdk.Manifest{
	Name:    "xattr",
	Version: "1.0.0",
	Kind:    sdk.KindDriver,
	Options: []sdk.Option{
		{Name: "format", Type: sdk.TypeString, Default: formatOwn, Description: `"own", or "glance": only the attributes of Glance's driver xattr, without versions; after a crash hits may count twice`},
	},
}

// Driver implements [sdk.Driver].
type Driver struct {
	notes *notes
	now   func() time.Time
	attrs attributes

	// mu lets a listing see no batch in part. Another process is excluded by
	// a lock on a file.
	mu   sync.RWMutex
	dir  *directory // nil until Configure
	form form
}

// form is how records are kept with files.
type form interface {
	// sources returns the last complete batches, with the place that b's
	// source has for b.
	sources(b sdk.Batch) (sources, error)
	keepSources(s sources) error

	load(im *image) (held, error)
	store(im *image, old, next held) error
	sweep() error // see Driver.sweep
}

var (
	_ sdk.Driver     = (*Driver)(nil)
	_ sdk.Configurer = (*Driver)(nil)
)

// New returns a driver that looks at its directory when it is configured.
func New(log *slog.Logger) *Driver {
	return &Driver{notes: &notes{log: log}, now: time.Now, attrs: fileAttributes{}}
}

// Configure implements [sdk.Configurer]. A file system without user attributes
// is refused.
func (d *Driver) Configure(ctx context.Context, s sdk.Settings) error {
	format := s.Options.Text("format")
	if format != "" && format != formatOwn && format != formatGlance {
		return fmt.Errorf("%w: option format is %q; expected %q or %q", sdk.ErrInvalid, format, formatOwn, formatGlance)
	}
	if !filepath.IsAbs(s.CacheDir) {
		return fmt.Errorf("%w: the cache directory is %q; expected an absolute path", sdk.ErrInvalid, s.CacheDir)
	}
	dir, err := openDirectory(s.CacheDir, d.attrs)
	if err != nil {
		return fmt.Errorf("open cache directory: %w", err)
	}
	var f form = &own{dir, d.notes}
	if format == formatGlance {
		f = &glance{dir: dir}
	}
	if err := d.prepare(ctx, dir, f); err != nil {
		return errors.Join(err, dir.close())
	}
	d.dir, d.form = dir, f
	return nil
}

// prepare finds out whether there can be records, and removes what an earlier
// run has left.
func (d *Driver) prepare(ctx context.Context, dir *directory, f form) error {
	release, err := dir.exclude(ctx)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	defer func() { _ = release() }() // ends with the process at the latest
	if err := dir.mustTakeAttributes(); err != nil {
		return err
	}
	d.sweep(f)
	return nil
}

// sweep removes what no record needs any more. What stays is in nobody's way.
func (d *Driver) sweep(f form) {
	if err := f.sweep(); err != nil {
		d.notes.once("sweep", "could not remove unused versions from .imgcache/xattr", "error", err)
	}
}

// Close closes what is open. A driver that is killed instead loses nothing.
func (d *Driver) Close() error {
	if d.dir == nil {
		return nil
	}
	return d.dir.close()
}

var errNotConfigured = fmt.Errorf("%w: the driver was not configured", sdk.ErrUnavailable)

// notes logs each thing once, however often it happens.
type notes struct {
	log  *slog.Logger
	mu   sync.Mutex
	said map[string]bool
}

func (n *notes) once(about, text string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.said[about] {
		return
	}
	if n.said == nil {
		n.said = map[string]bool{}
	}
	n.said[about] = true
	n.log.Warn(text, args...)
}

// spared reports whether an error is about one file that cannot have a record,
// and says so once for all of them. Its image is served like any other; what
// is counted of it is known until the next start of the host.
func (d *Driver) spared(id string, err error) bool {
	switch {
	case denied(err):
		d.notes.once("denied", "no records are kept for images whose files this process may not write", "first", id, "error", err)
	case errors.Is(err, syscall.EUCLEAN), errors.Is(err, syscall.EBADMSG): // by the checksums of ext4 and XFS
		d.notes.once("broken", "no records are kept for images whose attributes are damaged in the file system", "first", id, "error", err)
	case errors.Is(err, errNoRoom):
		d.notes.once("room", "no records are kept for images whose files have no room for attributes", "first", id, "error", err)
	default:
		return false
	}
	return true
}
