package centraldb

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
	"github.com/imgcache/imgcache-host/sdk"
)

// glance is the database of a Glance.
type glance struct {
	*testing.T
	db  *sql.DB
	dsn string
}

func newGlance(t *testing.T, s *dbtest.Server) *glance {
	t.Helper()
	db, dsn := s.GlanceDatabase(t)
	return &glance{t, db, dsn}
}

func (g *glance) exec(statements ...string) {
	g.Helper()
	for _, s := range statements {
		if _, err := g.db.ExecContext(g.Context(), s); err != nil {
			g.Fatalf("%s: %v", s, err)
		}
	}
}

// rows returns what a query finds, a line for each row.
func (g *glance) rows(query string) string {
	g.Helper()
	rows, err := g.db.QueryContext(g.Context(), query)
	if err != nil {
		g.Fatal(err)
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var line sql.NullString
		if err := rows.Scan(&line); err != nil {
			g.Fatal(err)
		}
		lines = append(lines, line.String)
	}
	if err := rows.Err(); err != nil {
		g.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// cached is what Glance lists for a node.
func (g *glance) cached(url string) string {
	g.Helper()
	return g.rows(`SELECT concat(image_id, ' ', last_accessed, ' ', last_modified, ' ', size, ' ', hits, ' ', coalesce(checksum, 'none'))
		FROM cached_images JOIN node_reference ON cached_images.node_reference_id = node_reference.node_reference_id
		WHERE node_reference_url = '` + url + `' ORDER BY image_id`)
}

// holders is what Glance answers to the question who has an image.
func (g *glance) holders(id string) string {
	g.Helper()
	return g.rows(`SELECT node_reference_url FROM node_reference JOIN cached_images ON cached_images.node_reference_id = node_reference.node_reference_id
		WHERE image_id = '` + id + `' ORDER BY node_reference_url`)
}

// open returns the driver of a node in Glance's tables.
func (g *glance) open(s sdk.Settings) (*Driver, error) {
	g.Helper()
	s.Options = sdk.Config{"glance_tables": "true"}
	return open(g.T, g.dsn, s)
}

func (g *glance) mustOpen(s sdk.Settings) *Driver {
	g.Helper()
	d, err := g.open(s)
	if err != nil {
		g.Fatal(err)
	}
	return d
}

const (
	uuidA = "0b4a3c8e-52c9-4d4b-9f43-7f2d9e1f0a01"
	uuidB = "0b4a3c8e-52c9-4d4b-9f43-7f2d9e1f0a02"
	uuidC = "0b4a3c8e-52c9-4d4b-9f43-7f2d9e1f0a03"
)

var accessed = time.Date(2026, 11, 23, 1, 2, 3, 456789000, time.UTC)

// times returns a time as Glance reads it, and as the driver lists it.
func times(s *dbtest.Server, t time.Time) (string, time.Time) {
	if s.Name() == "MariaDB" {
		t = t.Truncate(time.Second)
	}
	return t.Format("2006-01-02 15:04:05.999999"), t
}

// TestGlanceTables: what a node writes is what Glance reads, and the other way
// round.
func TestGlanceTables(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		g := newGlance(t, s)
		const columns = `SELECT concat(table_name, ' ', column_name, ' ', data_type, ' ', is_nullable) FROM information_schema.columns
			WHERE table_name IN ('cached_images', 'node_reference') ORDER BY table_schema, table_name, ordinal_position`
		before := g.rows(columns)
		d := g.mustOpen(settings("a", "1", nil))
		at, listed := times(s, accessed)
		modified, listedModified := times(s, accessed.Add(-time.Hour))
		long := strings.Repeat("x", 37)
		entry := func(id string, hits uint64) sdk.Entry {
			return sdk.Entry{ID: id, Version: "sha512:" + strings.Repeat("0", 128), Size: 1 << 40, Hits: hits, LastAccessed: accessed, LastModified: accessed.Add(-time.Hour)}
		}
		apply(t, d, sdk.Batch{Source: "s", Seq: 1, Ops: []sdk.Op{
			sdk.Put(entry(uuidA, 2)), sdk.Put(entry(uuidB, math.MaxInt32-1)), sdk.Put(entry(uuidC, 9)), sdk.Delete(uuidC),
			sdk.Put(entry(long, 1)), sdk.Put(entry("Upper", 1)), sdk.Touch(uuidA, 1, accessed.Add(-time.Minute)),
		}})
		touches := sdk.Batch{Source: "s", Seq: 2, Ops: []sdk.Op{sdk.Touch(uuidA, 4, time.Time{}), sdk.Touch(uuidB, 1<<33, time.Time{}), sdk.Touch(long, 1, accessed)}}
		apply(t, d, touches, touches) // the second time without effect

		rest := fmt.Sprintf(" %s %s %d", at, modified, int64(1)<<40)
		want := uuidA + rest + " 7 none\n" + uuidB + rest + " 2147483647 none"
		if diff := cmp.Diff(want, g.cached("http://a")); diff != "" {
			t.Errorf("Glance lists (-want +got):\n%s", diff)
		}
		var got []sdk.Entry
		if err := d.List(t.Context(), func(entries []sdk.Entry) error { got = append(got, slices.Clone(entries)...); return nil }); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(got, func(a, b sdk.Entry) int { return strings.Compare(a.ID, b.ID) })
		wanted := []sdk.Entry{
			{ID: uuidA, Size: 1 << 40, Hits: 7, LastAccessed: listed, LastModified: listedModified},
			{ID: uuidB, Size: 1 << 40, Hits: math.MaxInt32, LastAccessed: listed, LastModified: listedModified},
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("List yields (-want +got):\n%s", diff)
		}

		// Glance's checksum is of the image that it stored.
		g.exec(`UPDATE cached_images SET checksum = '0123456789abcdef0123456789abcdef'`)
		replaced := entry(uuidB, 0)
		replaced.Size = 5
		apply(t, d, sdk.Batch{Source: "s", Seq: 3, Ops: []sdk.Op{sdk.Touch(uuidA, 1, time.Time{}), sdk.Put(replaced)}})
		if got := g.rows("SELECT concat(image_id, coalesce(checksum, 'none')) FROM cached_images ORDER BY image_id"); got != uuidA+"0123456789abcdef0123456789abcdef\n"+uuidB+"none" {
			t.Errorf("the checksums are\n%s", got)
		}

		// The place in the record log outlives the driver.
		d = g.mustOpen(settings("a", "1", nil))
		if err := d.Apply(t.Context(), touch(uuidA, 5)); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("Apply(gap) = %v, want %v", err, sdk.ErrInvalid)
		}
		apply(t, d, touch(uuidA, 3), touch(uuidA, 4))
		wantHits(t, d, map[string]uint64{uuidA: 9, uuidB: 0})
		if got := g.rows(columns); got != before {
			t.Errorf("Glance's tables were\n%s\nand are\n%s", before, got)
		}
	})
}

// TestGlanceNodes: nodes of Glance and of this service see what the others
// hold. A row of Glance belongs to no node that could be away; ours do.
func TestGlanceNodes(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		g := newGlance(t, s)
		g.exec(`INSERT INTO node_reference (node_reference_url) VALUES ('http://glance'), ('http://b')`,
			`INSERT INTO cached_images (image_id, last_accessed, last_modified, size, hits, node_reference_id)
				SELECT '`+uuidA+`', '2026-11-23 01:02:03', '2026-11-23 00:00:00', 7, 3, node_reference_id FROM node_reference`)
		a := g.mustOpen(settings("a", "1", nil))
		apply(t, a, put(uuidA, 1), put(uuidB, 2))

		// The URL was Glance's; its records are taken over.
		b := g.mustOpen(settings("b", "2", nil))
		wantHits(t, b, map[string]uint64{uuidA: 3})
		if got, want := urls(t, b, uuidB), "http://a"; got != want {
			t.Errorf("held by %q, want %q", got, want)
		}
		got := strings.Fields(urls(t, a, uuidA))
		slices.Sort(got)
		if want := "http://a\nhttp://b\nhttp://glance"; strings.Join(got, "\n") != want || g.holders(uuidA) != want {
			t.Errorf("held by %q, Glance says %q", got, g.holders(uuidA))
		}

		// No two nodes at one URL, while both live.
		_, err := g.open(sdk.Settings{Node: "c", Instance: "3", URL: "http://a"})
		if !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), `node "a" has the URL http://a too`) {
			t.Errorf("Configure(URL of another node) = %v", err)
		}

		// A node that gets another URL keeps its records.
		moved := settings("a", "1", nil)
		moved.URL = "http://moved"
		a = g.mustOpen(moved)
		apply(t, a, touch(uuidA, 3))
		if got, want := g.holders(uuidB), "http://moved"; got != want {
			t.Errorf("held by %q, want %q", got, want)
		}

		// A stale node holds nothing, and leaves when it has expired.
		age(t, b, 8*24*time.Hour)
		if got, want := urls(t, b, uuidA), "http://b http://glance"; got != want {
			t.Errorf("held by %q, want %q", got, want)
		}
		if err := b.tables.expire(t.Context(), b.node(), b.config.expireAfter); err != nil {
			t.Fatal(err)
		}
		if got, want := g.rows("SELECT node_reference_url FROM node_reference ORDER BY 1"), "http://b\nhttp://glance"; got != want {
			t.Errorf("the nodes are %q, want %q", got, want)
		}
		if got, want := g.holders(uuidA), "http://b\nhttp://glance"; got != want {
			t.Errorf("held by %q, want %q", got, want)
		}
		// It comes back.
		if err := a.Apply(t.Context(), touch(uuidA, 4)); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("Apply(after the expiry) = %v, want %v", err, sdk.ErrInvalid)
		}
		apply(t, a, put(uuidC, 1))
		if got, want := g.holders(uuidC), "http://moved"; got != want {
			t.Errorf("held by %q, want %q", got, want)
		}
	})
}

// TestGlanceAlone: a user who may make no tables is served at least once, and
// told so.
func TestGlanceAlone(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		t.Parallel() // goose waits between attempts
		g := newGlance(t, s)
		user := "u" + strings.ToLower(rand.Text())
		if s.Name() == "PostgreSQL" {
			g.exec("CREATE ROLE "+user+" LOGIN", "GRANT SELECT, INSERT, UPDATE, DELETE ON cached_images, node_reference TO "+user,
				"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "+user)
		} else {
			g.exec("CREATE USER "+user+"@localhost", "GRANT SELECT, INSERT, UPDATE, DELETE ON "+g.rows("SELECT database()")+".* TO "+user+"@localhost")
		}
		_, rest, _ := strings.Cut(g.dsn, "@")
		scheme, _, _ := strings.Cut(g.dsn, "://")
		log := &bytes.Buffer{}
		d := New(slog.New(slog.NewTextHandler(log, nil)))
		c := settings("a", "1", sdk.Config{"dsn": scheme + "://" + user + "@" + rest, "glance_tables": "true"})
		if err := d.Configure(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		if !strings.Contains(log.String(), "may count twice") {
			t.Errorf("the log does not say what that means: %s", log)
		}
		if notes := d.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "may count twice") {
			t.Errorf("its notes are %q", notes)
		}
		apply(t, d, put(uuidA, 1), touch(uuidA, 2), touch(uuidA, 2))
		if err := d.Apply(t.Context(), touch(uuidA, 4)); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("Apply(gap) = %v, want %v", err, sdk.ErrInvalid)
		}
		if err := d.Heartbeat(t.Context()); err != nil {
			t.Error(err)
		}
		if got, want := urls(t, d, uuidA), "http://a"; got != want || g.holders(uuidA) != want {
			t.Errorf("held by %q, Glance says %q, want %q", got, g.holders(uuidA), want)
		}
		wantHits(t, d, map[string]uint64{uuidA: 1})

		d.tables.volatile = newVolatileLog() // as in another process
		if err := d.Apply(t.Context(), touch(uuidA, 3)); !errors.Is(err, sdk.ErrInvalid) {
			t.Errorf("Apply(after a restart) = %v, want %v, so that the host reconciles", err, sdk.ErrInvalid)
		}
		wantHits(t, d, map[string]uint64{uuidA: 1})
	})
}

// TestGlanceNeedsURL: that is what Glance knows a node by.
func TestGlanceNeedsURL(t *testing.T) {
	for _, url := range []string{"", "http://" + strings.Repeat("x", 300)} {
		s := sdk.Settings{Node: "a", Instance: "1", URL: url, Options: sdk.Config{"glance_tables": "true"}}
		if _, err := open(t, "postgres://nowhere.invalid/glance", s); !errors.Is(err, sdk.ErrInvalid) || !strings.Contains(err.Error(), "advertise") {
			t.Errorf("Configure(URL %q) = %v, want %v", url, err, sdk.ErrInvalid)
		}
	}
}
