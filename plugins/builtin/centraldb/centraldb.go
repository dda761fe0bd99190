// Package centraldb is the metadata driver for several nodes: records in one
// PostgreSQL, or in one MySQL or MariaDB, which all nodes share.
//
//	driver "centraldb" "shared" {
//	  config {
//	    dsn = env("IMGCACHE_DSN") # postgres://imgcache:secret@db.example/imgcache, or mysql://…
//	  }
//	}
//
// Each node has rows of its own, so nodes never wait for each other. A node is
// its name together with the instance of its cache directory: the same
// instance takes its rows over at once, with a higher epoch, and whoever
// writes with an earlier epoch is refused; another instance of that name waits
// until the node is not heard of any more.
//
// With glance_tables = true the records are in the tables of Glance's driver
// centralized_db, so that the nodes of Glance and these see what each other
// hold.
package centraldb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// Manifest describes the driver.
var Manifest = sdk.Manifest{
	Name:         "centraldb",
	Version:      "1.0.0",
	Kind:         sdk.KindDriver,
	Capabilities: []sdk.Capability{sdk.CapNodes, sdk.CapHeartbeat},
	Options:      options,
}

// Driver implements [sdk.Driver], [sdk.NodeLister] and [sdk.Heartbeater].
type Driver struct {
	log    *slog.Logger
	tables *tables // nil until Configure
	config config

	mu sync.Mutex
	me node
}

var (
	_ sdk.Driver      = (*Driver)(nil)
	_ sdk.NodeLister  = (*Driver)(nil)
	_ sdk.Heartbeater = (*Driver)(nil)
	_ sdk.Configurer  = (*Driver)(nil)
	_ sdk.Noter       = (*Driver)(nil)
)

// atLeastOnce says what follows when the tables could not be created.
const atLeastOnce = "the database user may not create tables beside Glance's: hits whose answer was lost may count twice, and nodes do not know which nodes are alive"

// New returns a driver that connects when it is configured.
func New(log *slog.Logger) *Driver { return &Driver{log: log} }

// Configure connects, brings the schema up to date, and takes the place of
// this node. That the database cannot be reached, or that another instance has
// the node's name and lives, wraps [sdk.ErrUnavailable]: both may pass.
func (d *Driver) Configure(ctx context.Context, s sdk.Settings) error {
	c, err := parseConfig(s)
	if err != nil {
		return err
	}
	t, err := openTables(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.queryTimeout)
	defer cancel()
	err = t.migrate(ctx)
	if c.glance && t.dialect.denied(err) {
		t.volatile = newVolatileLog()
		d.log.Warn(atLeastOnce, "error", err)
		err = nil
	}
	if err == nil {
		d.me, err = t.register(ctx, c)
	}
	if err != nil {
		return errors.Join(err, t.close())
	}
	d.tables, d.config = t, c
	d.log.Info("this node is registered", "node", c.name, "epoch", d.me.epoch, "database", t.dialect.name)
	return nil
}

// Notes implements [sdk.Noter].
func (d *Driver) Notes() []string {
	if d.tables != nil && d.tables.volatile != nil {
		return []string{atLeastOnce}
	}
	return nil
}

// Close closes the connections. A driver that is killed instead loses nothing.
func (d *Driver) Close() error {
	if d.tables == nil {
		return nil
	}
	return d.tables.close()
}

var errNotConfigured = fmt.Errorf("%w: the driver was not configured", sdk.ErrUnavailable)

// listBatch is how many entries go to yield at once; a message of so many is
// some 200 KiB.
const listBatch = 1000

// List implements [sdk.Driver]: the records of this node.
func (d *Driver) List(ctx context.Context, yield func([]sdk.Entry) error) error {
	if d.tables == nil {
		return errNotConfigured
	}
	rows, err := d.tables.query(ctx, d.tables.layout.list, d.node().rows)
	if err != nil {
		return fmt.Errorf("list records: %w", err)
	}
	defer rows.Close()
	batch := make([]sdk.Entry, 0, listBatch)
	for rows.Next() {
		e, err := scanEntry(rows)
		if err != nil {
			return fmt.Errorf("read record: %w", err)
		}
		if batch = append(batch, e); len(batch) == listBatch {
			if err := yield(batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("list records: %w", err)
	}
	if len(batch) > 0 {
		return yield(batch)
	}
	return nil
}

// Apply implements [sdk.Driver]: the effect of a batch and its number are one
// transaction, which holds the row of this node.
func (d *Driver) Apply(ctx context.Context, b sdk.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	if d.tables == nil {
		return errNotConfigured
	}
	ctx, cancel := context.WithTimeout(ctx, d.config.queryTimeout)
	defer cancel()
	me := d.node()
	err := d.tables.apply(ctx, me, b)
	if !errors.Is(err, errExpired) {
		return err
	}
	// Its log went with its row: the host begins a new one and reconciles.
	if me, err = d.registerAnew(ctx, me); err != nil {
		return err
	}
	return d.tables.apply(ctx, me, b)
}

// Nodes implements [sdk.NodeLister]: this node is among them when it holds the
// image.
func (d *Driver) Nodes(ctx context.Context, id string) ([]sdk.Node, error) {
	if d.tables == nil {
		return nil, errNotConfigured
	}
	return d.tables.holders(ctx, id, d.config.staleAfter)
}

// Heartbeat implements [sdk.Heartbeater].
func (d *Driver) Heartbeat(ctx context.Context) error {
	if d.tables == nil {
		return errNotConfigured
	}
	ctx, cancel := context.WithTimeout(ctx, d.config.queryTimeout)
	defer cancel()
	me := d.node()
	err := d.tables.beat(ctx, me, d.config)
	if errors.Is(err, errExpired) {
		_, err = d.registerAnew(ctx, me)
	}
	return err
}

func (d *Driver) node() node {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.me
}

// registerAnew takes a place again for a node that was away for so long that
// its row was removed, unless another call has just done so.
func (d *Driver) registerAnew(ctx context.Context, was node) (node, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.me != was {
		return d.me, nil
	}
	me, err := d.tables.register(ctx, d.config)
	if err != nil {
		return node{}, err
	}
	d.log.Warn("this node was away for too long and its records were removed; they are written again", "node", d.config.name)
	d.me = me
	return me, nil
}

// microseconds returns a time as it is stored, and 0 for one that is not
// known.
func microseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicroseconds(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}
