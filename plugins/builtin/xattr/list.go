package xattr

import (
	"context"
	"fmt"
	"slices"

	"github.com/imgcache/imgcache-host/sdk"
)

// listBatch is how many entries go to yield at once; a message of so many is
// some 200 KiB.
const listBatch = 1000

// List implements [sdk.Driver]. It reads all records before it hands out the
// first, so that it sees no batch in part and holds none up while the caller is
// slow; 100 000 take some 20 MiB for that time.
func (d *Driver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	if d.form == nil {
		return errNotConfigured
	}
	entries, news, err := d.read(ctx)
	if err != nil {
		return fmt.Errorf("list records: %w", err)
	}
	if len(news) > 0 {
		if err := d.adopt(ctx, news); err != nil {
			d.notes.once("adopt", "the hits that Glance counted could not be recorded yet", "error", err)
		}
	}
	for part := range slices.Chunk(entries, listBatch) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := yield(part); err != nil {
			return err
		}
	}
	return nil
}

// read returns all entries, and the ids of those that Glance has changed.
func (d *Driver) read(ctx context.Context) (entries []sdk.Entry, news []string, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	ids, err := d.dir.ids()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		var h held
		err := d.dir.with(id, func(im *image) (err error) { h, err = d.form.load(im); return err })
		if err != nil && !d.spared(id, err) {
			return nil, nil, fmt.Errorf("record of %s: %w", id, err)
		}
		if h.exists {
			entries = append(entries, h.entry)
		}
		if h.news {
			news = append(news, id)
		}
	}
	return entries, news, ctx.Err()
}

// adopt writes down what Glance has counted: whatever reads a file later, a
// scrub say, moves its access time.
func (d *Driver) adopt(ctx context.Context, ids []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	release, err := d.dir.exclude(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = release() }()
	adopted := 0
	for _, id := range ids {
		err := d.dir.with(id, d.adoptOne)
		if err != nil && !d.spared(id, err) {
			return fmt.Errorf("record of %s: %w", id, err)
		}
		if err == nil {
			adopted++
		}
	}
	if adopted > 0 {
		d.notes.log.Info("the hits that Glance counted are recorded", "images", adopted)
	}
	return nil
}

func (d *Driver) adoptOne(im *image) error {
	h, err := d.form.load(im)
	if err != nil || !h.news {
		return err
	}
	return d.form.store(im, h, h)
}
