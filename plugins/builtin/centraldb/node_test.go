package centraldb

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
	"github.com/imgcache/imgcache-host/sdk"
)

// put is a batch that stores an image.
func put(id string, seq uint64) sdk.Batch {
	return sdk.Batch{Source: "s", Seq: seq, Ops: []sdk.Op{sdk.Put(sdk.Entry{ID: id, Version: "v", Size: 1})}}
}

func touch(id string, seq uint64) sdk.Batch {
	return sdk.Batch{Source: "s", Seq: seq, Ops: []sdk.Op{sdk.Touch(id, 1, time.Time{})}}
}

func apply(t *testing.T, d *Driver, batches ...sdk.Batch) {
	t.Helper()
	for _, b := range batches {
		if err := d.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
}

// hits returns the hits of each image of the node.
func hits(t *testing.T, d *Driver) map[string]uint64 {
	t.Helper()
	found := map[string]uint64{}
	err := d.List(t.Context(), func(entries []sdk.Entry) error {
		for _, e := range entries {
			found[e.ID] = e.Hits
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func wantHits(t *testing.T, d *Driver, want map[string]uint64) {
	t.Helper()
	if got := hits(t, d); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("hits are %v, want %v", got, want)
	}
}

// urls returns where the nodes are that hold an image. Those of Glance have no
// name, and are not heard of.
func urls(t *testing.T, d *Driver, id string) string {
	t.Helper()
	nodes, err := d.Nodes(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, n := range nodes {
		if ours := n.Name != n.URL; time.Since(n.Seen).Abs() > time.Hour == ours {
			t.Errorf("node %s was seen at %v", n.Name, n.Seen)
		}
		list = append(list, n.URL)
	}
	return strings.Join(list, " ")
}

// settings returns those of a node.
func settings(name, instance string, options sdk.Config) sdk.Settings {
	return sdk.Settings{Node: name, Instance: instance, URL: "http://" + name, Options: options}
}

// age makes all nodes but d's seem not heard of for a time.
func age(t *testing.T, d *Driver, by time.Duration) {
	t.Helper()
	if _, err := d.tables.db.ExecContext(t.Context(), d.tables.dialect.text("UPDATE imgcache_nodes SET seen = seen - ? WHERE node_id <> ?", "", 0),
		by.Microseconds(), d.node().id); err != nil {
		t.Fatal(err)
	}
}

// TestNodes: a node sees what others hold, as long as these live.
func TestNodes(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		dsn := s.Database(t)
		a, b := mustOpen(t, dsn, settings("a", "1", nil)), mustOpen(t, dsn, settings("b", "2", nil))
		apply(t, a, put("x", 1), touch("x", 2))
		apply(t, b, put("y", 1), put("x", 2))
		for id, want := range map[string]string{"x": "http://b http://a", "y": "http://b", "z": ""} {
			if got := urls(t, a, id); got != want {
				t.Errorf("%s is held by %q, want %q", id, got, want)
			}
		}
		wantHits(t, a, map[string]uint64{"x": 1})
		wantHits(t, b, map[string]uint64{"x": 0, "y": 0})
		if err := a.Heartbeat(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := urls(t, b, "x"), "http://a http://b"; got != want {
			t.Errorf("after a heartbeat x is held by %q, want %q", got, want)
		}
		age(t, b, time.Hour)
		if got, want := urls(t, b, "x"), "http://b"; got != want {
			t.Errorf("x is held by %q, want %q, for the other is stale", got, want)
		}
		wantHits(t, a, map[string]uint64{"x": 1}) // its records are there still
		if err := a.Heartbeat(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := urls(t, b, "x"), "http://a http://b"; got != want {
			t.Errorf("x is held by %q, want %q, for the other is back", got, want)
		}
		apply(t, a, sdk.Batch{Source: "s", Seq: 3, Ops: []sdk.Op{sdk.Delete("x")}})
		if got, want := urls(t, b, "x"), "http://b"; got != want {
			t.Errorf("x is held by %q, want %q", got, want)
		}
	})
}

// TestSuccession: who may have the name of a node.
func TestSuccession(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		dsn := s.Database(t)
		old := mustOpen(t, dsn, settings("a", "1", nil))
		apply(t, old, put("x", 1), touch("x", 2))

		// The same cache directory, started again: the process before it may
		// write no more.
		young := mustOpen(t, dsn, settings("a", "1", nil))
		if young.node().epoch != old.node().epoch+1 {
			t.Errorf("epochs are %d and %d", old.node().epoch, young.node().epoch)
		}
		if err := old.Apply(t.Context(), touch("x", 3)); !errors.Is(err, errFenced) || !strings.Contains(err.Error(), "another process") {
			t.Errorf("Apply() = %v, want %v", err, errFenced)
		}
		if err := old.Heartbeat(t.Context()); !errors.Is(err, errFenced) {
			t.Errorf("Heartbeat() = %v, want %v", err, errFenced)
		}
		apply(t, young, touch("x", 3))
		wantHits(t, young, map[string]uint64{"x": 2})

		// Another cache directory of that name.
		_, err := open(t, dsn, settings("a", "2", nil))
		if !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), "give this node another name") {
			t.Fatalf("Configure(another instance) = %v", err)
		}
		apply(t, young, touch("x", 4)) // the attempt changed nothing
		age(t, mustOpen(t, dsn, settings("b", "3", nil)), 2*time.Minute)
		other := mustOpen(t, dsn, settings("a", "2", nil))
		wantHits(t, other, map[string]uint64{}) // none of its directory
		if err := young.Apply(t.Context(), touch("x", 5)); !errors.Is(err, errFenced) {
			t.Errorf("Apply() = %v, want %v", err, errFenced)
		}
		if err := other.Apply(t.Context(), touch("x", 5)); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("Apply(a batch of the other's log) = %v, want %v", err, sdk.ErrInvalid)
		}
		apply(t, other, put("y", 1))
	})
}

// TestExpiry: a node that is away for long leaves nothing behind, and finds a
// new place when it returns.
func TestExpiry(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		dsn := s.Database(t)
		lost, live := mustOpen(t, dsn, settings("lost", "1", nil)), mustOpen(t, dsn, settings("live", "2", nil))
		apply(t, lost, put("x", 1), touch("x", 2))
		apply(t, live, put("x", 1))
		rows := func() (n int) {
			t.Helper()
			err := live.tables.db.QueryRowContext(t.Context(),
				"SELECT (SELECT count(*) FROM imgcache_nodes) + (SELECT count(*) FROM imgcache_images) + (SELECT count(*) FROM imgcache_logs)").Scan(&n)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		expire := func() {
			t.Helper()
			if err := live.tables.expire(t.Context(), live.node(), live.config.expireAfter); err != nil {
				t.Fatal(err)
			}
		}
		age(t, live, 6*24*time.Hour)
		expire()
		if got := rows(); got != 6 {
			t.Errorf("%d rows, want 6: nobody has been away for a week", got)
		}
		age(t, live, 2*24*time.Hour)
		expire()
		if got := rows(); got != 3 {
			t.Errorf("%d rows, want the 3 of the live node", got)
		}

		// A batch and a heartbeat find that out at once, and it is one place
		// that they find.
		var work sync.WaitGroup
		work.Go(func() {
			if err := lost.Apply(t.Context(), touch("x", 3)); !errors.Is(err, sdk.ErrInvalid) {
				t.Errorf("Apply(after the expiry) = %v, want %v, so that the host reconciles", err, sdk.ErrInvalid)
			}
		})
		work.Go(func() {
			if err := lost.Heartbeat(t.Context()); err != nil {
				t.Error(err)
			}
		})
		work.Wait()
		apply(t, lost, put("x", 1), touch("x", 2))
		wantHits(t, lost, map[string]uint64{"x": 1})
	})
}

// TestStartTogether: nodes that meet an empty database make one schema, and
// then each has its own records.
func TestStartTogether(t *testing.T) {
	const nodes = 8
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		dsn := s.Database(t)
		var work sync.WaitGroup
		drivers := make([]*Driver, nodes)
		for i := range drivers {
			work.Go(func() { drivers[i] = mustOpen(t, dsn, settings(fmt.Sprint("n", i), fmt.Sprint(i), nil)) })
		}
		work.Wait()
		if t.Failed() {
			return
		}
		for i, d := range drivers {
			work.Go(func() {
				for seq := range uint64(10) {
					b := put("shared", seq+1)
					b.Ops = append(b.Ops, sdk.Put(sdk.Entry{ID: fmt.Sprint("image", i, seq)}), sdk.Touch("shared", uint64(i), time.Time{}))
					if err := d.Apply(t.Context(), b); err != nil {
						t.Error(err)
					}
				}
			})
		}
		work.Wait()
		for i, d := range drivers {
			if got := hits(t, d); len(got) != 11 || got["shared"] != uint64(10*i) {
				t.Errorf("node %d has %v", i, got)
			}
		}
	})
}
