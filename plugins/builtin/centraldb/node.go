package centraldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/imgcache/imgcache-host/sdk"
)

// node is the place of this node in the registry.
type node struct {
	id    int64
	rows  int64 // its number in the table of images
	epoch int64 // who has the newest may write
}

var (
	// errExpired says that the row of this node was removed.
	errExpired = fmt.Errorf("%w: this node is no longer registered", sdk.ErrUnavailable)
	// errFenced says that another process has taken the place of this one.
	errFenced = fmt.Errorf("%w: another process has taken the place of this node", sdk.ErrUnavailable)
)

// fence locks the row of this node until the transaction ends, and returns an
// error unless this process still has its place.
func (t *tables) fence(ctx context.Context, tx *sql.Tx, me node) error {
	var epoch int64
	err := t.row(ctx, tx, lockNode, me.id).Scan(&epoch)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("lock node: %w", err)
	}
	return me.check(epoch, err == nil)
}

func (me node) check(epoch int64, exists bool) error {
	switch {
	case !exists:
		return errExpired
	case epoch != me.epoch:
		return fmt.Errorf("%w: its epoch is %d, that of this process %d", errFenced, epoch, me.epoch)
	}
	return nil
}

// register takes the place of a node, and in Glance's tables that of its URL.
func (t *tables) register(ctx context.Context, c config) (me node, err error) {
	err = t.transact(ctx, func(tx *sql.Tx) (err error) {
		me = node{}
		if t.volatile == nil {
			if me, err = t.take(ctx, tx, c); err != nil {
				return err // perhaps somebody was quicker; the supervisor starts the plugin again
			}
		}
		if c.glance {
			me.rows, err = t.refer(ctx, tx, me, c)
		} else {
			me.rows = me.id
		}
		return err
	})
	if err != nil {
		return node{}, fmt.Errorf("register node %q: %w", c.name, err)
	}
	return me, nil
}

// take takes the place of a node, which is made if need be. The same instance
// takes it over from whoever had it. Another one does when the node is stale,
// and the records, which are of another directory, are removed.
func (t *tables) take(ctx context.Context, tx *sql.Tx, c config) (me node, err error) {
	var instance string
	var age int64
	find := func() error {
		return t.row(ctx, tx, findNode, c.name).Scan(&me.id, &instance, &me.epoch, &age, &me.rows)
	}
	err = find()
	if errors.Is(err, sql.ErrNoRows) {
		if err = t.exec(ctx, tx, addNode, c.name, c.instance, c.url); err == nil {
			err = find()
		}
		return me, err
	}
	if err != nil {
		return me, err
	}
	if instance != c.instance {
		quiet := time.Duration(age) * time.Microsecond
		if quiet < c.staleAfter {
			return me, fmt.Errorf("%w: node %q belongs to another cache directory (instance %s), whose last heartbeat was %v ago; give this node another name, or wait until %v after the other node has stopped",
				sdk.ErrUnavailable, c.name, instance, quiet.Round(time.Millisecond), c.staleAfter)
		}
		if err := t.clear(ctx, tx, me); err != nil {
			return me, err
		}
	}
	me.epoch++
	return me, t.exec(ctx, tx, takeNode, c.instance, c.url, me.id)
}

// clear removes what a node has written.
func (t *tables) clear(ctx context.Context, tx *sql.Tx, n node) error {
	for _, s := range []struct {
		drop string
		id   int64
	}{{t.dialect.own.drop, n.id}, {dropLogs, n.id}, {t.layout.drop, n.rows}} {
		if err := t.exec(ctx, tx, s.drop, s.id); err != nil {
			return err
		}
	}
	return nil
}

// expireOdds is how many heartbeats there are for one that looks for nodes to
// expire: with one each ten seconds, a node looks each ten minutes.
const expireOdds = 60

// beat says that this node lives, and now and then removes those that have not
// said so for long.
func (t *tables) beat(ctx context.Context, me node, c config) error {
	if t.volatile != nil {
		return nil // there is nowhere to say it
	}
	result, err := t.db.ExecContext(ctx, t.dialect.text(beatNode, "", 0), me.id, me.epoch)
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return t.lost(ctx, me)
	}
	if rand.IntN(expireOdds) > 0 {
		return nil
	}
	return t.expire(ctx, me, c.expireAfter)
}

// lost says why a heartbeat found no row.
func (t *tables) lost(ctx context.Context, me node) error {
	var epoch int64
	err := t.db.QueryRowContext(ctx, t.dialect.text(epochOfNode, "", 0), me.id).Scan(&epoch)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("heartbeat: %w", err)
	}
	return me.check(epoch, err == nil)
}

// expire removes the nodes, with their records, that were not heard of for so
// long.
func (t *tables) expire(ctx context.Context, me node, after time.Duration) error {
	err := t.transact(ctx, func(tx *sql.Tx) error {
		stale, err := t.stale(ctx, tx, me, after)
		if err != nil {
			return err
		}
		for _, n := range stale {
			if n.rows > 0 {
				if err := t.unrefer(ctx, tx, n.rows); err != nil {
					return err
				}
			}
			if err := t.exec(ctx, tx, dropNode, n.id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("expire nodes: %w", err)
	}
	return nil
}

// stale locks and returns the nodes that were not heard of for so long.
func (t *tables) stale(ctx context.Context, tx *sql.Tx, me node, after time.Duration) ([]node, error) {
	rows, err := tx.QueryContext(ctx, t.dialect.text(staleNodes, "", 0), after.Microseconds(), me.id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []node
	for rows.Next() {
		var n node
		if err := rows.Scan(&n.id, &n.rows); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, rows.Err()
}

// holders returns the live nodes that hold an image, the one heard of last
// first.
func (t *tables) holders(ctx context.Context, id string, staleAfter time.Duration) ([]sdk.Node, error) {
	statement, args := t.layout.holders, []any{id, staleAfter.Microseconds()}
	if t.volatile != nil {
		statement, args = glanceOnlyHolders, args[:1]
	}
	rows, err := t.query(ctx, statement, args...)
	if err != nil {
		return nil, fmt.Errorf("find nodes: %w", err)
	}
	defer rows.Close()
	var list []sdk.Node
	for rows.Next() {
		var n sdk.Node
		var seen int64
		if err := rows.Scan(&n.Name, &n.URL, &seen); err != nil {
			return nil, fmt.Errorf("read node: %w", err)
		}
		n.Seen = fromMicroseconds(seen)
		list = append(list, n)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("find nodes: %w", err)
	}
	return list, nil
}
