package xattr

import (
	"context"
	"fmt"

	"github.com/imgcache/imgcache-host/sdk"
)

// Apply implements [sdk.Driver]. File by file, each at once, and then the
// number of the batch. Once begun it is carried through, whatever becomes of
// ctx. After a failure, or the end of the process, some files are ahead: the
// same batch passes over them.
func (d *Driver) Apply(ctx context.Context, b sdk.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	if d.form == nil {
		return errNotConfigured
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	release, err := d.dir.exclude(ctx)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	defer func() { _ = release() }() // ends with the process at the latest
	known, err := d.form.sources(b)
	if err != nil {
		return fmt.Errorf("read sequence: %w", err)
	}
	now := batch{sourceKey(b.Source), b.Seq}
	if fresh, err := b.Admit(known.last(now.source)); !fresh {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.applyAll(b.Ops, known, now); err != nil {
		return err
	}
	if err := d.form.keepSources(known.with(now, d.now())); err != nil {
		return fmt.Errorf("write sequence: %w", err)
	}
	return nil
}

// applyAll carries out the operations of one image after the other: each image
// has those that concern it in their order, and its record is written once.
func (d *Driver) applyAll(ops []sdk.Op, known sources, now batch) error {
	var ids []string
	byID := make(map[string][]sdk.Op, len(ops))
	touches := true
	for _, op := range ops {
		id := op.Entry.ID
		if byID[id] == nil {
			ids = append(ids, id)
		}
		byID[id] = append(byID[id], op)
		touches = touches && op.Kind == sdk.OpTouch
	}
	for _, id := range ids {
		// Without a file there can be no record: a put of such an image comes
		// again when the host reconciles.
		err := d.dir.with(id, func(im *image) error { return d.apply(im, byID[id], known, now) })
		if err != nil && !d.spared(id, err) {
			return fmt.Errorf("record of %s: %w", id, err)
		}
	}
	if !touches {
		d.sweep(d.form)
	}
	return nil
}

// maxBatches is how many batches of different sources a record remembers that
// were cut short. Usually there is none beside the last one that touched it.
const maxBatches = 4

// apply carries out the operations of one image.
func (d *Driver) apply(im *image, ops []sdk.Op, known sources, now batch) error {
	old, err := d.form.load(im)
	if err != nil {
		return err
	}
	var batches []batch
	for _, b := range known.unknown(old.batches) {
		if b.source != now.source {
			batches = append(batches, b)
		} else if b.seq >= now.seq {
			// It was cut short after this file, or just before it was done with it.
			return d.form.store(im, old, old)
		}
	}
	next := old
	for _, op := range ops {
		next.entry, next.exists = op.Apply(next.entry, next.exists)
	}
	if !next.exists {
		return d.dir.removeAll(im)
	}
	batches = append(batches, now)
	next.batches = batches[max(0, len(batches)-maxBatches):]
	return d.form.store(im, old, next)
}
