package centraldb

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/imgcache/imgcache-host/plugins/builtin/centraldb/dbtest"
	"github.com/imgcache/imgcache-host/sdk"
)

// crowd is many nodes in one process, over one pool of connections.
type crowd struct {
	*testing.T
	config config
	tables *tables
	nodes  []*Driver
	images int // of each node
	seq    int // of the logs that were measured
}

// newCrowd returns one of no nodes yet, in a database whose schema is made.
func newCrowd(t *testing.T, dsn string, images int, adjust func(*config)) *crowd {
	t.Helper()
	c, err := parseConfig(settings("", "", sdk.Config{"dsn": dsn, "max_connections": "8"}))
	if err != nil {
		t.Fatal(err)
	}
	if adjust != nil {
		adjust(&c)
	}
	tables, err := openTables(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tables.close(); err != nil {
			t.Error(err)
		}
	})
	if err := tables.migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &crowd{T: t, config: c, tables: tables, images: images}
}

// node returns a driver of the node n, registered anew.
func (c *crowd) node(n int) *Driver {
	c.Helper()
	d := &Driver{log: slog.New(slog.NewTextHandler(io.Discard, nil)), tables: c.tables, config: c.config}
	d.config.name, d.config.instance, d.config.url = fmt.Sprint("node", n), fmt.Sprint(n), fmt.Sprintf("http://node%d", n)
	var err error
	if d.me, err = c.tables.register(c.Context(), d.config); err != nil {
		c.Fatal(err)
	}
	return d
}

// id is that of an image of a node. Three nodes have the same images.
func (c *crowd) id(n, image int) string { return fmt.Sprintf("image-%05d-%05d", n/3, image) }

// grow adds nodes with their images, until there are so many.
func (c *crowd) grow(nodes int) {
	c.Helper()
	for n := len(c.nodes); n < nodes; n++ {
		d := c.node(n)
		ops := make([]sdk.Op, c.images)
		for i := range ops {
			ops[i] = sdk.Put(sdk.Entry{ID: c.id(n, i), Version: "sha256:" + strings.Repeat("0", 64), Size: 1 << 30, LastAccessed: accessed, LastModified: accessed})
		}
		apply(c.T, d, sdk.Batch{Source: "log", Seq: 1, Ops: ops})
		c.nodes = append(c.nodes, d)
	}
	for _, table := range []string{"imgcache_nodes", "imgcache_images", "imgcache_logs"} {
		if _, err := c.tables.db.ExecContext(c.Context(), "ANALYZE "+map[bool]string{true: "TABLE "}[c.tables.dialect == mysqlLike]+table); err != nil {
			c.Fatal(err)
		}
	}
}

// flush is what a node sends in a second: hits of some images, one that came
// and one that left.
func (c *crowd) flush(source string, n int, seq uint64) sdk.Batch {
	ops := []sdk.Op{sdk.Put(sdk.Entry{ID: c.id(n, 0), Version: fmt.Sprint(seq)}), sdk.Delete(c.id(n, 1))}
	for i := range 20 {
		ops = append(ops, sdk.Touch(c.id(n, 2+i), 1, accessed.Add(time.Duration(seq)*time.Second)))
	}
	return sdk.Batch{Source: source, Seq: seq, Ops: ops}
}

// daily is what a node does all the time: it sends hits, perhaps twice, says
// that it lives, and asks who has an image.
func (c *crowd) daily(n int) {
	c.Helper()
	d := &Driver{log: c.nodes[n].log, tables: c.tables, config: c.config, me: c.nodes[n].me}
	c.seq++
	source := fmt.Sprint("measured", c.seq)
	apply(c.T, d, c.flush(source, n, 1), c.flush(source, n, 2), c.flush(source, n, 2))
	if err := d.Heartbeat(c.Context()); err != nil {
		c.Fatal(err)
	}
	if got := strings.Fields(urls(c.T, d, c.id(n, 5))); len(got) != 3 {
		c.Fatalf("%s is held by %q, want three nodes", c.id(n, 5), got)
	}
}

// seldom is what a node does when it starts, lists, or finds others gone.
func (c *crowd) seldom(n int) {
	c.Helper()
	d := c.node(n) // the same instance again
	c.nodes[n].me = d.me
	if got := len(hits(c.T, d)); got != c.images-1 {
		c.Fatalf("%d records, want %d", got, c.images-1)
	}
	gone := c.node(len(c.nodes) + 1)
	apply(c.T, gone, put("x", 1))
	if _, err := c.tables.db.ExecContext(c.Context(), fmt.Sprint("UPDATE imgcache_nodes SET seen = 1 WHERE node_id = ", gone.me.id)); err != nil {
		c.Fatal(err)
	}
	successor := gone.config
	successor.instance = "another"
	if _, err := c.tables.register(c.Context(), successor); err != nil {
		c.Fatal(err)
	}
	if err := gone.Heartbeat(c.Context()); err == nil {
		c.Fatal("a fenced node has a heartbeat")
	}
	if _, err := c.tables.db.ExecContext(c.Context(), fmt.Sprint("UPDATE imgcache_nodes SET seen = 1 WHERE node_id = ", gone.me.id)); err != nil {
		c.Fatal(err)
	}
	if err := c.tables.expire(c.Context(), d.me, time.Hour); err != nil {
		c.Fatal(err)
	}
}

// hail lets all nodes flush at once, for a number of rounds, and says how fast
// that was.
func (c *crowd) hail(rounds int) {
	c.Helper()
	const workers = 8
	start := time.Now()
	var work sync.WaitGroup
	for first := range workers {
		work.Go(func() {
			for seq := range uint64(rounds) {
				for n := first; n < len(c.nodes); n += workers {
					if err := c.nodes[n].Apply(c.Context(), c.flush("log", n, seq+2)); err != nil {
						c.Error(err)
					}
				}
			}
		})
	}
	work.Wait()
	took := time.Since(start)
	c.Logf("%d nodes of %d images: %.0f flushes of 22 operations per second", len(c.nodes), c.images, float64(rounds*len(c.nodes))/took.Seconds())
}

// planNode is a step of a plan as PostgreSQL tells it.
type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Rows     float64    `json:"Actual Rows"`
	Loops    float64    `json:"Actual Loops"`
	Filtered float64    `json:"Rows Removed by Filter"`
	Hit      int        `json:"Shared Hit Blocks"`
	Read     int        `json:"Shared Read Blocks"`
	Plans    []planNode `json:"Plans"`
}

// walk calls f for each step.
func (p planNode) walk(f func(planNode)) {
	f(p)
	for _, below := range p.Plans {
		below.walk(f)
	}
}

// plans are those of all statements that a pool has run, also of those that
// run within others.
type plans struct {
	mu   sync.Mutex
	list []plan
}

type plan struct {
	Text string   `json:"Query Text"`
	Plan planNode `json:"Plan"`
}

// watch makes the server explain each statement to the client as it runs it.
func (p *plans) watch(parameters map[string]string) func(*config) {
	return func(c *config) {
		for name, value := range map[string]string{
			"session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0", "auto_explain.log_analyze": "on",
			"auto_explain.log_buffers": "on", "auto_explain.log_nested_statements": "on", "auto_explain.log_timing": "off",
			"auto_explain.log_level": "notice", "auto_explain.log_format": "json",
		} {
			c.postgres.RuntimeParams[name] = value
		}
		for name, value := range parameters {
			c.postgres.RuntimeParams[name] = value
		}
		c.postgres.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
			_, text, found := strings.Cut(n.Message, "plan:")
			var one plan
			if found && json.Unmarshal([]byte(text), &one) == nil {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.list = append(p.list, one)
			}
		}
	}
}

// take returns the plans since the last call.
func (p *plans) take() []plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.list
	p.list = nil
	return list
}

// cost is what plans have looked at.
func cost(list []plan) (rows, blocks int) {
	for _, p := range list {
		blocks += p.Plan.Hit + p.Plan.Read
		p.Plan.walk(func(n planNode) {
			if n.Relation != "" {
				rows += int((n.Rows + n.Filtered) * n.Loops)
			}
		})
	}
	return rows, blocks
}

// mustUseIndexes fails if a statement reads one of the tables from end to end.
func mustUseIndexes(t *testing.T, list []plan, tables ...string) {
	t.Helper()
	seen := map[string]bool{}
	for _, p := range list {
		p.Plan.walk(func(n planNode) {
			seen[n.Relation] = true
			if n.Type == "Seq Scan" && slices.Contains(tables, n.Relation) {
				t.Errorf("reads all of %s: %s", n.Relation, p.Text)
			}
		})
	}
	for _, table := range tables {
		if !seen[table] {
			t.Errorf("no plan of %d is about %s", len(list), table)
		}
	}
}

// crowdSize returns the numbers of nodes and of images of each.
func crowdSize() (nodes, images int) {
	if os.Getenv("IMGCACHE_TEST_ALL") != "" {
		return 1000, 1000
	}
	return 50, 200
}

// TestScale: every statement finds its rows by an index, and what a node does
// costs the same however many others there are.
func TestScale(t *testing.T) {
	nodes, images := crowdSize()
	dbtest.Each(t, func(t *testing.T, s *dbtest.Server) {
		dsn := s.Database(t)
		c := newCrowd(t, dsn, images, nil)
		c.grow(nodes / 10)
		check := scaleInMySQL
		if c.tables.dialect == postgres {
			check = scaleInPostgres
		}
		again := check(t, c, dsn)
		c.grow(nodes)
		again()
		c.hail(4)
	})
}

// scaleInPostgres looks at the plans. It returns what is to be done when there
// are more nodes.
func scaleInPostgres(t *testing.T, c *crowd, dsn string) (again func()) {
	// A table of a few pages is read as a whole even if it has an index; so
	// that is discouraged here.
	var explained plans
	watched := newCrowd(t, dsn, c.images, explained.watch(map[string]string{"enable_seqscan": "off"}))
	measure := func() (rows, blocks int) {
		t.Helper()
		watched.nodes = c.nodes
		explained.take()
		watched.daily(1)
		rows, blocks = cost(explained.list)
		watched.seldom(1)
		mustUseIndexes(t, explained.take(), "imgcache_nodes", "imgcache_images", "imgcache_logs")
		t.Logf("%d nodes: three flushes, a heartbeat and a look for nodes see %d rows in %d blocks", len(c.nodes), rows, blocks)
		return rows, blocks
	}
	rows, _ := measure()
	return func() {
		// Each of three flushes finds 22 rows, and writes them into the table
		// and two indexes, of a few levels each.
		if now, blocks := measure(); now > rows || blocks > 3*22*16 {
			t.Errorf("they were %d rows with a tenth of the nodes", rows)
		}
		var size int
		if err := c.tables.db.QueryRowContext(t.Context(), "SELECT pg_total_relation_size('imgcache_images')").Scan(&size); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d bytes for a record, with its indexes", size/(len(c.nodes)*c.images))
		var natural plans
		watched := newCrowd(t, dsn, c.images, natural.watch(nil))
		watched.nodes = c.nodes
		natural.take()
		watched.daily(2)
		watched.seldom(2)
		mustUseIndexes(t, natural.take(), "imgcache_images")
	}
}

// scaleInMySQL looks at the counters of how rows were found.
func scaleInMySQL(t *testing.T, c *crowd, dsn string) (again func()) {
	watched := newCrowd(t, dsn, c.images, nil)
	watched.tables.db.SetMaxOpenConns(1) // whose counters these are
	counted := func(f func()) (all, scanned int) {
		t.Helper()
		if _, err := watched.tables.db.ExecContext(t.Context(), "FLUSH STATUS"); err != nil {
			t.Fatal(err)
		}
		f()
		rows, err := watched.tables.db.QueryContext(t.Context(), "SHOW SESSION STATUS LIKE 'Handler_read%'")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			var n int
			if err := rows.Scan(&name, &n); err != nil {
				t.Fatal(err)
			}
			all += n
			if name == "Handler_read_rnd_next" {
				scanned = n
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return all, scanned
	}
	measure := func() int {
		t.Helper()
		watched.nodes = c.nodes
		all, scanned := counted(func() { watched.daily(1) })
		_, seldom := counted(func() { watched.seldom(1) })
		t.Logf("%d nodes: three flushes, a heartbeat and a look for nodes see %d rows", len(c.nodes), all)
		if sorted := 3 + 1; scanned > sorted || seldom > sorted {
			t.Errorf("%d and %d rows were found without an index", scanned, seldom)
		}
		return all
	}
	rows := measure()
	return func() {
		if now := measure(); now > rows {
			t.Errorf("they were %d rows with a tenth of the nodes", rows)
		}
	}
}
