package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// adopted returns the records of Glance's database, and none when there is no
// such file. That it cannot be read is logged and no error: statistics are
// all that is lost.
func (d *Driver) adopted(ctx context.Context, path string) []sdk.Entry {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	entries, skipped, err := readGlance(ctx, path, d.path+"-glance", d.busy)
	if err != nil {
		d.log.Error("the records of Glance cannot be read and are not taken over; images are not affected", "database", path, "error", err)
		return nil
	}
	d.log.Info("the records of Glance are taken over", "database", path, "records", len(entries), "unusable", skipped)
	return entries
}

// readGlance reads Glance's database without touching it: a private copy is
// opened. A journal that a crash left beside it belongs to it, and SQLite
// needs to write to undo what the journal tells of.
func readGlance(ctx context.Context, path, scratch string, busy time.Duration) (entries []sdk.Entry, skipped int, err error) {
	defer func() { err = errors.Join(err, removeDatabase(scratch)) }()
	if err := removeDatabase(scratch); err != nil {
		return nil, 0, fmt.Errorf("remove an earlier copy: %w", err)
	}
	for _, suffix := range companions {
		if err := copyFile(path+suffix, scratch+suffix); err != nil && (suffix == "" || !errors.Is(err, fs.ErrNotExist)) {
			return nil, 0, fmt.Errorf("copy: %w", err)
		}
	}
	db, err := openDatabase(ctx, scratch, false, busy, glanceFormat, nil)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	_, err = db.listAll(ctx, func(batch []sdk.Entry) error {
		for _, e := range batch {
			if (sdk.Batch{Source: "glance", Seq: 1, Ops: []sdk.Op{sdk.Put(e)}}).Validate() != nil || int64(e.Hits) < 0 {
				skipped++
				continue
			}
			entries = append(entries, e)
		}
		return nil
	})
	return entries, skipped, err
}

// companions are the ends of the names of the files that make a database.
var companions = []string{"", "-journal", "-wal"}

func removeDatabase(path string) error {
	var errs []error
	for _, suffix := range append(companions, "-shm") {
		if err := os.Remove(path + suffix); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
